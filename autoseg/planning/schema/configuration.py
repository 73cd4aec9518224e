"""One configuration: its resampling, patch, batch and network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from autoseg.planning.schema.parts import Count, Part, Positive, Probability


class Interpolation(Part):
    """How intensities or logits are brought to another grid."""

    order: Literal[0, 1, 3]
    across: Literal["none", "thick", 0, 1, 2] = Field(
        description="Axis of thick slices, resampled apart; `thick`: the axis whose spacing exceeds 3 times the finest, case by case."
    )
    order_across: Literal[0, 1, 3]


class LabelInterpolation(Part):
    """How label maps are brought to another grid."""

    order: Literal[0, 1]
    rule: Literal["argmax", "half"]
    across: Literal["none", "thick", 0, 1, 2]
    order_across: Literal[0, 1]


class ResamplingPlan(Part):
    """How cases reach the configuration's spacing, and results their own grid."""

    size: Literal["round", "floor"] = Field(description="How a new size becomes whole.")
    image: Interpolation
    logits: Interpolation
    labels: LabelInterpolation


class PaddingPlan(Part):
    """What stands outside of a volume."""

    train: Literal["zero", "minimum"]
    predict: Literal["zero", "minimum"] = Field(description="`minimum`: the smallest value of each line.")


class NormPlan(Part):
    """A normalisation layer."""

    name: Literal["batch", "instance", "none"]
    momentum: Probability
    eps: Positive


class BlocksPlan(Part):
    """Convolution units (or residual blocks) of each level."""

    encoder: list[Count]
    decoder: list[Count]


class NetworkPlan(Part):
    """One network; `autoseg.network.build` makes it."""

    factory: str | None = Field(description="`module:function(network_plan, channels, outputs)` of a network of your own, or null.")
    kind: Literal["unet", "residual_unet"]
    dimension: Literal[2, 3]
    features: list[Count] = Field(description="Width of each level.")
    strides: list[list[int]] = Field(description="Downsampling on entry of each level; the first is all 1.")
    kernels: list[list[int]] = Field(description="Convolution size of each level.")
    blocks: BlocksPlan
    downsampling: Literal["max_pool", "stride"]
    norm: NormPlan
    activation: Literal["relu", "leaky_relu"]
    order_of_layers: Literal["conv-activation-norm", "conv-norm-activation"]
    initialisation: Literal["glorot_uniform", "kaiming_normal"]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @property
    def divisor(self) -> tuple[int, ...]:
        """What each axis of a patch must divide by: the product of its strides."""
        product = [1] * self.dimension
        for stride in self.strides:
            product = [p * s for p, s in zip(product, stride, strict=True)]
        return tuple(product)

    @model_validator(mode="after")
    def _levels_agree(self) -> NetworkPlan:
        levels = len(self.features)
        lengths = {"strides": len(self.strides), "kernels": len(self.kernels), "blocks.encoder": len(self.blocks.encoder)}
        for name, length in lengths.items():
            if length != levels:
                raise ValueError(f"{name} has {length} levels, features has {levels}")
        if len(self.blocks.decoder) != levels - 1:
            raise ValueError(f"blocks.decoder has {len(self.blocks.decoder)} levels, features needs {levels - 1}")
        for name in ("strides", "kernels"):
            if any(len(entry) != self.dimension or min(entry) < 1 for entry in getattr(self, name)):
                raise ValueError(f"{name} needs {self.dimension} positive numbers a level")
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise ValueError("kernels must be odd")
        if any(s != 1 for s in self.strides[0]):
            raise ValueError("the first level has stride 1")
        return self


class ConfigurationPlan(Part):
    """One network with its spacing, patch and batch."""

    spacing: list[float] = Field(description="mm; (z, y, x), or (y, x) for 2D.")
    median_shape: list[float] = Field(description="Median size of the cases at this spacing, voxels.")
    patch_size: list[Count] = Field(description="Voxels that the network sees at once.")
    batch_size: Count
    transpose: tuple[int, int, int] | None = Field(description="Axis order inside preprocessing and inference, or null.")
    crop: Literal["none", "nonzero"] = Field(description="Whether cases are cropped to where any channel is not 0.")
    padding: PaddingPlan
    normalise_in_mask: list[bool] = Field(
        description="For each channel, whether z-scores use the non-zero mask; true where a step of `intensity` says so itself."
    )
    resampling: ResamplingPlan
    network: NetworkPlan
    pool_loss_over_batch: bool = Field(description="Whether the Tversky sums run over the batch or each sample.")
    previous_stage: str | None
    next_stage: str | None

    def inside_axis(self, axis: int) -> int | None:
        """The axis, among those that the network sees, of array axis `axis` as read; None if 2D slices run along it."""
        position = axis if self.transpose is None else self.transpose.index(axis)
        if self.network.dimension == 2:
            return position - 1 if position else None
        return position

    def inside(self) -> ConfigurationPlan:
        """The same configuration with its triples in the axis order that the network sees (`transpose` applied).

        Pairs of a 2D configuration already stand in that order: the axes that remain, ascending.
        """
        if self.transpose is None or self.network.dimension == 2:
            return self
        order = self.transpose

        def turned(values):
            return type(values)(values[a] for a in order)

        network = self.network.model_copy(
            update={
                "strides": [turned(s) for s in self.network.strides],
                "kernels": [turned(k) for k in self.network.kernels],
            }
        )
        return self.model_copy(
            update={
                "spacing": turned(self.spacing),
                "median_shape": turned(self.median_shape),
                "patch_size": turned(self.patch_size),
                "network": network,
            }
        )

    @model_validator(mode="after")
    def _patch_fits(self) -> ConfigurationPlan:
        dimension = self.network.dimension
        for name in ("spacing", "median_shape", "patch_size"):
            if len(getattr(self, name)) != dimension:
                raise ValueError(f"{name} needs {dimension} numbers")
        if min(self.spacing) <= 0:
            raise ValueError("spacing must be positive")
        divisor = self.network.divisor
        if any(p % d for p, d in zip(self.patch_size, divisor, strict=True)):
            near = [max(d, round(p / d) * d) for p, d in zip(self.patch_size, divisor, strict=True)]
            raise ValueError(
                f"patch_size {self.patch_size} is not divisible by the product of the strides {list(divisor)}; the nearest that is: {near}"
            )
        return self
