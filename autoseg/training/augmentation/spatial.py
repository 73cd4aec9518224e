"""Crop, elastic, rotation, scale and mirror as one resampling of image and labels on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.geometry import Box
from autoseg.training.augmentation.boxes import reached, spline_reach
from autoseg.training.augmentation.drawing import Elastic, Warp
from autoseg.training.augmentation.lines import along_axes, gaussian_band
from autoseg.training.augmentation.splines import MARGIN, take_patch, to_coefficients

_NOT_BENT = np.zeros((0, 1, 1, 1), np.float32)
_RADIUS = 4.0  # sigmas that a displacement's Gaussian reaches, as batchgenerators' (scipy's)


def elastic_noise(elastic: Elastic, size: Sequence[int]) -> np.ndarray:
    """Uniform noise in (-1, 1), float32 (number of displaced axes, *size)."""
    rng = np.random.Generator(np.random.SFC64(elastic.seed))
    return rng.random((len(elastic.axes), *size), np.float32) * 2 - 1


def elastic_field(elastic: Elastic, size: Sequence[int]) -> np.ndarray:
    """By how many voxels each voxel of a patch (z, y, x) is displaced: float32 (3, *size)."""
    radius = int(_RADIUS * elastic.sigma + 0.5)
    bands = [gaussian_band(length, elastic.sigma, beyond="zero", radius=radius) for length in size]
    if size[0] == 1:
        bands[0] = None  # a slice is bent within itself
    field = np.zeros((3, *size), np.float32)
    for axis, noise in zip(elastic.axes, elastic_noise(elastic, size), strict=True):
        field[axis] = along_axes(noise, bands)
        field[axis] *= elastic.alpha
    return field


def bent(warp: Warp | None, size: Sequence[int]) -> np.ndarray:
    """The warp's field as `needed_box` and `resample` take it: (3, *size), or (0, 1, 1, 1) where nothing is bent."""
    return _NOT_BENT if warp is None or warp.elastic is None else elastic_field(warp.elastic, size)


def needed_box(warp: Warp, field: np.ndarray, size: Sequence[int], centre: Sequence[float], shape: Sequence[int], order: int) -> Box:
    """The part of a volume of `shape` that interpolating a patch of `size` about `centre` depends on.

    An axis of the patch with one voxel that is neither bent nor turned (a slice's) needs no neighbours.
    """
    half = (np.array(size) - 1) / 2
    bends = np.array([[f.min(), f.max()] for f in field]) if len(field) else np.zeros((3, 2))
    corners = np.stack([-half + bends[:, 0], half + bends[:, 1]])  # (2, 3)
    ends = warp.matrix[:, :, None] * corners.T[None]  # (to axis, from axis, 2)
    low, high = ends.min(2).sum(1) + centre, ends.max(2).sum(1) + centre
    alone = [size[axis] == 1 and low[axis] == high[axis] for axis in range(3)]
    reach = [0 if each else spline_reach(order) for each in alone]
    return tuple(reached(*each) for each in zip(low, high, reach, shape, strict=True))


def resample(
    image: np.ndarray,
    labels: np.ndarray,
    warp: Warp,
    field: np.ndarray,
    size: Sequence[int],
    centre: Sequence[float],
    orders: tuple[int, int],
    *,
    fades: bool = False,
    mirrored: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """A patch of image and labels, interpolated once.

    Args:
        image: float32 (C, z, y, x).
        labels: integers (L, z, y, x) on the same voxels.
        field: of `bent`.
        size: of the patch, (z, y, x).
        centre: index of the patch's middle in these arrays.
        orders: of image (0, 1, 3: nearest, linear, cubic B-spline) and labels (0: nearest; 1: the label with the largest linear weight).
        fades: whether image and labels go over into zeros and nothing within a voxel beyond the outermost voxels' centres (the peer),
            instead of ending there (batchgenerators, scipy's `constant`). Cubics always end there.
        mirrored: axes along which the patch is reversed.

    Returns:
        float32 (C, *size), and labels (L, *size); 0 outside.
    """
    inside = tuple(slice(MARGIN[0], MARGIN[0] + n) for n in image.shape[1:])
    padded = np.zeros((len(image), *(n + sum(MARGIN) for n in image.shape[1:])), np.float32)
    padded[(slice(None), *inside)] = image
    if orders[0] == 3:
        for channel in padded:
            to_coefficients(channel)
    new_image, new_labels = np.empty((len(image), *size), np.float32), np.empty((len(labels), *size), labels.dtype)
    flips = np.array([axis in mirrored for axis in range(3)])
    edge = 1.0 if fades and orders[0] < 3 else 0.0
    where = np.array(centre, np.float64)
    take_patch(padded, np.ascontiguousarray(labels), warp.matrix, where, field, tuple(orders), edge, flips, new_image, new_labels)
    return new_image, new_labels
