"""Named segments become labels that are stable and lose nothing."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from autoseg.data.annotations.segments import Canvas, as_values, gathered, meaning
from autoseg.data.labels import LabelSet
from autoseg.errors import LabelError
from autoseg.geometry import Grid


def drawn(shape, seed, names):
    """Random boxes, as masks and as a canvas gathers them."""
    rng = np.random.default_rng(seed)
    canvas, masks = Canvas(Grid(shape)), {}
    for name in names:
        low = rng.integers(0, np.array(shape) - 2)
        high = low + rng.integers(1, np.array(shape) - low)
        where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = rng.random([b - a for a, b in zip(low, high, strict=True)]) < 0.7
        canvas.add(name, part, where)
        masks.setdefault(name, np.zeros(shape, bool))[where] |= part
    return canvas.finished(), masks


@pytest.mark.parametrize("seed", range(5))
def test_a_canvas_keeps_every_segment_whatever_overlaps(seed):
    segments, masks = drawn((6, 7, 8), seed, ["a", "b", "c", "a", "d"])
    for name, mask in masks.items():
        holding = [number for number, names in enumerate(segments.combinations) if name in names]
        assert np.array_equal(np.isin(segments.voxels, holding), mask)
    assert segments.combinations[0] == () and segments.voxels.dtype == np.uint8


def test_the_same_segments_are_the_same_numbers_in_any_order():
    one, other = Canvas(Grid((2, 3, 4))), Canvas(Grid((2, 3, 4)))
    masks = {name: np.random.default_rng(n).random((2, 3, 4)) < 0.5 for n, name in enumerate("abc")}
    for name in "abc":
        one.add(name, masks[name])
    for name in "cab":
        other.add(name, masks[name])
    assert one.finished().combinations == other.finished().combinations
    assert np.array_equal(one.finished().voxels, other.finished().voxels)


def test_names_without_overlaps_are_classes_in_alphabetical_order_for_any_order_of_cases():
    cases = [{(): 90, ("spleen",): 5, ("Liver",): 5}, {(): 50, ("kidney",): 50}, {("Liver",): 10}]
    wanted = LabelSet.declared({"background": 0, "kidney": 1, "Liver": 2, "spleen": 3})
    for some in itertools.permutations(cases):
        assert gathered(some) == wanted


def test_spellings_of_one_name_are_one_label_spelled_as_most_cases_do():
    cases = [{("lung left",): 5}, {("Lung_Left",): 5}, {("Lung_Left",): 5, ("heart",): 2}]
    assert gathered(cases).names == ("heart", "Lung_Left")


def test_an_overlap_of_drawing_imprecision_leaves_classes_exclusive():
    assert gathered([{("a",): 1000, ("b",): 1000, ("a", "b"): 10}]).regions is False
    assert gathered([{("a",): 1000, ("b",): 1000, ("a", "b"): 11}]).regions is True
    assert gathered([{("a",): 1000, ("b",): 1000}, {("a",): 50, ("b",): 50, ("a", "b"): 10}]).regions is True


def test_nested_segments_are_regions_of_which_the_inner_is_written_last():
    labels = gathered([{(): 9, ("liver",): 100, ("liver", "tumour"): 20}, {("liver",): 120}])
    assert labels == LabelSet(("liver", "tumour"), ((1, 2), (2,)), 0, None, (1, 2))


def test_segments_that_overlap_in_part_have_a_value_for_what_they_share():
    labels = gathered([{("heart",): 100, ("target",): 60, ("heart", "target"): 30}])
    assert labels == LabelSet(("heart", "target"), ((1, 3), (2, 3)), 0, None, (1, 2))


def test_a_combination_that_hardly_occurs_gets_no_value_and_is_written_as_what_lies_on_top():
    labels = gathered([{("liver",): 1000, ("liver", "tumour"): 400, ("tumour",): 3}])
    assert labels.values == ((1, 2), (2,))
    values, unknown = as_values([(), ("liver",), ("tumour",), ("liver", "tumour")], labels)
    assert values.tolist() == [0, 1, 2, 2] and unknown == []


def test_every_combination_that_counts_reads_back_as_its_names():
    rng = random.Random(0)
    for _ in range(50):
        names = "abcdef"[: rng.randint(2, 6)]
        combos = {tuple(sorted(rng.sample(names, rng.randint(1, len(names))))): rng.randint(50, 100) for _ in range(8)}
        labels = gathered([combos])
        values, _ = as_values(list(combos), labels)
        for combination, value in zip(combos, values, strict=True):
            holding = {name for name, some in zip(labels.names, labels.values, strict=True) if value in some}
            assert holding == set(combination) or not labels.regions
        if labels.regions:
            assert all(value in some for value, some in zip(labels.region_order, labels.values, strict=True))


def test_identical_segments_are_two_regions():
    labels = gathered([{("a", "b"): 10}])
    assert labels.names == ("a", "b") and labels.values == ((1,), (1,)) and labels.region_order == (1, 1)


def test_a_segment_called_ignore_is_the_ignore_label_and_holds_over_others():
    labels = gathered([{("a",): 10, ("a", "Ignore"): 5, ("b",): 3}])
    assert labels.ignore == 3 and labels.names == ("a", "b") and not labels.regions
    assert as_values([(), ("a",), ("Ignore", "a"), ("b",)], labels)[0].tolist() == [0, 1, 3, 2]


def test_labels_of_dataset_json_take_segments_by_name_and_tell_which_they_leave_out():
    labels = LabelSet.declared({"background": 0, "liver": 7, "kidney left": 3})
    values, unknown = as_values([(), ("Liver",), ("Kidney_Left",), ("couch",), ("Liver", "couch")], labels)
    assert values.tolist() == [0, 7, 3, 0, 7] and unknown == ["couch"]


def test_declared_classes_that_overlap_all_the_same_take_the_larger_value():
    labels = LabelSet.declared({"background": 0, "liver": 1, "tumour": 2})
    assert as_values([("liver", "tumour")], labels)[0].tolist() == [2]


def test_the_numbers_of_one_case_have_their_meaning():
    labels = meaning(((), ("a",), ("b",), ("a", "b")))
    assert labels.names == ("a", "b") and labels.values == ((1, 3), (2, 3))
    assert meaning(((), ("a",), ("b",))) == LabelSet.declared({"background": 0, "a": 1, "b": 2})
    assert meaning(((),)) is None


def test_annotations_that_mark_nothing_are_refused():
    with pytest.raises(LabelError, match="no file outlines any segment"):
        gathered([{(): 10}, {}])
