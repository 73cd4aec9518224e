"""The residual encoder (peer section 4.2): stem, residual blocks, average-pooled skips."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.errors import PlanError
from autoseg.network.unet import Unit, activation, convolution, norm
from autoseg.planning.schema import NetworkPlan

AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Block(nn.Module):
    """Two convolution units beside a skip, added, then activated."""

    def __init__(self, plan: NetworkPlan, inside: int, outside: int, kernel: list[int], stride: list[int]) -> None:
        super().__init__()
        unit_stride = [1] * plan.dimension
        self.first = Unit(plan, inside, outside, kernel, stride)
        self.second = Unit(plan, outside, outside, kernel, unit_stride, last_of_block=True)
        self.skip = nn.Sequential()
        if stride != unit_stride:
            self.skip.add_module("pool", AVERAGE_POOL[plan.dimension](stride))
        if inside != outside:
            self.skip.add_module("conv", convolution(plan, inside, outside, unit_stride, unit_stride, bias=False))
            if plan.norm.name != "none":
                self.skip.add_module("norm", norm(plan, outside))
        self.activation = activation(plan)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, inside, z, y, x)
        return self.activation(self.second(self.first(x)) + self.skip(x))  # (B, outside, z / stride, ...)

    def start_as_skip(self) -> None:
        """Zero the last norm, so that a fresh block passes on its skip alone."""
        last = getattr(self.second, "norm", None)
        if last is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


class ResidualEncoder(nn.Module):
    """A stem at full resolution, then blocks level by level down; each level's first block carries its stride."""

    def __init__(self, plan: NetworkPlan, channels: int) -> None:
        super().__init__()
        if plan.downsampling != "stride" or plan.order_of_layers != "conv-norm-activation":
            raise PlanError(
                f"a residual_unet with downsampling {plan.downsampling!r} and order_of_layers {plan.order_of_layers!r} does not exist",
                remedy='Set them to "stride" and "conv-norm-activation", or network.kind to "unet"',
            )
        unit_stride = [1] * plan.dimension
        self.stem = Unit(plan, channels, plan.features[0], plan.kernels[0], unit_stride)
        self.levels = nn.ModuleList()
        inside = plan.features[0]
        for outside, kernel, stride, blocks in zip(plan.features, plan.kernels, plan.strides, plan.blocks.encoder, strict=True):
            first = Block(plan, inside, outside, kernel, stride)
            self.levels.append(nn.Sequential(first, *(Block(plan, outside, outside, kernel, unit_stride) for _ in range(blocks - 1))))
            inside = outside

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # (B, channels, z, y, x)
        maps = []
        x = self.stem(x)  # (B, c_0, z, y, x)
        for level in self.levels:
            x = level(x)  # (B, c_s, (z, y, x)_s)
            maps.append(x)
        return maps
