"""Arrays on one grid brought onto another in physical space: images by cubic splines, labels by the nearest voxel.

What lies outside of the other's field of view (its voxels' outer edges) gets a stated value, and a warning says how much that is.
The first image's grid may be turned, shifted, sheared or of any spacing against the other's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError, GridError
from autoseg.geometry import Grid

ORDER = 3
_WHOLE = 0.999  # share of the field of view that counts as all of it
_ROUNDING = 1e-4  # of a voxel: half a voxel beside the outermost centre is inside, whatever the header's rounding


def regridded_image(values: np.ndarray, grid: Grid, target: Grid, *, file: Path) -> tuple[np.ndarray, list[AutosegError]]:
    """One channel (z, y, x) as float32 on `target`: cubic B-splines, clipped to the channel's range; outside its minimum.

    Returns:
        The voxels, and warnings that say what was done and how much of the target is not covered.

    Raises:
        GridError: the two share no voxel.
    """
    low, high = float(values.min()), float(values.max())
    voxels, share = _resampled(values.astype(np.float32, copy=False), grid, target, low, cubic=True)
    np.clip(voxels, low, high, out=voxels)
    return voxels, _notices(share, f"its minimum ({low:g})", file)


def regridded_labels(values: np.ndarray, grid: Grid, target: Grid, *, background: int, file: Path) -> tuple[np.ndarray, list[AutosegError]]:
    """A label map (z, y, x) on `target`: each voxel takes the nearest; outside is background. Else as `regridded_image`."""
    voxels, share = _resampled(values, grid, target, background, cubic=False)
    return voxels, _notices(share, f"background ({background})", file)


def _notices(share: float, fill: str, file: Path) -> list[AutosegError]:
    if not share:
        raise GridError("it shows no part of what the first image shows", file=file, remedy="Pair the right files, or check the headers")
    what = "it is resampled onto the grid of the first image (--regrid to-first)"
    done = [GridError(what, file=file, remedy="Nothing need be done")]
    if share < _WHOLE:
        message = f"it covers {100 * share:.3g} % of the first image's field of view; the rest is {fill}"
        done.append(GridError(message, file=file, remedy="Check that it shows the region of interest, or make another image the first"))
    return done


def _resampled(values: np.ndarray, grid: Grid, target: Grid, outside: float, *, cubic: bool) -> tuple[np.ndarray, float]:
    """The values on the target, and the share of it that lies in their field of view."""
    import SimpleITK as sitk

    matrix = np.linalg.inv(grid.axes) @ target.axes
    first = grid.indices(np.array([target.origin]))[0]
    reach = [0, 0, 0]
    if cubic:
        values, reach = _long_enough(values)
    transform = sitk.AffineTransform(3)  # between indices: ITK then needs no direction, which must be perpendicular
    transform.SetMatrix(matrix[::-1, ::-1].reshape(-1).tolist())
    transform.SetTranslation((first + reach)[::-1].tolist())
    sampler = sitk.ResampleImageFilter()
    sampler.SetSize(target.shape[::-1])
    sampler.SetTransform(transform)
    sampler.SetInterpolator(sitk.sitkBSpline if cubic else sitk.sitkNearestNeighbor)
    sampler.SetUseNearestNeighborExtrapolator(True)  # at the very edge, where ITK counts one side as outside
    voxels = sitk.GetArrayFromImage(sampler.Execute(sitk.GetImageFromArray(np.ascontiguousarray(values))))
    inside = _cover(voxels, matrix, first, grid.shape, outside)
    return voxels.astype(values.dtype, copy=False), inside / voxels.size


def _long_enough(values: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Axes of fewer voxels than ITK's spline takes, continued as the spline itself does (mirrored), and what that moved."""
    short = [(2, 2) if n < 4 else (0, 0) for n in values.shape]
    if not any(pair[0] for pair in short):
        return values, [0, 0, 0]
    for axis, pair in enumerate(short):
        pads = [pair if a == axis else (0, 0) for a in range(3)]
        values = np.pad(values, pads, mode="edge" if values.shape[axis] == 1 else "reflect")
    return values, [pair[0] for pair in short]


def _cover(voxels: np.ndarray, matrix: np.ndarray, first: np.ndarray, shape: tuple[int, int, int], outside: float) -> int:
    """Writes `outside` where the other has no voxel, slice by slice, and counts where it has one."""
    z, y, x = (np.arange(n, dtype=np.float32) for n in voxels.shape)
    inside = 0
    for number, plane in enumerate(voxels):
        there = np.ones(plane.shape, bool)
        for axis, length in enumerate(shape):
            along = (matrix[axis, 1] * y + first[axis] + matrix[axis, 0] * float(z[number]))[:, None] + matrix[axis, 2] * x
            there &= (along >= -0.5 - _ROUNDING) & (along <= length - 0.5 + _ROUNDING)
        plane[~there] = outside
        inside += int(there.sum())
    return inside
