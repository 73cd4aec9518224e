"""What is done to the intensities of each kind of each channel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoseg.planning.schema.parts import Part, Range


class Clip(Part):
    """Limit values to a window."""

    do: Literal["clip"]
    low: float
    high: float


class Rescale(Part):
    """Map [low, high] linearly to `to`; `null` stands for the volume's own minimum or maximum."""

    do: Literal["rescale"]
    low: float | None
    high: float | None
    to: Range
    round: bool = Field(description="Round to whole numbers, as 8-bit gray values are.")


class ZScore(Part):
    """Subtract a mean and divide by a deviation; `null` stands for the volume's own."""

    do: Literal["zscore"]
    mean: float | None
    std: float | None
    mask: Literal["all", "nonzero"] = Field(description="Voxels that the volume's own statistics come from, and that change.")


class Nothing(Part):
    """Leave values as they are."""

    do: Literal["none"]


IntensityStep = Annotated[Clip | Rescale | ZScore | Nothing, Field(discriminator="do")]


class IntensityPlan(Part):
    """What is done to one kind of one channel."""

    before_resampling: list[IntensityStep]
    after_resampling: list[IntensityStep]

    @property
    def masked(self) -> bool:
        """Whether a z-score uses the non-zero mask in every configuration."""
        return any(isinstance(step, ZScore) and step.mask == "nonzero" for step in (*self.before_resampling, *self.after_resampling))
