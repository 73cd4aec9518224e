"""Levels, kernels, patch and batch of one configuration (peer 2.5 to 2.7). Axes stand in the order inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoseg.errors import PlanError, ResourceError
from autoseg.planning.rules import FixedTopology, MemoryPatch, PoolingTopology

LEAST_USE = 8  # voxels; a patch that had to be shortened to less on every axis shows no anatomy


@dataclass(frozen=True)
class Levels:
    """A pyramid: the patch rounded up to what its strides divide, and stride and kernel of each level."""

    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def divisor(self) -> tuple[int, ...]:
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


@dataclass(frozen=True)
class Design:
    """What one network is made of beside its layers' kinds: units and widths of each level, and what the user gave.

    encoder, decoder: units of each level as the recipe lists them; the last encoder number stands for all deeper levels.
    outputs: label entries, of which the segmentation output has one feature map each (peer 2.7).
    strides, kernels, features: given ones, or None.
    """

    residual: bool
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    outputs: int
    features: tuple[int, ...] | None = None
    strides: tuple[tuple[int, ...], ...] | None = None
    kernels: tuple[tuple[int, ...], ...] | None = None

    def units(self, levels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Units of the encoder's and of the decoder's levels."""
        encoder = [*self.encoder, *[self.encoder[-1]] * levels][:levels]
        decoder = [*self.decoder, *[self.decoder[-1]] * levels][: levels - 1]
        return tuple(encoder), tuple(decoder)


@dataclass(frozen=True)
class Fit:
    """One configuration's patch and batch, and how they came about.

    start: the patch before shrinking. elements: feature-map elements of one sample. limit: what they had to stay within.
    by_memory, by_data: the batch that the limit allows, and the one that the share of all voxels allows.
    needed_gb, allowed_gb: forecast of a training step, and what it had to stay within, where a forecast decided too.
    """

    levels: Levels
    features: tuple[int, ...]
    batch: int
    start: tuple[float, ...]
    elements: int
    limit: float | None
    shrunk: int = 0
    by_memory: int | None = None
    by_data: int | None = None
    needed_gb: float | None = None
    allowed_gb: float | None = None


def pool(spacing: Sequence[float], patch: Sequence[float], smallest_edge: int, *, levels: int | None = None, exact: bool = False) -> Levels:
    """Halve the axes of like spacing again and again while they are long enough (peer 2.6).

    Args:
        levels: stop at this many.
        exact: an axis that cannot be halved evenly stays, so that `patch` is kept as it is.
    """
    sp, sz, kernel = [float(s) for s in spacing], list(patch), [1] * len(patch)
    axes = range(len(patch))
    strides, kernels = [(1,) * len(patch)], []
    while levels is None or len(strides) < levels:
        valid = [a for a in axes if sz[a] >= 2 * smallest_edge and not (exact and sz[a] % 2)]
        if not valid:
            break
        finest = min(sp[a] for a in valid)
        valid = [a for a in valid if sp[a] / finest < 2]
        if len(valid) == 1 and sz[valid[0]] < 3 * smallest_edge:
            break
        kernel = _kernel(kernel, sp)
        for a in valid:
            sp[a] *= 2
            sz[a] = math.ceil(sz[a] / 2)
        strides.append(tuple(2 if a in valid else 1 for a in axes))
        kernels.append(tuple(kernel))
    kernels.append((3,) * len(patch))
    return _levels(patch, strides, kernels)


def _kernel(kernel: list[int], spacing: Sequence[float]) -> list[int]:
    """An axis gets kernel 3 once it is less than twice as coarse as the finest, and keeps it."""
    finest = min(spacing)
    return [3 if k == 3 or s / finest < 2 else 1 for k, s in zip(kernel, spacing, strict=True)]


def kernels_for(spacing: Sequence[float], strides: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Kernels by the rule of `pool`, for given strides."""
    sp, kernel, kernels = list(spacing), [1] * len(spacing), []
    for stride in strides[1:]:
        kernel = _kernel(kernel, sp)
        kernels.append(tuple(kernel))
        sp = [s * k for s, k in zip(sp, stride, strict=True)]
    return (*kernels, (3,) * len(spacing))


def _levels(patch: Sequence[float], strides: Sequence[Sequence[int]], kernels: Sequence[Sequence[int]]) -> Levels:
    divisor = [math.prod(axis) for axis in zip(*strides, strict=True)]
    whole = tuple(math.ceil(size / d) * d for size, d in zip(patch, divisor, strict=True))
    return Levels(whole, tuple(tuple(s) for s in strides), tuple(tuple(k) for k in kernels))


def elements(levels: Levels, features: Sequence[int], design: Design) -> int:
    """Feature-map elements that one sample makes (peer 2.7)."""
    encoder, decoder = design.units(len(features))
    size, total, depth = list(levels.patch), 0, len(features)
    for level, (width, stride) in enumerate(zip(features, levels.strides, strict=True)):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        maps = width * math.prod(size)
        if design.residual:
            total += maps * 2 * encoder[level] + maps  # the skip of each first block; at level 0 the stem
        else:
            total += maps * encoder[level]
        if level < depth - 1:
            total += maps * (decoder[level] + 1)
    return total + (design.outputs * math.prod(levels.patch) if depth > 1 else 0)


def topology(
    spacing: Sequence[float], patch: Sequence[float], rule: PoolingTopology | FixedTopology, design: Design, *, exact: bool = False
) -> tuple[Levels, tuple[int, ...]]:
    """Levels and widths for a patch by the recipe's rule, or by what the user gave.

    Raises:
        PlanError: given widths, strides or kernels that don't go together with this patch.
    """
    dimension = len(patch)
    features = design.features
    if isinstance(rule, FixedTopology):
        features = features or tuple(rule.features)
        strides = design.strides or ((1,) * dimension, *((rule.stride,) * dimension,) * (len(features) - 1))
        kernels = design.kernels or ((rule.kernel,) * dimension,) * len(strides)
        levels = _levels(patch, strides, kernels)
    elif design.strides:
        levels = _levels(patch, design.strides, design.kernels or kernels_for(spacing, design.strides))
    else:
        levels = pool(spacing, patch, rule.smallest_edge, levels=len(features) if features else None, exact=exact)
        levels = replace(levels, kernels=design.kernels) if design.kernels else levels
    if features is None:
        most = rule.most_features.of(dimension) or math.inf
        features = tuple(int(min(most, rule.base_features * 2**level)) for level in range(len(levels.strides)))
    if not len(features) == len(levels.strides) == len(levels.kernels):
        raise PlanError(
            f"network.features has {len(features)} levels, but a patch of {[int(p) for p in patch]} at spacing "
            f"{[round(float(s), 3) for s in spacing]} gives {len(levels.strides)} (kernels: {len(levels.kernels)})",
            remedy=f"Give {len(levels.strides)} widths, a patch that halves more often, or network.strides and network.kernels too",
        )
    return levels, features


def initial_patch(spacing: Sequence[float], median: Sequence[float], edge: float) -> list[float]:
    """A patch as wide in mm on every axis, of edge ** dimension voxels, no larger than the median case (peer 2.5 a)."""
    dimension = len(spacing)
    inverse = 1 / np.array(spacing, dtype=float)
    wide = [round(i) for i in inverse * (edge**dimension / np.prod(inverse)) ** (1 / dimension)]
    return [min(float(p), float(m)) for p, m in zip(wide, median, strict=True)]


def limit_of(rule: MemoryPatch, dimension: int, memory_gb: float) -> float:
    """Feature-map elements that the memory allows (peer 2.1)."""
    scale = memory_gb / rule.reference_gb
    return rule.elements.of(dimension) * (scale if rule.grows_with_memory else min(1.0, scale))


def shrink_to_fit(
    spacing: Sequence[float],
    median: Sequence[float],
    voxels: float,
    rule: MemoryPatch,
    shape: PoolingTopology | FixedTopology,
    design: Design,
    limit: float,
) -> Fit:
    """The largest patch within the limit, shrunk along its relatively longest axis, and its batch (peer 2.5).

    Args:
        spacing, median: mm and median size of the configuration's cases.
        voxels: of all cases together at this spacing; in 2D too those of the volumes.
        limit: feature-map elements that are allowed; see `limit_of`.

    Raises:
        ResourceError: nothing is small enough.
    """
    dimension = len(spacing)
    factor = 2 / rule.reference_batch.of(dimension) if rule.shrink == "per_two" else 1.0
    start = initial_patch(spacing, median, rule.initial_edge.of(dimension))
    levels, features = topology(spacing, start, shape, design)
    count, shrunk = elements(levels, features, design), 0
    while count * factor > limit:
        relative = [p / m for p, m in zip(levels.patch, median, strict=True)]
        axis = max(range(dimension), key=lambda a: (relative[a], a))
        trial = list(levels.patch)
        trial[axis] -= levels.divisor[axis]
        step = topology(spacing, trial, shape, design)[0].divisor[axis] if trial[axis] > 0 else 0
        patch = list(levels.patch)
        patch[axis] -= step
        if step == 0 or patch[axis] <= 0 or max(patch) < LEAST_USE:
            raise ResourceError(
                f"no patch worth training fits in the memory: feature maps may have {max(limit, 0):,.0f} elements, a patch of "
                f"{' x '.join(map(str, levels.patch))} voxels has {count * factor:,.0f}",
                remedy="Allow more --memory, a coarser spacing or fewer network.features",
            )
        levels, features = topology(spacing, patch, shape, design)
        count, shrunk = elements(levels, features, design), shrunk + 1
    return _with_batch(Fit(levels, features, 0, tuple(start), count, limit, shrunk), voxels, rule)


def _with_batch(fit: Fit, voxels: float, rule: MemoryPatch) -> Fit:
    """Peer 2.5 e: what the limit allows, but not more than a share of all voxels, and at least the smallest batch."""
    dimension = len(fit.levels.patch)
    by_memory = round(fit.limit / fit.elements * rule.reference_batch.of(dimension))
    by_data = round(voxels * rule.covered / math.prod(fit.levels.patch))
    most = rule.largest_batch.of(dimension) or math.inf
    batch = int(max(min(by_memory, by_data, most), rule.smallest_batch))
    return replace(fit, batch=batch, by_memory=by_memory, by_data=by_data)


def around_given_patch(
    spacing: Sequence[float],
    patch: Sequence[int],
    voxels: float,
    rule: MemoryPatch,
    shape: PoolingTopology | FixedTopology,
    design: Design,
    limit: float,
) -> Fit:
    """Levels, widths and batch for a patch that the user gave."""
    levels, features = topology(spacing, patch, shape, design, exact=True)
    fit = Fit(levels, features, 0, tuple(patch), elements(levels, features, design), limit)
    return _with_batch(fit, voxels, rule)
