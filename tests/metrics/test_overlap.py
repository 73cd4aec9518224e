"""Overlap counts and metrics against scikit-learn and by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from autoseg.errors import GridError, LabelError
from autoseg.metrics import overlap

small_maps = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(small_maps, small_maps, st.sampled_from([None, 4]))
def test_counts_and_metrics_are_those_of_scikit_learn(prediction, reference, ignore):
    table = overlap(prediction, reference, {"one": [1], "pair": (2, 3)}, ignore=ignore)
    counted = reference != ignore if ignore is not None else np.ones_like(reference, bool)
    assume(counted.any())  # scikit-learn refuses empty arrays
    for name, values in {"one": [1], "pair": [2, 3]}.items():
        truth, guess = np.isin(reference[counted], values), np.isin(prediction[counted], values)
        tn, fp, fn, tp = confusion_matrix(truth, guess, labels=[False, True]).ravel()
        row = table[name]
        assert (tp, fp, fn, tn) == (row.TP, row.FP, row.FN, row.TN)
        expected = {
            "dice": f1_score(truth, guess, zero_division=np.nan),
            "iou": jaccard_score(truth, guess, zero_division=0.0) if tp + fp + fn else math.nan,
            "sensitivity": recall_score(truth, guess, zero_division=np.nan),
            "precision": precision_score(truth, guess, zero_division=np.nan),
            "specificity": recall_score(~truth, ~guess, zero_division=np.nan),
        }
        for metric, value in expected.items():
            assert row[metric] == pytest.approx(value, nan_ok=True), metric


def test_by_hand():
    reference = np.array([0, 1, 1, 2, 2, 2, 255], np.uint8)
    prediction = np.array([1, 1, 0, 2, 1, 0, 2], np.uint8)
    table = overlap(prediction, reference, {"one": [1], "two": [2], "both": [1, 2]}, ignore=255)
    assert table["one"].as_dict() == pytest.approx(
        {"TP": 1, "FP": 2, "FN": 1, "TN": 2, "dice": 0.4, "iou": 0.25, "sensitivity": 0.5, "specificity": 0.5, "precision": 1 / 3}
    )
    assert (table["two"].TP, table["two"].FP, table["two"].FN, table["two"].TN) == (1, 0, 2, 3)
    assert (table["both"].TP, table["both"].FP, table["both"].FN, table["both"].TN) == (3, 1, 2, 0)
    assert list(table) == ["one", "two", "both"] and table.as_dict()["two"]["dice"] == 0.5


def test_undefined_is_nan_and_false_alarm_is_zero():
    empty, alarm = np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8)
    nothing, false = overlap(empty, empty, {"a": [1]})["a"], overlap(alarm, empty, {"a": [1]})["a"]
    assert all(math.isnan(nothing[m]) for m in ("dice", "iou", "sensitivity", "precision")) and nothing.specificity == 1
    assert false.dice == 0 and math.isnan(false.sensitivity) and false.precision == 0
    full = overlap(empty + 1, empty + 1, {"a": [1]})["a"]
    assert full.dice == 1 and math.isnan(full.specificity)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_every_integer_type_and_any_memory_order(kind):
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 2, (2, 7, 8, 9))
    expected = overlap(prediction.astype(np.uint8), reference.astype(np.uint8), {"a": [1]})
    found = overlap(np.asfortranarray(prediction.astype(kind)), reference.astype(kind)[::-1][::-1], {"a": [1]})
    assert found == expected


def test_large_values_and_more_voxels_than_a_slab():
    rng = np.random.default_rng(1)
    values = np.array([0, 7, 70_000, 4_000_000_000], np.uint32)
    reference, prediction = values[rng.integers(0, 4, (2, 1_300_000))]
    table = overlap(prediction, reference, {"far": [70_000], "farther": [4_000_000_000, 7]}, ignore=0)
    counted = reference != 0
    truth, guess = np.isin(reference[counted], [4_000_000_000, 7]), np.isin(prediction[counted], [4_000_000_000, 7])
    farther, far = table["farther"], table["far"]
    assert (truth & guess).sum() == farther.TP and (~truth & ~guess).sum() == farther.TN
    assert ((reference == 70_000) & (prediction != 70_000)).sum() == far.FN


def test_memory_does_not_grow_with_the_volume():
    big = np.zeros((64, 512, 512), np.uint8)
    tracemalloc.start()
    overlap(big, big, {"a": [1]})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 * 2**20  # 16.8 million voxels; one 8-byte code each would be 134 MB


def test_refusals_say_what_was_wrong():
    with pytest.raises(GridError, match=r"\(2, 3\).*\(3, 2\)"):
        overlap(np.zeros((2, 3), int), np.zeros((3, 2), int), {"a": [1]})
    with pytest.raises(LabelError, match="float64"):
        overlap(np.zeros(3), np.zeros(3, int), {"a": [1]})
    with pytest.raises(LabelError, match="reference"):
        overlap(np.zeros(3, int), np.array([0, -1, 2]), {"a": [1]})
    with pytest.raises(LabelError, match="ignore"):
        overlap(np.zeros(3, int), np.zeros(3, int), {"a": [1, 5]}, ignore=5)


def test_nothing_but_ignored_voxels_leaves_everything_undefined():
    row = overlap(np.ones((2, 2), np.uint8), np.full((2, 2), 4, np.uint8), {"a": [1]}, ignore=4)["a"]
    assert (row.TP, row.FP, row.FN, row.TN) == (0, 0, 0, 0) and all(math.isnan(row[m]) for m in ("dice", "iou", "specificity"))
