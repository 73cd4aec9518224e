"""Sheared slices, as a tilted gantry makes them, onto a straight grid and back: each slice is shifted in its own plane.

Labels are shifted by whole voxels, so that a label map that goes there and back is the same in every voxel. Images are shifted by
cubic interpolation within the slice, clipped to the slice's range; across slices nothing is interpolated.
"""

from __future__ import annotations

import numpy as np

from autoseg.geometry import Grid, Shear

_ROUNDING = 1e-4  # of a voxel: shifts nearer than this to half a voxel round alike whatever the header's rounding


def straight_image(image: np.ndarray, grid: Grid) -> np.ndarray:
    """An image (C, z, y, x) on a sheared grid, as float32 on `grid.straight()`; new voxels have their channel's minimum."""
    shear, wanted = grid.shear(), grid.straight()
    out = np.empty((len(image), *wanted.shape), np.float32)
    for channel, volume in enumerate(image):
        outside = float(volume.min())
        for number, (plane, target) in enumerate(zip(_planes(volume, shear), _planes(out[channel], shear), strict=True)):
            # straight index (Q, P) of slice s comes from q = Q + start_q - slice_q s, p = P + start_p - row_p q - slice_p s
            first_q = shear.start[0] - shear.slice_q * number
            first_p = shear.start[1] - shear.slice_p * number - shear.row_p * first_q
            _shift(plane, target, (first_q, first_p), -shear.row_p, order=3, outside=outside)
    return out


def sheared_image(image: np.ndarray, grid: Grid) -> np.ndarray:
    """The way back: float32 (C, z, y, x) on `grid.straight()`, linearly interpolated onto the sheared `grid`."""
    shear = grid.shear()
    out = np.empty((len(image), *grid.shape), np.float32)
    for channel, volume in enumerate(image):
        for number, (plane, target) in enumerate(zip(_planes(volume, shear), _planes(out[channel], shear), strict=True)):
            first = (shear.slice_q * number - shear.start[0], shear.slice_p * number - shear.start[1])
            _shift(plane, target, first, shear.row_p, order=1, outside=0.0)
    return out


def straight_labels(labels: np.ndarray, grid: Grid) -> np.ndarray:
    """A label map (z, y, x) on a sheared grid, on `grid.straight()`; new voxels are 0."""
    shear = grid.shear()
    out = np.zeros(grid.straight().shape, labels.dtype)
    for plane, target, q, p in _rows(labels, out, shear):
        target[q, p : p + plane.size] = plane
    return out


def sheared_labels(labels: np.ndarray, grid: Grid) -> np.ndarray:
    """The way back: a label map on `grid.straight()`, on the sheared `grid`."""
    shear = grid.shear()
    out = np.empty(grid.shape, labels.dtype)
    for row, source, q, p in _rows(out, labels, shear):
        row[...] = source[q, p : p + row.size]
    return out


def _planes(volume: np.ndarray, shear: Shear) -> np.ndarray:
    """A view (s, q, p) of a volume."""
    return volume.transpose(shear.axes)


def _rows(sheared: np.ndarray, straight: np.ndarray, shear: Shear):
    """Each row of the sheared volume, with the plane of the straight one that it lies in, its row there and its first voxel."""
    for s, (plane, other) in enumerate(zip(_planes(sheared, shear), _planes(straight, shear), strict=True)):
        down = _whole(shear.slice_q * s) - shear.start[0]
        for q, row in enumerate(plane):
            yield row, other, q + down, _whole(shear.row_p * q + shear.slice_p * s) - shear.start[1]


def _whole(shift: float) -> int:
    return int(np.ceil(shift - 0.5 - _ROUNDING))


def _shift(plane: np.ndarray, target: np.ndarray, first: tuple[float, float], slope: float, *, order: int, outside: float) -> None:
    """target[Q, P] = plane at q = first_q + Q, p = first_p + P + slope Q; `outside` beyond the edge of its voxels."""
    from scipy import ndimage

    matrix = np.array([[1.0, 0.0], [slope, 1.0]])
    values = np.asarray(plane, np.float32)
    moved = ndimage.affine_transform(values, matrix, first, output_shape=target.shape, order=order, mode="nearest", output=np.float32)
    np.clip(moved, values.min(), values.max(), out=moved)
    rows, columns = np.arange(target.shape[0])[:, None], np.arange(target.shape[1])[None]
    q, p = first[0] + rows, first[1] + columns + slope * rows
    inside = (np.abs(q - (plane.shape[0] - 1) / 2) <= plane.shape[0] / 2) & (np.abs(p - (plane.shape[1] - 1) / 2) <= plane.shape[1] / 2)
    target[...] = np.where(inside, moved, outside)
