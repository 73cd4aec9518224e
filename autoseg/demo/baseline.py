"""What a threshold and connected components make of the phantoms: the rule of thumb that the demo's network must beat."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from autoseg.demo.phantoms import to_hu
from autoseg.geometry import Spacing

AIR_BELOW = -500.0  # HU: lung and the air around the patient
HAZE_ABOVE = -640.0  # HU: denser than aerated lung
CLOSE_MM = 14.0  # bridges lesions on the pleura, as far as the hull of the lungs can know of them
VESSEL_MM = 5.0  # what is thinner than twice this is taken for a vessel or a band
SMALLEST_ML = 4.0


def threshold_baseline(image: np.ndarray, kind: str, spacing: Spacing) -> np.ndarray:
    """Infection as whatever is dense, thick and large inside the lungs' hull; a mask (z, y, x).

    The numbers are the best of a search over phantoms with their truth known, so that the comparison favours it.

    Args:
        image: Hounsfield units, or 0..255 of the window -1250..250 (`kind` "windowed"), (z, y, x).
        spacing: mm (z, y, x).
    """
    smooth = ndimage.gaussian_filter(to_hu(image, kind), [3.0 / s for s in spacing])  # evens out texture and noise
    hull = lung_hull(smooth, spacing, CLOSE_MM)
    dense = hull & (smooth > HAZE_ABOVE)
    thick = _opened(dense, VESSEL_MM, spacing)
    pieces, count = ndimage.label(thick)
    millilitres = np.bincount(pieces.ravel(), minlength=count + 1) * np.prod(spacing) / 1000
    keep = millilitres >= SMALLEST_ML
    keep[0] = False
    return keep[pieces]


def lung_hull(hu: np.ndarray, spacing: Spacing, close_mm: float) -> np.ndarray:
    """Air inside the body in its two largest pieces, closed over what is dense within; a mask (z, y, x)."""
    pieces, count = ndimage.label(hu < AIR_BELOW)
    outside = np.unique(np.concatenate([pieces[:, 0].ravel(), pieces[:, -1].ravel(), pieces[:, :, 0].ravel(), pieces[:, :, -1].ravel()]))
    voxels = np.bincount(pieces.ravel(), minlength=count + 1)
    voxels[outside] = 0
    voxels[0] = 0
    hull = np.zeros(hu.shape, bool)
    for index in np.argsort(voxels)[::-1][:2]:
        if voxels[index] > 0.05 * voxels.max():
            hull |= ndimage.binary_fill_holes(_closed(pieces == index, close_mm, spacing))  # each apart, so that the heart stays out
    return hull


def _closed(mask: np.ndarray, millimetres: float, spacing: Spacing) -> np.ndarray:
    margin = [int(np.ceil(millimetres / s)) + 1 for s in spacing]
    padded = np.pad(mask, [(m, m) for m in margin])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= millimetres
    closed = ndimage.distance_transform_edt(grown, sampling=spacing) > millimetres
    return closed[tuple(slice(m, -m) for m in margin)]


def _opened(mask: np.ndarray, millimetres: float, spacing: Spacing) -> np.ndarray:
    if not mask.any():
        return mask
    core = ndimage.distance_transform_edt(mask, sampling=spacing) > millimetres
    if not core.any():
        return core
    return mask & (ndimage.distance_transform_edt(~core, sampling=spacing) < millimetres)
