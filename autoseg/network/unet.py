"""The U-Net, from its smallest part to the whole: unit, level, encoder, decoder, network.

2D and 3D are one code path: the plan's dimension chooses the layers. Shapes are written for 3D; c_s is the width of level s,
and (z, y, x)_s its map size, the patch divided by the strides down to level s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autoseg.planning.schema import NetworkPlan

# typed as Any: torch's stubs know tuples alone, its layers take lists too
CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def convolution(plan: NetworkPlan, inside: int, outside: int, kernel: list[int], stride: list[int], *, bias: bool = True) -> nn.Module:
    """A convolution that keeps the size, up to its stride, by padding zeros."""
    return CONVOLUTION[plan.dimension](inside, outside, kernel, stride, padding=[(k - 1) // 2 for k in kernel], bias=bias)


def norm(plan: NetworkPlan, width: int) -> nn.Module | None:
    """The plan's normalisation with a learnt scale and shift, or None."""
    if plan.norm.name == "batch":
        return BATCH_NORM[plan.dimension](width, eps=plan.norm.eps, momentum=plan.norm.momentum)
    if plan.norm.name == "instance":
        return INSTANCE_NORM[plan.dimension](width, eps=plan.norm.eps, affine=True)
    return None


def activation(plan: NetworkPlan) -> nn.Module:
    """The plan's activation. It may overwrite its input: no layer before it needs what it put out."""
    return nn.ReLU(inplace=True) if plan.activation == "relu" else nn.LeakyReLU(0.01, inplace=True)


class Unit(nn.Sequential):
    """Convolution, norm and activation, in the plan's order; dropout, where planned, follows the convolution."""

    def __init__(
        self, plan: NetworkPlan, inside: int, outside: int, kernel: list[int], stride: list[int], *, last_of_block: bool = False
    ) -> None:
        """`last_of_block`: the second unit of a residual block, which has neither activation nor dropout."""
        super().__init__()
        layers = {"norm": norm(plan, outside), "activation": None if last_of_block else activation(plan)}
        self.add_module("conv", convolution(plan, inside, outside, kernel, stride))
        if plan.dropout > 0 and not last_of_block:
            self.add_module("dropout", DROPOUT[plan.dimension](plan.dropout))
        for name in plan.order_of_layers.split("-")[1:]:
            if layers[name] is not None:
                self.add_module(name, layers[name])


class Level(nn.Sequential):
    """The units of one resolution; the first changes the width and carries the stride."""

    def __init__(self, plan: NetworkPlan, inside: int, outside: int, kernel: list[int], stride: list[int], units: int) -> None:
        unit_stride = [1] * plan.dimension
        first = Unit(plan, inside, outside, kernel, stride)
        super().__init__(first, *(Unit(plan, outside, outside, kernel, unit_stride) for _ in range(units - 1)))


class Encoder(nn.Module):
    """Level by level down: pooling before the level (`max_pool`), or a stride in its first convolution (`stride`)."""

    def __init__(self, plan: NetworkPlan, channels: int) -> None:
        super().__init__()
        pool, unit_stride = plan.downsampling == "max_pool", [1] * plan.dimension
        self.downs = nn.ModuleList()
        self.levels = nn.ModuleList()
        inside = channels
        for outside, kernel, stride, units in zip(plan.features, plan.kernels, plan.strides, plan.blocks.encoder, strict=True):
            pooled = pool and stride != unit_stride
            self.downs.append(MAX_POOL[plan.dimension](stride) if pooled else nn.Identity())
            self.levels.append(Level(plan, inside, outside, kernel, unit_stride if pooled else stride, units))
            inside = outside

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # (B, channels, z, y, x)
        maps = []
        for down, level in zip(self.downs, self.levels, strict=True):
            x = level(down(x))  # (B, c_s, (z, y, x)_s)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Level by level up: a transposed convolution to the skip's width, the skip joined on, then the level's units."""

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__()
        self.ups = nn.ModuleList()
        self.levels = nn.ModuleList()
        for s, units in enumerate(plan.blocks.decoder):
            width, below, stride = plan.features[s], plan.features[s + 1], plan.strides[s + 1]
            self.ups.append(TRANSPOSED[plan.dimension](below, width, stride, stride))
            self.levels.append(Level(plan, 2 * width, width, plan.kernels[s], [1] * plan.dimension, units))

    def forward(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Each level's map, full resolution first; the bottom itself where there is but one level."""
        *skips, x = skips  # the bottom: (B, c_last, (z, y, x)_last)
        maps = []
        for s in reversed(range(len(skips))):
            x = self.ups[s](x)  # (B, c_s, (z, y, x)_s)
            x = torch.cat([x, skips[s]], dim=1)  # (B, 2 c_s, (z, y, x)_s)
            x = self.levels[s](x)  # (B, c_s, (z, y, x)_s)
            maps.append(x)
        return maps[::-1] or [x]


class UNet(nn.Module):
    """Encoder, decoder and 1x1x1 heads to logits (paper.md items 11 and 12; peer section 4.2)."""

    def __init__(self, plan: NetworkPlan, encoder: nn.Module, outputs: int, *, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.encoder = encoder
        self.decoder = Decoder(plan)
        widths = plan.features[: max(1, len(plan.features) - 1)] if deep_supervision else plan.features[:1]
        self.heads = nn.ModuleList(CONVOLUTION[plan.dimension](width, outputs, 1) for width in widths)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:  # (B, channels, z, y, x)
        maps = self.decoder(self.encoder(image))
        if self.training and self.deep_supervision:
            return [head(x) for head, x in zip(self.heads, maps, strict=True)]  # (B, outputs, (z, y, x)_s) each
        return self.heads[0](maps[0])  # (B, outputs, z, y, x)
