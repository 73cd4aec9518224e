"""Steps that `select` may put into a plan."""

from __future__ import annotations

import numpy as np

from autoseg.data.labels import LabelSet
from autoseg.inference.postprocessing import apply_postprocessing
from autoseg.planning.schema import LargestComponent

LABELS = LabelSet(("a", "b"), ((1,), (4,)))


def step(*labels: str) -> LargestComponent:
    return LargestComponent(do="largest_component", labels=list(labels))


def test_only_the_largest_component_of_the_named_labels_stays():
    voxels = np.zeros((6, 6, 6), np.uint8)
    voxels[:2, :2, :2] = 1
    voxels[2, 2, 2] = 4  # touches by a corner
    voxels[5, 5, 3:] = 1
    voxels[5, 0, 0] = 4
    together = apply_postprocessing(voxels, [step("a", "b")], LABELS)
    assert together.sum() == 8 + 4
    assert together[2, 2, 2] == 4
    apart = apply_postprocessing(voxels, [step("a")], LABELS)
    assert (apart == 1).sum() == 8
    assert (apart == 4).sum() == 2
    assert together.dtype == np.uint8


def test_equally_large_components_all_stay():
    voxels = np.zeros((1, 1, 9), np.uint8)
    voxels[0, 0, [0, 1, 4, 5, 8]] = 1
    assert apply_postprocessing(voxels, [step("a")], LABELS).sum() == 4


def test_no_step_changes_nothing():
    voxels = np.ones((2, 2, 2), np.uint8)
    assert apply_postprocessing(voxels, [], LABELS) is voxels
    assert (apply_postprocessing(voxels * 0, [step("a")], LABELS) == 0).all()
