"""What is changed at random in training samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from autoseg.planning.schema.parts import Part, Probability, Range


class TransformPlan(Part):
    """One augmentation."""

    do: Literal["elastic", "rotate", "scale", "contrast", "brightness", "gamma", "noise", "blur", "low_resolution"]
    probability: Probability
    channel_probability: Probability = Field(description="Chance of each channel once the transform is drawn.")
    ranges: dict[str, Range] = Field(
        description="What is drawn, uniformly, between which values. elastic: alpha, sigma (voxels); rotate: z, y, x (degrees about "
        "that array axis; a 2D patch turns by the angle about its slices' axis); scale, contrast, brightness, low_resolution: factor; "
        "gamma: exponent; noise: deviation; blur: sigma (voxels). A range of factors or exponents that holds 1 inside is drawn with "
        "even chance below and above 1, as batchgenerators does."
    )
    invert: bool = Field(description="`gamma`: on the inverted image.")


class PreviousStageChange(Part):
    """One way in which a cascade's input from its first stage is spoilt in training, so that the second does not trust it blindly."""

    do: Literal["morphology", "remove_component"]
    probability: Probability
    channel_probability: Probability = Field(description="Chance of each class or region once the change is drawn.")
    ranges: dict[str, Range] = Field(
        description="morphology: radius (voxels) of the ball that dilates, erodes, closes or opens, each as likely; what an exclusive "
        "class gains the others lose. remove_component: share of the patch that the component taken away may cover."
    )

    @model_validator(mode="after")
    def _range_is_there(self) -> PreviousStageChange:
        wanted = "radius" if self.do == "morphology" else "share"
        if set(self.ranges) != {wanted}:
            raise ValueError(f"{self.do} draws from the range {wanted!r}, it has {sorted(self.ranges)}")
        return self


class PlugInPlan(Part):
    """One of batchgenerators' own transforms."""

    transform: str = Field(
        pattern=r"^\w+\.\w+$", description="Module and class in batchgenerators.transforms, such as noise_transforms.RicianNoiseTransform."
    )
    arguments: dict[str, Any] = Field(description="What the class is made with.")
    probability: Probability


class AugmentationPlan(Part):
    """What is changed at random in each training sample."""

    backend: Literal["native", "batchgenerators"] = Field(
        description="Whose functions: our own, in threads, or batchgenerators', in processes: it draws from generators that threads share."
    )
    conventions: Literal["batchgenerators", "batchgeneratorsv2"] = Field(
        description="Whom `native` follows where the two differ: v2 draws scales evenly over their range, lets a volume go over into zeros "
        "within a voxel at its edge instead of ending there, and blurs with 3 sigmas and mirrored edges instead of 4 and repeated ones."
    )
    device: Literal["cpu", "training"] = Field(
        description="Where `native` changes images: on the CPU, or on the device that trains; labels are moved on the CPU."
    )
    transforms: list[TransformPlan]
    plug_ins: list[PlugInPlan] = Field(
        description="batchgenerators' transforms that each patch goes through after `transforms`; samples are then made by processes."
    )
    thick_axis: Literal[0, 1, 2] | None = Field(
        description="Array axis of thick slices, which elastic, scale and low_resolution leave alone; null: none."
    )
    mirror_axes: list[Literal[0, 1, 2]] = Field(description="Array axes (z, y, x) that may be mirrored.")
    mirror_probability: Probability = Field(description="For each of these axes.")
    mirror_sides: Literal["exchange", "keep", "blind"] = Field(
        description="What mirroring left to right does to labels with a side: swaps each pair's; does not happen, at test time neither; "
        "leaves them as they are."
    )
    interpolation: tuple[int, int] = Field(description="Spline order of image and of labels in the spatial transforms.")
    statistics: Literal["volume", "patch"] = Field(description="Whether intensity transforms act on the whole volume or on the patch.")
    previous_stage: list[PreviousStageChange] = Field(description="What spoils the first stage's result in a cascade's second.")
