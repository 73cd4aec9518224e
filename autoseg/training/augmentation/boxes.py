"""Which part of a stored volume a patch depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from autoseg.geometry import Box


class Volume(Protocol):
    """What a sample asks of a stored case: arrays of half-open boxes inside the volume."""

    shape: tuple[int, int, int]
    channels: int

    def image(self, box: Box | None = None) -> np.ndarray: ...

    def labels(self, box: Box | None = None) -> np.ndarray: ...

    def previous(self, box: Box | None = None) -> np.ndarray: ...


def overlap(box: Box, shape: Sequence[int]) -> Box:
    """The part of a box that lies inside a volume of `shape`."""
    return tuple((max(low, 0), min(high, length)) for (low, high), length in zip(box, shape, strict=True))


def within(box: Box, region: Box) -> tuple[slice, ...]:
    """Where a box lies in an array of the voxels of `region`."""
    return tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(box, region, strict=True))


def reached(low: float, high: float, reach: int, length: int) -> tuple[int, int]:
    """First voxel and end of what points from `low` to `high` depend on along an axis of `length` voxels, at least one voxel."""
    first = min(max(int(np.floor(low)) - reach, 0), length - 1)
    return first, min(max(int(np.ceil(high)) + reach + 1, first + 1), length)


def spline_reach(order: int) -> int:
    """Voxels that interpolating depends on beyond the outermost point; a cubic prefilter decays to 1e-7 within 12."""
    return 1 if order < 2 else 12
