"""Weighted sums of the lines of a volume: what blurring, bending and coarsening are made of, compiled.

Each is a band an axis: which lines of the input an output line is made of, and by which weights. The same for every line, so that
whole rows are added at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autoseg.training.augmentation.compiling import compiled

_CHUNK = 256  # floats; a hundred such lines stay in a core's own cache
_RESPONSE = 16  # voxels; the response is then below 1e-8
_ROWS = 32  # rows that are turned into lines at once, for the axis whose voxels lie side by side


@dataclass(frozen=True)
class Band:
    """Output line n is the sum over k of weights[n, k] times input line lines[n, k]; a line of -1 counts nothing."""

    lines: np.ndarray
    weights: np.ndarray


def gaussian_band(length: int, sigma: float, *, beyond: Literal["zero", "symmetric", "mirror"], radius: int) -> Band:
    """Gaussian smoothing of an axis.

    Args:
        sigma: voxels.
        beyond: what stands outside: zeros; the edge voxel once more, then its neighbours (scipy's `reflect`); the neighbours alone
            (scipy's `mirror`, torch's `reflect`).
        radius: voxels on either side that are weighed; the weights sum to 1.
    """
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    lines = np.arange(length)[:, None] + steps
    if beyond == "zero":
        lines = np.where((lines >= 0) & (lines < length), lines, -1)
    elif beyond == "symmetric":
        lines = lines % (2 * length)
        lines = np.where(lines < length, lines, 2 * length - 1 - lines)
    else:
        lines = _mirrored(lines, length)
    return Band(lines, np.tile((weights / weights.sum()).astype(np.float32), (length, 1)))


def _mirrored(lines: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond an axis as those of the voxels that they mirror."""
    period = max(2 * length - 2, 1)
    lines = lines % period
    return np.where(lines < length, lines, period - lines)


def spline_band(length: int, margin: tuple[int, int]) -> Band:
    """Values of an axis to the coefficients of its spline of order 3, mirrored at the ends, `margin` voxels before and after included.

    The coefficients' impulse response, sqrt(3) * (sqrt(3) - 2) ** |n|, as weights.
    """
    steps = np.arange(-_RESPONSE, _RESPONSE + 1)
    weights = np.sqrt(3) * (np.sqrt(3) - 2) ** np.abs(steps) if length > 1 else steps == 0
    lines = _mirrored(np.arange(-margin[0], length + margin[1])[:, None] + steps, length)
    return Band(lines, np.tile(np.float32(weights), (len(lines), 1)))


def coarse_band(length: int, coarse: int) -> Band:
    """An axis reduced to `coarse` voxels by taking the nearest, then brought back to its length linearly, as one step."""
    kept = np.minimum(((np.arange(coarse) + 0.5) * length / coarse).astype(np.int64), length - 1)
    place = np.clip((np.arange(length) + 0.5) * coarse / length - 0.5, 0, coarse - 1)
    low = np.minimum(place.astype(np.int64), max(coarse - 2, 0))
    share = (place - low).astype(np.float32)
    return Band(kept[np.stack([low, np.minimum(low + 1, coarse - 1)], 1)], np.stack([1 - share, share], 1))


def along_axes(volume: np.ndarray, bands: Sequence[Band | None]) -> np.ndarray:
    """The float32 volume (z, y, x) after the bands of its axes, one after the other; None leaves an axis as it is."""
    for axis, band in enumerate(bands):
        if band is None:
            continue
        before, length, after = int(np.prod(volume.shape[:axis])), volume.shape[axis], int(np.prod(volume.shape[axis + 1 :]))
        out = np.empty((*volume.shape[:axis], len(band.lines), *volume.shape[axis + 1 :]), np.float32)
        flat = np.ascontiguousarray(volume).reshape(-1)
        if axis < volume.ndim - 1:
            weigh_lines(flat, (before, length, after), band.lines, band.weights, out.reshape(-1))
        else:
            weigh_rows(flat, (before, length), band.lines, band.weights, out.reshape(-1))
        volume = out
    return volume


@compiled
def _packed(lines, weights):
    """Per output line: how many input lines count, which, and by what weight; filled up with weights of 0 to a multiple of four."""
    counts = np.zeros(len(lines), np.int64)
    used = np.zeros((len(lines), lines.shape[1] + 4), np.int64)
    shares = np.zeros((len(lines), lines.shape[1] + 4), np.float32)
    for n in range(len(lines)):
        count = 0
        for k in range(lines.shape[1]):
            if lines[n, k] >= 0 and weights[n, k] != 0:
                used[n, count], shares[n, count] = lines[n, k], weights[n, k]
                count += 1
        counts[n] = (count + 3) // 4 * 4
    return counts, used, shares


@compiled
def _weigh(flat, start, step, width, count, used, shares, out, to):
    """Write the weighted sum of `count` lines of `width` floats, which are `step` apart from `start`, to `out` from `to`: four at once."""
    # unsigned: numba would look at each index whether it counts from the end
    target = np.uint64(to)
    for b in range(width):
        out[target + np.uint64(b)] = np.float32(0)
    for k in range(0, count, 4):
        w0, w1, w2, w3 = shares[k], shares[k + 1], shares[k + 2], shares[k + 3]
        l0, l1 = np.uint64(start + used[k] * step), np.uint64(start + used[k + 1] * step)
        l2, l3 = np.uint64(start + used[k + 2] * step), np.uint64(start + used[k + 3] * step)
        for b in range(width):
            i = np.uint64(b)
            out[target + i] += w0 * flat[l0 + i] + w1 * flat[l1 + i] + w2 * flat[l2 + i] + w3 * flat[l3 + i]


@compiled
def weigh_lines(flat, shape, lines, weights, out):
    """A volume (A, N, B), flat, becomes (A, M, B) along its middle axis."""
    counts, used, shares = _packed(lines, weights)
    many, length, width = shape
    for a in range(many):
        for low in range(0, width, _CHUNK):
            here = min(_CHUNK, width - low)
            for n in range(len(lines)):
                to = (a * len(lines) + n) * width + low
                _weigh(flat, a * length * width + low, width, here, counts[n], used[n], shares[n], out, to)


@compiled
def weigh_rows(flat, shape, lines, weights, out):
    """The same along the last axis, (A, N) to (A, M): some rows are turned into lines, weighed, and turned back."""
    counts, used, shares = _packed(lines, weights)
    many, length = shape
    before, after = np.zeros(length * _ROWS, np.float32), np.zeros(len(lines) * _ROWS, np.float32)
    for low in range(0, many, _ROWS):
        rows = min(_ROWS, many - low)
        for r in range(rows):
            row = flat[(low + r) * length : (low + r + 1) * length]
            for n in range(length):
                before[n * _ROWS + r] = row[n]
        for n in range(len(lines)):
            _weigh(before, low - low, rows - rows + _ROWS, rows - rows + _ROWS, counts[n], used[n], shares[n], after, n * _ROWS)
        for r in range(rows):
            row = out[(low + r) * len(lines) : (low + r + 1) * len(lines)]
            for n in range(len(lines)):
                row[n] = after[n * _ROWS + r]
