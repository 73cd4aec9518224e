"""What a threshold and connected components make of the phantoms: the rule of thumb that the demo's network must beat."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from autoseg.demo.phantoms import to_hu
from autoseg.geometry import Spacing

# Best of 576 combinations tried on an earlier form of the phantoms, truth known; smoothing and openings against vessels made it worse.
AIR_BELOW = -500.0  # HU: lung, and the air around the patient
DENSE_ABOVE = -700.0  # HU: denser than aerated lung
CLOSE_MM = 20.0  # the hull reaches over lesions on the pleura, as far as it can know of them
JOIN_MM = 5.0  # over the gaps in textured lesions
SMALLEST_ML = 4.0  # what is smaller is taken for vessels


def threshold_baseline(image: np.ndarray, kind: str, spacing: Spacing) -> np.ndarray:
    """Infection as whatever is dense and large inside the lungs' hull; a mask (z, y, x).

    Args:
        image: Hounsfield units, or 0..255 of the window -1250..250 (`kind` "windowed"), (z, y, x).
        spacing: mm (z, y, x).
    """
    hu = to_hu(image, kind)
    smooth = ndimage.gaussian_filter(hu, [3.0 / s for s in spacing])
    dense = closed(lung_hull(smooth, spacing) & (hu > DENSE_ABOVE), JOIN_MM, spacing)
    pieces, count = ndimage.label(dense)
    millilitres = np.bincount(pieces.ravel(), minlength=count + 1) * np.prod(spacing) / 1000
    keep = millilitres >= SMALLEST_ML
    keep[0] = False
    return keep[pieces]


def lung_hull(hu: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Air inside the body in its two largest pieces, closed over what is dense within; a mask (z, y, x)."""
    pieces, count = ndimage.label(hu < AIR_BELOW)
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)
    voxels[0] = 0
    for border in (pieces[:, 0], pieces[:, -1], pieces[:, :, 0], pieces[:, :, -1]):
        voxels[np.unique(border)] = 0
    hull = np.zeros(hu.shape, bool)
    for index in np.argsort(voxels)[::-1][:2]:
        if voxels[index] > 0.05 * voxels.max():
            hull |= ndimage.binary_fill_holes(closed(pieces == index, CLOSE_MM, spacing))  # each apart, so that the heart stays out
    return hull


def closed(mask: np.ndarray, millimetres: float, spacing: Spacing) -> np.ndarray:
    """Closing by a ball."""
    margin = [int(np.ceil(millimetres / s)) + 1 for s in spacing]
    padded = np.pad(mask, [(m, m) for m in margin])
    if not padded.any():
        return mask
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= millimetres
    shrunk = ndimage.distance_transform_edt(grown, sampling=spacing) > millimetres
    return shrunk[tuple(slice(m, -m) for m in margin)]
