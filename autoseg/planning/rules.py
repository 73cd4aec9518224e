"""The rules that a recipe may name: each says which planning function decides something, and gives its constants.

The functions are in `spacing`, `topology`, `configurations`, `intensity`, `sides`, `fold_rules` and `training`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoseg.planning.schema import Count, Part, Positive

ConfigurationName = Literal["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]


class ByDimension(Part):
    """A constant for 2D and for 3D configurations."""

    two: Positive | None = Field(alias="2d")
    three: Positive | None = Field(alias="3d")

    def of(self, dimension: int) -> float | None:
        return self.two if dimension == 2 else self.three


class MedianSpacing(Part):
    """The median spacing, finer on a coarse axis (peer 2.2)."""

    rule: Literal["median"]
    anisotropy: Positive = Field(description="The coarsest axis must exceed the others by more than this, in spacing and in size.")
    percentile: float = Field(ge=0, le=100, description="Percentile of the spacings that such an axis gets.")


class FixedSpacing(Part):
    """A given spacing, finer where the data are small."""

    rule: Literal["fixed"]
    spacing: tuple[Positive, Positive, Positive]


class LowresRule(Part):
    """When and how coarse a first stage is (peer 2.8)."""

    below: float = Field(ge=0, description="A patch that shows a smaller share of the median case calls for it.")
    step: float = Field(gt=1, description="Factor by which the spacing grows until the patch shows enough.")
    anisotropy: Positive = Field(description="Axes finer than the coarsest by more than this grow first.")
    least_gain: Positive = Field(description="It is dropped unless the case shrinks by this factor.")


class MemoryPatch(Part):
    """The largest patch whose feature maps stay within a count of elements, and the batch that fits (peer 2.1, 2.5)."""

    rule: Literal["memory"]
    elements: ByDimension = Field(description="Feature-map elements at `reference_gb`.")
    reference_batch: ByDimension
    reference_gb: Positive
    grows_with_memory: bool = Field(description="Whether more memory than `reference_gb` allows more.")
    share_of_memory: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="Share of the device's memory that the forecast of a training step may reach; null: the elements alone decide."
    )
    shrink: Literal["per_two", "per_sample"] = Field(description="Whether the count is compared per two samples of the reference batch.")
    covered: Positive = Field(description="Largest share of all voxels that one batch may show.")
    smallest_batch: Count
    largest_batch: ByDimension
    initial_edge: ByDimension = Field(description="Edge of the isotropic patch that shrinking starts from.")


class FixedPatch(Part):
    """A given patch and batch, smaller where the data are."""

    rule: Literal["fixed"]
    patch_size: tuple[Count, Count, Count]
    batch_size: Count


class PoolingTopology(Part):
    """Levels by halving axes of like spacing while they are long enough (peer 2.6)."""

    rule: Literal["pooling"]
    base_features: Count
    most_features: ByDimension
    smallest_edge: Count


class FixedTopology(Part):
    """Given widths; every level halves every axis."""

    rule: Literal["fixed"]
    features: list[Count]
    stride: Count
    kernel: Count


class StageBlocks(Part):
    """Units of each level; the last encoder number stands for all deeper levels."""

    encoder: list[Count]
    decoder: Count


class BlocksRule(Part):
    """Units by kind of network."""

    unet: StageBlocks
    residual_unet: StageBlocks


class NormRule(Part):
    """When a recipe's batch norm becomes instance norm."""

    batch_from_cases: Count | None = Field(
        description="With fewer cases, unless all of them are CT: statistics learnt from few images of arbitrary units do not hold for "
        "others; null: never."
    )


class ConfigurationsRule(Part):
    """Which configurations are made, and which one is trained unasked."""

    made: list[ConfigurationName]
    default: ConfigurationName
    pool_loss: Literal["peer", "always", "never"] = Field(description="`peer`: in 2D, and in full resolution where there is a first stage.")


class IntensityRule(Part):
    """How intensities are normalised.

    peer: by the channel's name (peer 2.9). kinds: by each case's kind. paper: paper.md items 4 to 7.
    """

    rule: Literal["peer", "kinds", "paper"]
    window: tuple[float, float] = Field(description="HU window that makes HU and windowed volumes alike.")
    mask_below: Positive = Field(description="Z-scores use the non-zero mask where cropping leaves less than this share.")


class SidesRule(Part):
    """What mirroring does to left and right."""

    rule: Literal["by_labels", "as_written"]
    most_tilt: Positive = Field(description="Degrees beyond which no array axis counts as left-right.")
    mirrored: Literal["as_written", "left_right"] = Field(
        description="Axes that training mirrors: the recipe's `mirror_axes`, or of volumes in LPS axes the patient's left-right axis alone."
    )


class RotationRule(Part):
    """How far patches turn (peer 4.5)."""

    rule: Literal["by_patch", "as_written"]
    degrees: Positive
    in_plane_degrees: Positive = Field(description="For 2D patches and thick slices.")
    oblong_degrees: Positive = Field(description="For 2D patches of unequal sides.")
    oblong: Positive = Field(description="Ratio of the sides from which a 2D patch counts as unequal.")
    thick: Positive = Field(description="Ratio of the longest side to the sides across, from which 3D patches turn in plane only.")


class SectionsRule(Part):
    """When 2D images count as sections of one block, whose neighbours are held out together."""

    blocks: bool = Field(description="Whether they are; else folds are drawn at random.")
    least_gain: Positive = Field(description="By how much neighbours by number must correlate more than images far apart.")


class LabelGroupsRule(Part):
    """Left and right scored together."""

    pairs: bool
    single_pair_name: str | None = Field(description="Name of the group if there is one pair; null: from the labels' names.")


class Rules(Part):
    """Which planning function decides what, with its constants."""

    spacing: Annotated[MedianSpacing | FixedSpacing, Field(discriminator="rule")]
    transpose: bool = Field(description="Whether the coarsest axis comes first inside (peer 2.3).")
    lowres: LowresRule
    patch: Annotated[MemoryPatch | FixedPatch, Field(discriminator="rule")]
    topology: Annotated[PoolingTopology | FixedTopology, Field(discriminator="rule")]
    blocks: BlocksRule
    norm: NormRule
    configurations: ConfigurationsRule
    intensity: IntensityRule
    sides: SidesRule
    rotation: RotationRule
    label_groups: LabelGroupsRule
    mean_over_classes: bool = Field(description="Whether the Tversky term's weight is divided by its number of classes.")
    mirrors_at_test_time: Literal["as_written", "as_trained"]
    stratify_where_classes_are_missing: bool
    sections: SectionsRule
    tolerance_mm: Positive = Field(description="Surface tolerance of every label.")
