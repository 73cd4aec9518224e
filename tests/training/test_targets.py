"""Loss targets and agreement counts, against hand-made values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.data.labels import LabelSet
from autoseg.training.targets import TargetForm, dice, overlap_counts

CLASSES = LabelSet.declared({"background": 0, "left": 1, "right": 2, "ignore": 9})
REGIONS = LabelSet.declared({"background": 0, "left": [1, 3], "right": [2, 3, 4], "spot": [3], "ignore": 9}, [1, 2, 3])


def test_classes_stay_class_indices():
    labels = np.array([[[0, 1], [2, 3]]], np.uint8)
    target = TargetForm(CLASSES, ()).targets(labels, [True])
    assert target.dtype == torch.int64
    assert target.tolist() == labels.tolist()


def test_regions_are_unions_and_the_ignored_stand_out():
    labels = REGIONS.encode(np.array([[[0, 1, 2, 3, 4, 9]]]))
    target = TargetForm(REGIONS, ((0, 1),)).targets(labels, [False])
    assert target.shape == (1, 3, 1, 6)
    ignore = REGIONS.ignore_index
    assert target[0, :, 0].tolist() == [[0, 1, 0, 1, 0, ignore], [0, 0, 1, 1, 1, ignore], [0, 0, 0, 1, 0, ignore]]


def test_exchanged_samples_swap_region_channels_only_for_themselves():
    labels = REGIONS.encode(np.array([[[0, 1, 2, 4]], [[0, 1, 2, 4]]]))
    plain, swapped = TargetForm(REGIONS, ((0, 1),)).targets(labels, [False, True])
    assert torch.equal(swapped[0], plain[1]) and torch.equal(swapped[1], plain[0]) and torch.equal(swapped[2], plain[2])


@pytest.mark.parametrize("ignore", [None, 3])
def test_class_counts_agree_with_a_loop(ignore):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)).astype(np.float32))
    target = torch.from_numpy(rng.integers(0, 3 if ignore is None else 4, (2, 4, 5)))
    predicted, known = logits.argmax(1), target != -1 if ignore is None else target != ignore
    expected = []
    for c in (1, 2):
        found, true = (predicted == c) & known, (target == c) & known
        expected.append([int((found & true).sum()), int((found & ~true).sum()), int((true & ~found).sum())])
    assert overlap_counts(logits, target, ignore).tolist() == expected


def test_region_counts_leave_out_the_ignored():
    logits = torch.tensor([[[1.0, 1.0, -1.0, -1.0, 1.0]]])
    target = torch.tensor([[[1.0, 0.0, 1.0, 0.0, 7.0]]])
    assert overlap_counts(logits, target, 7).tolist() == [[1, 1, 1]]


def test_dice_is_undefined_where_nothing_is():
    assert dice([[2, 1, 1], [0, 0, 0]]) == [2 * 2 / 6, None]


def test_what_a_case_annotates_becomes_a_row_of_outputs_and_follows_its_sides():
    form = TargetForm(CLASSES, ((1, 2),))
    assert form.present([None, None], [False, True]) is None
    assert form.present([None, ("left", "right")], [False, False]) is None
    found = form.present([("left",), ("left",), None], [False, True, True])
    assert found.tolist() == [[True, True, False], [True, False, True], [True, True, True]]
    regions = TargetForm(REGIONS, ((0, 1),))
    assert regions.present([("left", "spot")], [False]).tolist() == [[True, False, True]]
    assert regions.present([("left", "spot")], [True]).tolist() == [[False, True, True]]


@pytest.mark.parametrize("ignore", [None, 3])
def test_a_sample_counts_only_for_the_classes_that_its_case_annotates(ignore):
    """Class 1 from both samples, class 2 from the second alone; what is predicted as 2 in the first is no false alarm."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)).astype(np.float32))
    target = torch.from_numpy(rng.integers(0, 3 if ignore is None else 4, (2, 4, 5)))
    target[0][target[0] == 2] = 0
    found = overlap_counts(logits, target, ignore, torch.tensor([[True, True, False], [True, True, True]]))
    both, second = overlap_counts(logits, target, ignore), overlap_counts(logits[1:], target[1:], ignore)
    assert found[0].tolist() == both[0].tolist() and found[1].tolist() == second[1].tolist()
    assert both[1, 1] > second[1, 1]


def test_a_sample_counts_only_for_the_regions_that_its_case_annotates():
    logits = torch.tensor([[[1.0, -1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]]])
    found = overlap_counts(logits, target, None, torch.tensor([[True, False], [True, True]]))
    assert found.tolist() == [[2, 1, 1], [2, 0, 0]]
