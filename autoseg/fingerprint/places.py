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
    along = [(np.arange(n) * step + step // 2 + 0.5) / length for n, step, length in zip(sample.shape, steps, labels.shape, strict=True)]
    places = {}
    values = np.flatnonzero(np.bincount(sample.ravel())) if sample.dtype.itemsize <= 2 else np.unique(sample)  # small ones unsorted
    for value in values:
        there = sample == value
        planes = [np.count_nonzero(there, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        places[int(value)] = tuple(round(float(n @ centres / n.sum()), 4) for n, centres in zip(planes, along, strict=True))
    return places
