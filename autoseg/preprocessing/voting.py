"""Label maps brought to another size: each new voxel takes the label that the old voxels around it give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from autoseg.preprocessing.axes import Cells, nearest_cells
from autoseg.preprocessing.cells import agreement, corners, library, like, own, take, units
from autoseg.preprocessing.threads import map_slabs, slabs

Array = Any  # np.ndarray or torch.Tensor
Rule = Literal["argmax", "half", "majority"]

_SLAB = 1 << 19  # new voxels of a slab
_CHUNK = 1 << 13  # voxels that are weighed at once, so that their corners stay in the cache


def nearest(labels: Array, shape: Sequence[int]) -> Array:
    """The label of the nearest old voxel; halves go up."""
    for axis in sorted(range(3), key=lambda a: shape[a] / labels.shape[a]):  # the axis that shrinks most goes first
        labels = take(labels, nearest_cells(labels.shape[axis], shape[axis]).low, axis)
    return own(labels)


def weighed(labels: Array, cells: Sequence[Cells], rule: Rule, *, threads: int | None) -> Array:
    """The label that wins among the corners of each new voxel's cell.

    Args:
        labels: (z, y, x) integers.
        rule: `argmax`: the largest weight; a tie goes to the nearest voxel's label if it is among the tied, else to the smallest.
            `half`: the largest label with at least half of the weight, else 0.
            `majority`: the label with more than half of the weight, else 0.
        threads: None takes one a core (numpy only).
    """
    if all(each.alone for each in cells):
        for axis, each in enumerate(cells):
            labels = take(labels, each.low, axis)
        return own(labels)
    numpy = isinstance(labels, np.ndarray)
    codes, mixed = _with_spare_value(np.ascontiguousarray(labels) if numpy else labels.contiguous())
    shape = tuple(each.new for each in cells)
    parts = slabs(shape[0], shape[1] * shape[2], _SLAB if numpy else 1 << 26)
    if not numpy:
        return library(labels).cat([_slab(codes, mixed, cells, rows, rule) for rows in parts]).to(labels.dtype)
    result = np.empty(shape, labels.dtype)

    def fill(rows: tuple[int, int]) -> None:
        result[slice(*rows)] = _slab(codes, mixed, cells, rows, rule)

    map_slabs(fill, parts, threads=threads)
    return result


def _with_spare_value(labels: Array) -> tuple[Array, int]:
    """The labels in a type that holds one value more, and that value."""
    if isinstance(labels, np.ndarray):
        spare = np.iinfo(labels.dtype).max
        if labels.max() < spare:
            return labels, spare
        return labels.astype(np.promote_types(labels.dtype, np.min_scalar_type(spare + 1))), spare + 1
    import torch

    return labels.to(torch.int64), torch.iinfo(torch.int64).max


def _slab(codes: Array, mixed: int, cells: Sequence[Cells], rows: tuple[int, int], rule: Rule) -> Array:
    cells = (cells[0].part(*rows), *cells[1:])
    result = agreement(codes, cells, mixed)
    flat = np.ascontiguousarray(result).reshape(-1) if isinstance(result, np.ndarray) else result.contiguous().view(-1)
    open_ones = (flat == mixed).nonzero()[0] if isinstance(flat, np.ndarray) else (flat == mixed).nonzero()[:, 0]
    chunk = _CHUNK if isinstance(flat, np.ndarray) else max(len(open_ones), 1)
    for start in range(0, len(open_ones), chunk):
        some = open_ones[start : start + chunk]
        flat[some] = _vote(codes, cells, some, rule)
    return flat.reshape(result.shape)


def _vote(codes: Array, cells: Sequence[Cells], some: Array, rule: Rule) -> Array:
    """The winners of the new voxels `some`, flat indices into the slab."""
    xp = library(some)
    height, width = cells[1].new, cells[2].new
    where = (some // (height * width), some // width % height, some % width)
    indices, weights = corners(cells, where, codes.shape)
    flat = codes.reshape(-1)
    found = [flat[index] for index in indices]
    scores = [sum(weight * (other == label) for other, weight in zip(found, weights, strict=True)) for label in found]
    found, scores = xp.stack(found), xp.stack(scores)
    if rule == "argmax":
        best = xp.amax(scores, 0)
        tied = scores == best
        smallest = xp.amin(xp.where(tied, found, _largest(found)), 0)
        near = flat[_nearest_corner(cells, where, codes.shape)]
        return xp.where(((found == near) & tied).any(0), near, smallest)
    enough = 2 * scores >= units(cells) if rule == "half" else 2 * scores > units(cells)
    return xp.amax(xp.where(enough, found, xp.zeros_like(found)), 0)


def _nearest_corner(cells: Sequence[Cells], where: Sequence[Array], shape: Sequence[int]) -> Array:
    """Flat indices of the old voxels nearest to new ones."""
    strides = (shape[1] * shape[2], shape[2], 1)
    parts = []
    for each, at, stride in zip(cells, where, strides, strict=True):
        parts.append(like(at, each.near * stride)[at])
    return parts[0] + parts[1] + parts[2]


def _largest(array: Array):
    if isinstance(array, np.ndarray):
        return array.dtype.type(np.iinfo(array.dtype).max)
    import torch

    return torch.iinfo(array.dtype).max
