"""The grid that places a volume in the patient, and moving arrays between axis orders.

Arrays are (z, y, x), spacing and shape stand in the same order; points are LPS millimetres (x, y, z), as in ITK and
DICOM; the columns of `direction` are the directions of the index axes x, y, z, as ITK stores them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

T = TypeVar("T")

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Exactly three values, one per axis."""
    first, second, third = values
    return first, second, third


@dataclass(frozen=True)
class Orientation:
    """A change of axis order and sense: `flip(transpose(array, axes), where flips)`.

    Axis i of the result is axis `axes[i]` of the array, reversed if `flips[i]`.
    """

    axes: Triple = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The array, (..., z, y, x), with its last three axes reordered and reversed; a view."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + a for a in self.axes))
        return np.flip(moved, tuple(lead + i for i, flip in enumerate(self.flips) if flip))

    def inverse(self) -> Orientation:
        """The change that undoes this one."""
        axes = triple(self.axes.index(i) for i in range(3))
        return Orientation(axes, triple(self.flips[a] for a in axes))

    @property
    def is_identity(self) -> bool:
        return self == Orientation()


@dataclass(frozen=True)
class Grid:
    """Size, spacing, origin and direction of a volume.

    shape: voxels (z, y, x).
    spacing: mm (z, y, x).
    origin: LPS mm (x, y, z) of the centre of voxel (0, 0, 0).
    direction: 3 x 3, row-major; its columns are the unit directions of the index axes x, y, z in LPS. They are perpendicular,
        but for files of sheared slices (a tilted gantry), which are read onto their `straight` grid.
    planar: the file holds a two-dimensional image; shape[0] is 1.
    """

    shape: Triple
    spacing: Spacing = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    planar: bool = False

    @property
    def axes(self) -> np.ndarray:
        """3 x 3: column i is the step in LPS mm along array axis i (z, y, x)."""
        matrix = np.array(self.direction, dtype=float).reshape(3, 3)[:, ::-1]
        return matrix * np.array(self.spacing)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.axes))) / 1000.0

    @property
    def sheared(self) -> bool:
        """Whether the axes are not perpendicular; `autoseg.data.formats.placing` makes them so where that moves no voxel far."""
        unit = np.array(self.direction, dtype=float).reshape(3, 3)
        return bool(np.abs(unit.T @ unit - np.eye(3)).max() > 1e-4)

    def shear(self) -> Shear:
        """How this grid's slices lie on a straight grid."""
        return Shear.of(self)

    def straight(self) -> Grid:
        """The perpendicular grid that holds every voxel of a sheared one: the same slices, shifted in their plane; else itself."""
        return self.shear().straightened(self) if self.sheared else self

    def points(self, indices: np.ndarray) -> np.ndarray:
        """LPS mm (n, 3: x, y, z) of voxel indices (n, 3: z, y, x)."""
        return np.asarray(indices, dtype=float) @ self.axes.T + np.array(self.origin)

    def indices(self, points: np.ndarray) -> np.ndarray:
        """Continuous voxel indices (n, 3: z, y, x) of LPS points (n, 3: x, y, z)."""
        return (np.asarray(points, dtype=float) - np.array(self.origin)) @ np.linalg.inv(self.axes).T

    def corners(self) -> np.ndarray:
        """LPS mm of the eight corner voxels' centres, (8, 3)."""
        return self.points(np.array(list(itertools.product(*((0, n - 1) for n in self.shape)))))

    def oriented(self, orientation: Orientation) -> Grid:
        """The grid of an array that `orientation` was applied to: the same points, other indices."""
        first = np.zeros(3)
        for i, axis in enumerate(orientation.axes):
            if orientation.flips[i]:
                first[axis] = self.shape[axis] - 1
        unit = np.array(self.direction, dtype=float).reshape(3, 3)[:, ::-1]
        signs = np.where(orientation.flips, -1.0, 1.0)
        moved = unit[:, list(orientation.axes)] * signs
        return replace(
            self,
            shape=triple(self.shape[a] for a in orientation.axes),
            spacing=triple(self.spacing[a] for a in orientation.axes),
            origin=triple(float(v) for v in self.points(first[None])[0]),
            direction=tuple(float(v) + 0.0 for v in moved[:, ::-1].reshape(-1)),
        )

    def cropped(self, box: Box) -> Grid:
        """The grid of the half-open `box`."""
        start = np.array([[low for low, _ in box]])
        return replace(self, shape=triple(high - low for low, high in box), origin=triple(map(float, self.points(start)[0])))

    def resampled(self, shape: Sequence[int]) -> Grid:
        """The grid with another number of voxels over the same extent (voxel edges, not centres, stay)."""
        spacing = triple(s * n / m for s, n, m in zip(self.spacing, self.shape, shape, strict=True))
        shift = np.array([[(m_s / s - 1) / 2 for m_s, s in zip(spacing, self.spacing, strict=True)]])
        return replace(self, shape=triple(int(n) for n in shape), spacing=spacing, origin=triple(map(float, self.points(shift)[0])))

    def distance(self, other: Grid) -> float:
        """How far the two lattices lie apart: the largest distance of matching corners, in voxels of this grid.

        Infinite where the shapes differ. Both grids must stand in the same axis order.
        """
        if self.shape != other.shape:
            return float("inf")
        return float(np.abs(self.indices(other.corners()) - self.indices(self.corners())).max())

    def tilt(self) -> float:
        """Degrees by which the array axes deviate from the patient's axes, the largest of the three."""
        unit = np.abs(np.array(self.direction, dtype=float).reshape(3, 3))
        best = max(itertools.permutations(range(3)), key=lambda p: sum(unit[p[i], i] for i in range(3)))
        return float(np.degrees(np.arccos(np.clip(min(unit[best[i], i] for i in range(3)), 0, 1))))


@dataclass(frozen=True)
class Shear:
    """How the slices of a sheared grid lie on a straight one: each is shifted in its plane, and in it each row.

    With s the slice axis, q the rows' and p the one along a row, array index (s, q, p) lies at straight index
    (s, q + `slice_q` s, p + `row_p` q + `slice_p` s), less `start` = the first straight index along q and p.

    axes: which array axes s, q, p are.
    room: voxels that the straight grid has more along q and p.
    """

    axes: Triple
    slice_q: float
    slice_p: float
    row_p: float
    start: tuple[int, int]
    room: tuple[int, int]

    @classmethod
    def of(cls, grid: Grid) -> Shear:
        """The shear whose slices are the plane of the two axes that are closest to perpendicular."""
        steps = grid.axes
        unit = steps / np.linalg.norm(steps, axis=0)
        cosines = np.abs(unit.T @ unit)
        slices = min(range(3), key=lambda s: cosines[(s + 1) % 3, (s + 2) % 3])
        q, p = (axis for axis in range(3) if axis != slices)
        _, r = np.linalg.qr(steps[:, [p, q, slices]])
        row_p, slice_p, slice_q = r[0, 1] / r[0, 0], r[0, 2] / r[0, 0], r[1, 2] / r[1, 1]
        last_s, last_q = grid.shape[slices] - 1, grid.shape[q] - 1
        along_q = np.array([0.0, slice_q * last_s])
        along_p = np.array([a * row_p * last_q + b * slice_p * last_s for a in (0, 1) for b in (0, 1)])
        ends = [(math.floor(shift.min() + _ROUNDING), math.ceil(shift.max() - _ROUNDING)) for shift in (along_q, along_p)]
        return cls(
            (slices, q, p),
            float(slice_q),
            float(slice_p),
            float(row_p),
            (ends[0][0], ends[1][0]),
            (ends[0][1] - ends[0][0], ends[1][1] - ends[1][0]),
        )

    def straightened(self, grid: Grid) -> Grid:
        """The straight grid of the sheared one that this shear is of."""
        s, q, p = self.axes
        unit, r = np.linalg.qr(grid.axes[:, [p, q, s]])
        unit, lengths = unit * np.sign(np.diag(r)), np.abs(np.diag(r))
        origin = np.array(grid.origin) + unit[:, 0] * lengths[0] * self.start[1] + unit[:, 1] * lengths[1] * self.start[0]
        shape, spacing, direction = list(grid.shape), list(grid.spacing), np.zeros((3, 3))
        for column, (axis, room) in enumerate(zip((p, q, s), (self.room[1], self.room[0], 0), strict=True)):
            shape[axis] += room
            spacing[axis] = float(lengths[column])
            direction[:, 2 - axis] = unit[:, column]
        return Grid(
            triple(shape), triple(spacing), triple(map(float, origin)), tuple(float(v) + 0.0 for v in direction.reshape(-1)), grid.planar
        )


_ROUNDING = 1e-4  # of a voxel: less is the rounding of headers


def to_lps(grid: Grid) -> Orientation:
    """The orientation that brings the grid's array axes closest to (head, posterior, left) = LPS (z, y, x)."""
    unit = np.array(grid.direction, dtype=float).reshape(3, 3)[:, ::-1]  # columns: array axes
    # wanted array axes (z, y, x) point along LPS z, y, x; the permutation with the largest cosines wins
    wanted = (2, 1, 0)
    best = max(itertools.permutations(range(3)), key=lambda p: sum(abs(unit[wanted[i], p[i]]) for i in range(3)))
    return Orientation(triple(best), triple(bool(unit[wanted[i], best[i]] < 0) for i in range(3)))


def whole_box(shape: Sequence[int]) -> Box:
    """The box that covers all of `shape`."""
    return triple((0, int(n)) for n in shape)


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """The box as slices of the last three axes."""
    return triple(slice(low, high) for low, high in box)
