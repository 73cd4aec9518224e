"""How one axis of a regular grid is brought to another length: indices, linear cells, and spline matrices.

Everywhere the outer edges of the two grids coincide (not the outer voxels' centres): new voxel i lies at
(i + 0.5) * old / new - 0.5 of the old axis. That is what `scipy.ndimage.zoom(mode="nearest", grid_mode=True)` does, and with
it `skimage.transform.resize(mode="edge", anti_aliasing=False)`. Shorter axes are not smoothed first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EDGE = 12  # voxels that scipy repeats at both ends before the cubic prefilter, for mode "nearest"


def coordinates(old: int, new: int) -> np.ndarray:
    """Positions of the new voxels on the old axis, (new,) float64, by scipy's arithmetic so that roundings agree."""
    return (np.arange(new) + 0.5) * (old / new) - 0.5


def nearest_indices(old: int, new: int) -> np.ndarray:
    """The old voxel nearest to each new one, (new,) int64; halves go up."""
    return np.clip(np.floor(coordinates(old, new) + 0.5), 0, old - 1).astype(np.int64)


@dataclass(frozen=True)
class Cells:
    """The two old voxels that each new one lies between, with exact weights.

    low, high: old indices, (new,) int64; equal where one voxel decides alone.
    upper: weight of `high` in units of 1 / `unit`, (new,) int64.
    near: what a nearest-neighbour resize would take, (new,) int64.
    """

    low: np.ndarray
    high: np.ndarray
    upper: np.ndarray
    near: np.ndarray
    unit: int

    @property
    def new(self) -> int:
        """Length of the new axis."""
        return len(self.low)

    @property
    def alone(self) -> bool:
        """Whether every new voxel follows one old voxel."""
        return bool((self.low == self.high).all())

    def part(self, start: int, stop: int) -> Cells:
        """The cells of new voxels start..stop."""
        part = slice(start, stop)
        return Cells(self.low[part], self.high[part], self.upper[part], self.near[part], self.unit)


def linear_cells(old: int, new: int) -> Cells:
    """Linear interpolation in whole numbers: weights are multiples of 1 / (2 new), so that ties are ties."""
    position = (2 * np.arange(new, dtype=np.int64) + 1) * old - new
    low, upper = np.divmod(position, 2 * new)
    outside = (low < 0) | (low >= old - 1)
    low = np.clip(low, 0, old - 1)
    upper = np.where(outside, 0, upper)
    return Cells(low, low + (upper > 0), upper, nearest_indices(old, new), 2 * new)


def nearest_cells(old: int, new: int) -> Cells:
    """Nearest neighbour in the form of cells."""
    index = nearest_indices(old, new)
    return Cells(index, index, np.zeros(new, np.int64), index, 1)


def resize_matrix(old: int, new: int, order: int) -> np.ndarray:
    """The matrix (new, old), float64, that resizes one axis: order 1 (linear) or 3 (cubic B-spline with its prefilter)."""
    if order == 1:
        matrix = np.zeros((new, old))
        cells = linear_cells(old, new)
        rows = np.arange(new)
        np.add.at(matrix, (rows, cells.high), cells.upper / cells.unit)
        np.add.at(matrix, (rows, cells.low), 1 - cells.upper / cells.unit)
        return matrix
    from scipy import ndimage

    padded = np.pad(np.eye(old), ((_EDGE, _EDGE), (0, 0)), "edge")
    coefficients = ndimage.spline_filter1d(padded, 3, axis=0, mode="nearest")
    position = coordinates(old, new) + _EDGE
    first = np.floor(position).astype(np.int64)
    t = (position - first)[:, None]
    weights = ((1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6)
    return sum(weight * coefficients[first + k - 1] for k, weight in enumerate(weights))


@dataclass(frozen=True)
class Block:
    """Rows start..stop of a resize matrix, cut to the columns low..high that matter: `weights` (stop - start, high - low)."""

    start: int
    stop: int
    low: int
    high: int
    weights: np.ndarray


@dataclass(frozen=True)
class Band:
    """A resize matrix as blocks of rows; a cubic prefilter fades to rounding within a score of voxels."""

    old: int
    new: int
    blocks: tuple[Block, ...]

    @property
    def products(self) -> int:
        """Multiplications for one line."""
        return sum(block.weights.size for block in self.blocks)


def band(old: int, new: int, order: int, dtype: np.dtype) -> Band | None:
    """The banded resize matrix in `dtype`, or None where the length stays."""
    if old == new:
        return None
    matrix = resize_matrix(old, new, order)
    matters = np.abs(matrix) > np.finfo(dtype).eps / 2
    first, last = matters.argmax(1), old - matters[:, ::-1].argmax(1)
    rows = max(16, round(16 * new / old))  # as many columns again as the spline reaches: the best of 16 to 512 on two CPUs
    blocks = []
    for start in range(0, new, rows):
        stop = min(start + rows, new)
        low, high = int(first[start:stop].min()), int(last[start:stop].max())
        blocks.append(Block(start, stop, low, high, np.ascontiguousarray(matrix[start:stop, low:high], dtype=dtype)))
    return Band(old, new, tuple(blocks))
