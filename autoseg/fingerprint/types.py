"""What was measured about the data, and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["hu", "windowed", "arbitrary"]


class Measured(BaseModel):
    """A frozen part of a fingerprint."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ForegroundMeasures(Measured):
    """Intensities of the voxels under any foreground label of a case."""

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float


class KindFinding(Measured):
    """The intensity kind of one case's channel, and what made it so."""

    kind: Kind
    why: str = Field(description="A sentence, without its full stop.")
    sure: bool = Field(description="False where the kind is a last resort; the user should look.")
    offset: float = Field(default=0.0, description="What makes HU of the values: -1024 for CT stored without its intercept, else 0.")


class ChannelMeasures(KindFinding):
    """One channel of one case."""

    minimum: float
    maximum: float
    mean: float
    std: float
    foreground: ForegroundMeasures | None = Field(description="As stored in the file; null where no label is shown.")
    foreground_hu: ForegroundMeasures | None = Field(
        default=None, description="Once what keeps the values from being HU is mended (intercept, padding); null where nothing does."
    )
    look: KindFinding | None = Field(
        default=None, description="What the values look like alone, whatever channel and dataset say; null where nobody looked."
    )


class Signature(Measured):
    """A small picture of the first channel, in LPS axes, by which a copy of the image is known again; see signature.py."""

    shape: tuple[int, int, int] = Field(description="Cells (z, y, x).")
    cell_mm: tuple[float, float, float] = Field(description="Size of a cell, a power of two along axes of more than one voxel.")
    cells: str = Field(description="0 to 255, one byte a cell, compressed by zlib, as base64 text.")


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
        description='"a|b" -> how far label a, mirrored at the plane between the two, and label b cover each other (0..1), '
        "for labels whose names say a side and for unnamed ones that could be sides; see sides.py."
    )
    side_offset: dict[str, float] = Field(default={}, description='"a|b" -> mm that a lies further to the patient\'s left than b.')
    label_places: dict[int, tuple[float, float, float]] = Field(
        default={}, description="File value -> centre of its voxels, as fractions of the volume's length along the LPS axes (z, y, x)."
    )
    origin: tuple[float, float, float] = Field(default=(0.0, 0.0, 0.0), description="Of the stored grid, LPS mm (x, y, z).")
    signature: Signature | None = Field(default=None, description="Null where nobody looked.")


class KindSummary(Measured):
    """One kind of one channel over the cases: each case weighs the same.

    Of the foreground, in HU for kind `hu`; of whole volumes, with the extremes as percentiles, if no case of this kind has foreground.
    """

    cases: int = Field(description="Cases of this kind.")
    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class ClassSummary(Measured):
    """One label value over the cases."""

    annotated: int = Field(description="Cases in which somebody annotated it, whether they show it or not; only these count here.")
    cases: int = Field(description="Cases that show it.")
    share: float = Field(description="Mean share of a case's voxels.")
    median_ml: float = Field(description="Over the cases that show it.")


class SidePair(Measured):
    """Two labels that names and shapes show to be each other's mirror image."""

    left: str
    right: str
    overlap: float = Field(description="Median over the cases of how far the two cover each other once one is mirrored between them.")
    volume_ratio: float = Field(description="Median over the cases of the larger volume by the smaller.")


class SidesSummary(Measured):
    """Left and right, as far as names and shapes tell."""

    pairs: list[SidePair]
    unpaired: list[str] = Field(description="Labels whose name says a side and whose partner is missing.")
    rejected: list[SidePair] = Field(description="Pairs by name that the shapes contradict.")
    unseen: list[tuple[str, str]] = Field(default=[], description="Pairs by name, (left, right), that no case shows together.")


class Fingerprint(Measured):
    """The dataset as measured."""

    cases: dict[str, CaseMeasures]
    channels: dict[str, dict[Kind, KindSummary]] = Field(description="Channel name -> kind -> summary of the foreground.")
    classes: dict[str, ClassSummary]
    sides: SidesSummary
    median_relative_size_after_crop: float
