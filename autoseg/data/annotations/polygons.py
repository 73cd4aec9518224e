"""Closed contours to pixels: a pixel belongs to an outline where a ray to its centre crosses the outline an odd number of times.

Inner contours are holes by that rule, however the outline is stored: as contours of their own, or joined to the outer one by a
channel of no width. An edge counts from its lower end up to below its upper one, and a crossing as far as the pixel centres at it and
beyond, so that outlines that share an edge share no pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DECIMALS = 6  # of a pixel: what tells centres on an edge from those beside it must not depend on rounding


def fill(contours: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) of an outline.

    Args:
        contours: each (n, 2), row and column of its points in pixels; 0 is the first pixel's centre. The last point leads to the first.
        shape: rows and columns; what lies outside is cut off.
    """
    mask = np.zeros(shape, bool)
    points = [np.round(contour, _DECIMALS) for contour in contours]
    low = np.clip(np.floor(np.min([p.min(axis=0) for p in points], axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(np.max([p.max(axis=0) for p in points], axis=0)) + 1, low, shape).astype(int)
    rows, columns = (int(n) for n in high - low)
    crossings = np.concatenate([_crossings(p - low, rows, columns) for p in points])
    counts = np.bincount(crossings, minlength=rows * (columns + 1)).reshape(rows, columns + 1)
    mask[low[0] : high[0], low[1] : high[1]] = np.cumsum(counts, axis=1)[:, :-1] & 1
    return mask


def _crossings(points: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """For each row that each edge crosses, the first pixel beyond the crossing, as an index into (rows, columns + 1)."""
    (y0, x0), (y1, x1) = points.T, np.roll(points, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(np.int64)
    counts = stop - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (x1 - x0) / (y1 - y0)  # an edge along a row crosses none
    at = np.round(x0[edge] + (row - y0[edge]) * slope[edge], _DECIMALS)
    return row * (columns + 1) + np.clip(np.ceil(at), 0, columns).astype(np.int64)
