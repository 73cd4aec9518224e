"""How cases are split for cross-validation."""

from __future__ import annotations

from pydantic import Field

from autoseg.planning.schema.parts import Count, Part


class FoldsPlan(Part):
    """How cases are split."""

    count: Count
    seed: int = Field(ge=0)
    stratify: bool
    groups: bool = Field(description="Whether cases of one group stay in one fold.")
    source: str = Field(
        description='"kfold" (scikit-learn), "blocks" (runs of neighbours by name, for serial sections), "dataset" (its '
        "splits_final.json), or a file of that form given with --set."
    )
