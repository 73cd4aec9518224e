"""The plan's postprocessing steps, applied to a label map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from autoseg.data.labels import LabelSet
from autoseg.planning.schema import LargestComponent


def apply_postprocessing(label_map: np.ndarray, steps: Sequence[LargestComponent], labels: LabelSet) -> np.ndarray:
    """A label map in file values (z, y, x) after all steps; the input itself if there are none.

    largest_component: of the named labels taken as one, only the largest component stays (voxels that touch by a corner are
    connected), or all that are equally large; the rest becomes background (peer 6.4).
    """
    values = dict(zip(labels.names, labels.values, strict=True))
    for step in steps:
        mask = np.isin(label_map, [value for name in step.labels for value in values[name]])
        components, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(components.reshape(-1))
        sizes[0] = 0
        dropped = mask & ~(sizes == sizes.max())[components]
        label_map = np.where(dropped, np.array(labels.background, label_map.dtype), label_map)
    return label_map
