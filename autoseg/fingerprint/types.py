"""What was measured about the data, and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["hu", "windowed", "arbitrary"]


class Measured(BaseModel):
    """A frozen part of a fingerprint."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Histogram(Measured):
    """Values as counts in bins of width 2**exponent; the first bin starts at `first` bin widths.

    Two histograms merge by coarsening the finer one, so memory does not grow with the data.
    """

    exponent: int
    first: int
    counts: list[float]


class ForegroundMeasures(Measured):
    """Intensities under any foreground label."""

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float
    histogram: Histogram


class ChannelMeasures(Measured):
    """One channel of one case."""

    kind: Kind
    why: str = Field(description="What in the values made it this kind.")
    sure: bool = Field(description="False where the kind is a last resort.")
    minimum: float
    maximum: float
    mean: float
    std: float
    foreground: ForegroundMeasures | None


class CaseMeasures(Measured):
    """One case. Shapes and spacings are (z, y, x) in the orientation as read."""

    content_key: str
    label_key: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    planar: bool
    tilt: float = Field(description="Degrees between the array axes and the patient's.")
    orientation: str = Field(description="The stored axes in ITK's letters, such as RAS.")
    crop_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = Field(description="Where any channel is not 0, half-open.")
    channels: list[ChannelMeasures]
    label_voxels: dict[int, int] = Field(description="File value -> voxels.")
    side_overlap: dict[str, float] = Field(
        description='"a|b" -> Dice of label a mirrored at the mid-plane with label b, for labels whose names say a side.'
    )


class KindSummary(Measured):
    """One kind of one channel over the cases: each case weighs the same."""

    cases: int
    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class ClassSummary(Measured):
    """One label value over the cases."""

    cases: int = Field(description="Cases that show it.")
    share: float = Field(description="Mean share of a case's voxels.")
    median_ml: float = Field(description="Over the cases that show it.")


class SidePair(Measured):
    """Two labels that names and shapes show to be each other's mirror image."""

    left: str
    right: str
    overlap: float = Field(description="Median Dice of one mirrored at the mid-plane with the other.")
    volume_ratio: float


class SidesSummary(Measured):
    """Left and right, as far as names and shapes tell."""

    pairs: list[SidePair]
    unpaired: list[str] = Field(description="Labels whose name says a side and whose partner is missing.")
    rejected: list[SidePair] = Field(description="Pairs by name that the shapes contradict.")


class Fingerprint(Measured):
    """The dataset as measured."""

    cases: dict[str, CaseMeasures]
    channels: dict[str, dict[Kind, KindSummary]] = Field(description="Channel name -> kind -> summary of the foreground.")
    classes: dict[str, ClassSummary]
    sides: SidesSummary
    median_relative_size_after_crop: float
