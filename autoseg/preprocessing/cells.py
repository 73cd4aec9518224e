"""Where the corners of a cell agree, whatever is convex agrees inside: only the other cells need weighing.

Codes are small whole numbers (labels, or the class that wins at a voxel). The functions take numpy arrays or torch tensors.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from autoseg.preprocessing.axes import Cells

Array = Any  # np.ndarray or torch.Tensor


def like(array: Array, values: np.ndarray) -> Array:
    """`values` as the same kind of array as `array`, on its device."""
    if isinstance(array, np.ndarray):
        return values
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(array.device)


def library(array: Array):
    """numpy or torch, whichever made `array`."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def as_float32(array: Array) -> Array:
    """The array in float32."""
    return array.astype(np.float32) if isinstance(array, np.ndarray) else array.float()


def own(array: Array) -> Array:
    """A contiguous copy: what is handed out never shares memory with what was handed in."""
    return np.array(array, order="C") if isinstance(array, np.ndarray) else array.clone().contiguous()


def take(array: Array, index: np.ndarray, axis: int) -> Array:
    """Rows `index` along `axis`; a view where they are consecutive."""
    if len(index) and (np.diff(index) == 1).all():
        return array[(slice(None),) * axis + (slice(int(index[0]), int(index[-1]) + 1),)]
    if isinstance(array, np.ndarray):
        return np.take(array, index, axis=axis, mode="clip")
    return array.index_select(axis, like(array, index))


def agreement(codes: Array, cells: Sequence[Cells], mixed: int) -> Array:
    """For each new voxel the code of all its cell's corners, or `mixed` where they differ.

    Args:
        codes: (z, y, x) integers, none equal to `mixed`.
        cells: of the three axes.

    A voxel that lies on a corner may be called mixed although it is not: weighing gives its corner's code then.
    """
    rows = cells[0]
    first, last = int(rows.low.min()), int(rows.high.max()) + 1
    codes = codes[first : last + 1]
    cells = (replace(rows, low=rows.low - first, high=rows.high - first), *cells[1:])
    longer = [axis for axis, each in enumerate(cells) if not each.alone and each.new > each.high.max() - each.low.min()]
    for axis in longer:
        codes = _merged(codes, _pairs(codes, axis), mixed)
    for axis in (0, 1, 2):
        if axis not in longer:
            low, high = cells[axis].low, cells[axis].high
            codes = take(codes, low, axis) if cells[axis].alone else _merged(take(codes, low, axis), take(codes, high, axis), mixed)
    for axis in longer:
        codes = take(codes, cells[axis].low, axis)
    return codes


def _pairs(codes: Array, axis: int) -> Array:
    """Each voxel's next neighbour along `axis`; the last is its own."""
    return take(codes, np.minimum(np.arange(codes.shape[axis]) + 1, codes.shape[axis] - 1), axis)


def _merged(low: Array, high: Array, mixed: int) -> Array:
    return library(low).where(low == high, low, low.dtype.type(mixed) if isinstance(low, np.ndarray) else mixed)


def corners(cells: Sequence[Cells], where: Sequence[Array], shape: Sequence[int]) -> tuple[list[Array], list[Array]]:
    """Flat indices and weights of the corners of some new voxels' cells.

    Args:
        where: three index arrays (n,), one an axis: the new voxels.
        shape: of the old array.

    Returns:
        A list of indices (n,) int64 into the flattened old array and one of weights (n,) float64, in units of the product of the
        cells' units: whole numbers, so that sums are exact. One corner an axis where each voxel decides alone (not on all axes), else two.
    """
    strides = (shape[1] * shape[2], shape[2], 1)
    sides = []
    for each, at, stride in zip(cells, where, strides, strict=True):
        low, high, upper = (like(at, part)[at] for part in (each.low * stride, each.high * stride, each.upper.astype(np.float64)))
        sides.append([(low, None)] if each.alone else [(low, each.unit - upper), (high, upper)])
    indices, weights = [], []
    for (z, wz), (y, wy), (x, wx) in itertools.product(*sides):
        indices.append(z + y + x)
        weights.append(reduce(operator.mul, [w for w in (wz, wy, wx) if w is not None]))
    return indices, weights


def units(cells: Sequence[Cells]) -> int:
    """The sum of the corners' weights."""
    total = 1
    for each in cells:
        total *= 1 if each.alone else each.unit
    return total
