"""Target spacing, axis order and median size. Spacings are mm and shapes voxels, (z, y, x) unless a function says otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from autoseg.planning.rules import FixedSpacing, MedianSpacing

Order = tuple[int, int, int]


def median_spacing(spacings: np.ndarray, shapes: np.ndarray, rule: MedianSpacing) -> np.ndarray:
    """The median over the cases, (n, 3) each; an axis that is much coarser and shorter than the others gets a finer one (peer 2.2)."""
    target = np.percentile(spacings, 50, axis=0)
    size = np.percentile(shapes, 50, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    if coarse(target, size, rule.anisotropy):
        finer = np.percentile(spacings[:, worst], rule.percentile)
        if finer < max(target[others]):
            finer = max(max(target[others]), finer) + 1e-5
        target[worst] = finer
    return target


def coarse(spacing: np.ndarray, size: np.ndarray, anisotropy: float) -> bool:
    """Whether the coarsest axis exceeds the others by more than `anisotropy`, in spacing and in size (peer 2.2, strict)."""
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != worst]
    return bool(spacing[worst] > anisotropy * max(spacing[others]) and size[worst] * anisotropy < min(size[others]))


def fixed_spacing(spacings: np.ndarray, shapes: np.ndarray, rule: FixedSpacing, divisor: Sequence[int]) -> np.ndarray:
    """The rule's spacing; finer on an axis where the median case would be shorter than `divisor`, but never finer than the data are."""
    own = np.percentile(spacings, 50, axis=0)
    extent = np.percentile(spacings * shapes, 50, axis=0)
    fixed = np.array(rule.spacing, dtype=float)
    needed = extent / np.array(divisor)
    short = extent / fixed < np.array(divisor)
    return np.where(short, np.minimum(fixed, np.maximum(own, needed)), fixed)


def axis_order(target: np.ndarray, wanted: bool) -> Order:
    """Axis order inside: the coarsest axis first (peer 2.3), or as read."""
    if not wanted:
        return (0, 1, 2)
    worst = int(np.argmax(target))
    return (worst, *(axis for axis in range(3) if axis != worst))


def median_shape(spacings: np.ndarray, shapes: np.ndarray, target: np.ndarray, size_rule: Literal["round", "floor"]) -> np.ndarray:
    """Median size of the cases at spacing `target`; not rounded, so it may end in .5 (peer 2.4)."""
    whole = round if size_rule == "round" else math.floor
    new = [
        [int(whole(s / t * n)) for s, t, n in zip(spacing, target, shape, strict=True)]
        for spacing, shape in zip(spacings, shapes, strict=True)
    ]
    return np.median(np.array(new), axis=0)


def as_read(inside: Sequence, order: Order) -> list:
    """A triple in the order inside, brought to the order as read."""
    result: list = [None] * 3
    for position, axis in enumerate(order):
        result[axis] = inside[position]
    return result
