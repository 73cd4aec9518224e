"""Where the tiles of a sliding window lie, what each voxel of a tile weighs, and volumes that are smaller than a tile.

Tiles form a regular product of per-axis positions, and a tile's weight is a product of per-axis weights. So the sum of the
weights over all tiles is a product too, and no accumulator of weights is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d

from autoseg.geometry import Box

Rule = Literal["regular", "even"]
Weighting = Literal["gaussian", "uniform"]


def tile_starts(size: int, patch: int, overlap: float, rule: Rule) -> tuple[int, ...]:
    """First voxels of the tiles along one axis; together they cover it.

    Args:
        size: voxels of the axis, at least `patch`.
        patch: voxels of a tile.
        overlap: share of a tile, below 1, that its neighbour covers too.
        rule: `regular` steps by exactly the rest of a tile and pulls the last one back (paper.md item 16); `even` makes the
            steps equal and no longer than that (peer 5.2, numpy's rounding of halves to even included).

    Raises:
        ValueError: the axis is shorter than a tile; pad it first.
    """
    if size < patch:
        raise ValueError(f"an axis of {size} voxels is shorter than a tile of {patch}")
    if rule == "regular":
        shared = min(round(overlap * patch), patch - 1)
        step = patch - shared
        count = max(1, math.ceil((size - shared) / step))
        return tuple(min(k * step, size - patch) for k in range(count))
    step = max((1 - overlap) * patch, 1.0)
    count = math.ceil((size - patch) / step) + 1
    stride = (size - patch) / max(count - 1, 1)
    return tuple(int(np.round(stride * k)) for k in range(count))


def axis_weight(patch: int, weighting: Weighting) -> np.ndarray:
    """What each voxel along one axis of a tile weighs, (patch,) float32, at most 1 and never 0.

    gaussian: a unit impulse in the middle, filtered with sigma = patch / 8 (peer 5.3, in float32 instead of float16).
    """
    if weighting == "uniform":
        return np.ones(patch, np.float32)
    impulse = np.zeros(patch)
    impulse[patch // 2] = 1
    weight = gaussian_filter1d(impulse, patch / 8, mode="constant")
    weight = (weight / weight.max()).astype(np.float32)
    weight[weight == 0] = weight[weight > 0].min()
    return weight


def covered_weight(size: int, patch: int, starts: Sequence[int], weighting: Weighting) -> np.ndarray:
    """Along one axis, the sum of the weights of all tiles that cover each voxel, (size,) float32."""
    weight = axis_weight(patch, weighting).astype(np.float64)
    total = np.zeros(size)
    for start in starts:
        total[start : start + patch] += weight
    return total.astype(np.float32)


def pad_to(image: np.ndarray, least: Sequence[int], fill: Literal["zero", "minimum"]) -> tuple[np.ndarray, Box]:
    """An image (channel, z, y, x) whose axes have at least `least` voxels, and the box in it where the image lies.

    Padding is symmetric, an odd voxel goes to the end (peer 5.1). `zero` fills with 0; `minimum` with the smallest value of each
    line, axis after axis (paper.md R17). An image that is large enough is returned itself.
    """
    low = [max(n - s, 0) // 2 for s, n in zip(image.shape[1:], least, strict=True)]
    high = [max(n - s, 0) - before for s, n, before in zip(image.shape[1:], least, low, strict=True)]
    box = tuple((before, before + s) for before, s in zip(low, image.shape[1:], strict=True))
    if not any(low) and not any(high):
        return image, box
    widths = [(0, 0), *zip(low, high, strict=True)]
    if fill == "zero":
        return np.pad(image, widths), box
    return np.pad(image, widths, mode="minimum"), box
