"""How volumes are predicted, cleaned up and scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoseg.planning.schema.parts import Count, Part


class PredictionPlan(Part):
    """How a volume is predicted."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(description="Share of a tile that its neighbour covers too.")
    tiles: Literal["regular", "even"] = Field(
        description="Steps of exactly (1 - overlap), the last tile pulled back; or equal steps of at most that."
    )
    weighting: Literal["gaussian", "uniform"]
    average: Literal["logits", "probabilities"]
    resize: Literal["logits", "labels"] = Field(description="What is brought back to the original grid.")
    test_time_mirrors: list[Literal[0, 1, 2]] = Field(
        description="Array axes whose mirrored predictions are averaged in; never the left-right axis where `mirror_sides` is keep."
    )
    batch_tiles: Count


class LargestComponent(Part):
    """Keep only the largest connected component of the named labels taken together."""

    do: Literal["largest_component"]
    labels: list[str]


class EvaluationPlan(Part):
    """How predictions are scored."""

    metrics: list[Literal["dice", "iou", "sensitivity", "specificity", "precision"]]
    tolerance_mm: dict[str, float] = Field(description="Surface tolerance of each label.")
    summary: Literal["median", "mean"] = Field(description="`median` adds the paper's Table 1.")
    empty_rule: Literal["count"] = Field(description="A class absent in truth and prediction is counted, never scored 0 or 1.")
