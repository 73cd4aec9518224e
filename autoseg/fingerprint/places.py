"""Where in its volume each label lies, which is what shows that a case is mirrored or its labels are swapped."""

from __future__ import annotations

import numpy as np

COARSE = 96  # voxels looked at along an axis: a centre is wanted to a hundredth of the volume, not to a voxel

Place = tuple[float, float, float]


def label_places(labels: np.ndarray) -> dict[int, Place]:
    """File value -> centre of its voxels as fractions (0 to 1) of the volume's length along (z, y, x).

    Args:
        labels: unsigned file values, (z, y, x) in LPS axes: 0 is the foot end, the front and the patient's right.
    """
    steps = [max(1, n // COARSE) for n in labels.shape]
    sample = labels[tuple(slice(step // 2, None, step) for step in steps)]
    index = sample.ravel()
    if sample.dtype.itemsize > 2:  # smaller ones are few enough to be counted as they are, without being sorted
        values, index = np.unique(index, return_inverse=True)
    counts = np.bincount(index)
    there = np.flatnonzero(counts)
    centres = np.empty((len(there), 3))
    for axis, step in enumerate(steps):
        others = tuple(a for a in range(3) if a != axis)
        weights = (np.arange(sample.shape[axis]) * step + step // 2 + 0.5) / labels.shape[axis]
        spread = np.broadcast_to(np.expand_dims(weights, others), sample.shape)
        centres[:, axis] = np.bincount(index, weights=spread.ravel())[there] / counts[there]
    named = there if sample.dtype.itemsize <= 2 else values
    return {int(value): tuple(round(float(c), 4) for c in centre) for value, centre in zip(named, centres, strict=True)}
