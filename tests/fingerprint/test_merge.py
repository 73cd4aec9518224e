"""Cases to fingerprint: each case weighs the same, and the peer's own numbers come out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autoseg.fingerprint.case_measures import measure_case
from autoseg.fingerprint.histogram import MOST_BINS
from autoseg.fingerprint.kinds import mend_hu
from autoseg.fingerprint.measure import gather

RNG = np.random.default_rng(3)


def boxed(shape, size, value=1):
    labels = np.zeros(shape, np.uint8)
    labels[:size, :size, :size] = value
    return labels


def test_the_peers_fingerprint_of_hippocampus(shared_data, measured_real):
    """Against the peer's file. It draws a million voxels of each case, from images before they were rounded by 0.2 % of the maximum."""
    peer = json.loads((shared_data("nnunet_model") / "dataset_fingerprint.json").read_text())
    ours = measured_real("hippocampus").fingerprint
    assert [list(case.spacing) for case in ours.cases.values()] == peer["spacings"]
    assert [[high - low for low, high in case.crop_box] for case in ours.cases.values()] == peer["shapes_after_crop"]
    assert ours.median_relative_size_after_crop == peer["median_relative_size_after_cropping"]
    theirs, summary = peer["foreground_intensity_properties_per_channel"]["0"], ours.channels["MRI"]["arbitrary"]
    for name, tolerance in (("mean", 0.001), ("std", 0.001), ("median", 0.001), ("percentile_00_5", 0.001), ("percentile_99_5", 0.002)):
        assert getattr(summary, name) == pytest.approx(theirs[name], rel=tolerance), name
    assert summary.minimum == theirs["min"] and summary.maximum == pytest.approx(theirs["max"], rel=0.01)


def test_each_case_weighs_the_same_however_large_its_foreground(summarised):
    shape = (12, 12, 12)
    small, large = RNG.integers(0, 100, shape), RNG.integers(500, 1500, shape)
    fingerprint = summarised({"small": (small, boxed(shape, 3)), "large": (large, boxed(shape, 10))}, {"x": 1})
    summary = fingerprint.channels["MR"]["arbitrary"]
    few, many = small[:3, :3, :3].ravel(), large[:10, :10, :10].ravel()
    alike = np.concatenate([np.repeat(few, 1000), np.repeat(many, 27)])
    assert (summary.mean, summary.std) == pytest.approx((alike.mean(), alike.std()))
    expected = np.percentile(alike, [0.5, 50, 99.5], method="inverted_cdf")
    assert [summary.percentile_00_5, summary.median, summary.percentile_99_5] == list(expected)
    assert (summary.cases, summary.minimum, summary.maximum) == (2, alike.min(), alike.max())


def chest(seed):
    rng = np.random.default_rng(seed)
    means = rng.choice([-1000, -850, -100, 45, 400], p=[0.3, 0.2, 0.2, 0.25, 0.05], size=(12, 20, 20))
    return np.rint(rng.normal(means, 20)).clip(-1024, 3071)


def test_kinds_are_summarised_apart_and_in_hu(summarised):
    labels = boxed((12, 20, 20), 9)
    hu, gray = chest(0), np.rint((chest(1).clip(-1250, 250) + 1250) * 0.17)
    fingerprint = summarised({"hu": (hu, labels), "raw": (hu + 1024, labels), "gray": (gray, labels)}, {"x": 1}, ("scan",))
    channel = fingerprint.channels["scan"]
    assert {kind: summary.cases for kind, summary in channel.items()} == {"hu": 2, "windowed": 1}
    inside = hu[labels == 1]
    assert (channel["hu"].mean, channel["hu"].std) == pytest.approx((inside.mean(), inside.std()))
    assert channel["hu"].median == np.percentile(inside, 50, method="inverted_cdf")
    assert (channel["hu"].minimum, channel["hu"].maximum) == (inside.min(), inside.max())
    assert channel["windowed"].mean == pytest.approx(gray[labels == 1].mean())


@pytest.mark.parametrize("offset", [0.0, -1024.0])
def test_the_foreground_is_mended_as_the_volume_is(summarised, offset):
    hu = chest(2)
    hu[:, :3] = -3024
    stored, labels = hu - offset, boxed((12, 20, 20), 9)
    summary = summarised({"a": (stored, labels)}, {"x": 1}, ("CT",)).channels["CT"]["hu"]
    inside = mend_hu(stored)[labels == 1]
    assert inside.min() == -1024 and (stored[labels == 1] - inside).any()
    expected = [inside.mean(), inside.std(), inside.min(), inside.max(), *np.quantile(inside, (0.005, 0.995), method="inverted_cdf")]
    found = [summary.mean, summary.std, summary.minimum, summary.maximum, summary.percentile_00_5, summary.percentile_99_5]
    assert found == pytest.approx(expected)


def test_a_kind_that_dataset_json_gives_is_summarised_apart(summarised):
    labels, hu = boxed((12, 20, 20), 9), chest(3)
    given = {"b": {"CT": "arbitrary"}}
    channel = summarised({"a": (hu, labels), "b": (hu - 50, labels)}, {"x": 1}, ("CT",), intensity_kinds=given).channels["CT"]
    inside = hu[labels == 1]
    assert channel["hu"].median == np.quantile(inside, 0.5, method="inverted_cdf")
    assert channel["arbitrary"].median == np.quantile(inside - 50, 0.5, method="inverted_cdf")


def test_the_order_of_the_cases_changes_nothing(summarised):
    """Not a bit: the plan's `created_from` is a hash of the fingerprint, and workers finish in any order."""
    labels = boxed((12, 20, 20), 9)
    cases = {str(n): (RNG.normal(10**n, 3, labels.shape), boxed(labels.shape, 4 + n)) for n in range(4)}
    forth, back = summarised(cases, {"x": 1}), summarised(dict(reversed(cases.items())), {"x": 1})
    assert forth.channels == back.channels


def test_the_state_does_not_grow_with_voxels_or_cases(make_case, make_described):
    """What the pass gathers: ten times the voxels, then ten times the cases, and not more bins than there may be."""
    dataset = make_described({"x": 1})

    def state(cases: int, edge: int) -> int:
        spread = {}
        for number in range(cases):
            rng = np.random.default_rng(number)
            image, labels = 10.0 ** rng.uniform(3, 7) * rng.random((edge, 100, 100)), np.ones((edge, 100, 100))
            gather(spread, measure_case(make_case(str(number), image, labels), dataset), ("MR",), {})
        histograms = [h for found in spread.values() for h in {id(h): h for h in (found.stored, found.hu)}.values()]
        assert len(histograms) == 1
        return sum(h.bins.nbytes + h.counts.nbytes for h in histograms)

    few, deep, many = state(2, 10), state(2, 100), state(20, 10)
    assert max(deep, many) <= 12 * MOST_BINS
    assert max(deep, many) < 2.5 * few  # bins fill up; 32768 hold any number of values


def test_intensities_of_a_case_take_little_room_in_the_fingerprint(measured_cases):
    labels = boxed((12, 20, 20), 9)
    cases, _ = measured_cases({"a": (RNG.normal(0, 1e4, labels.shape), labels)}, {"x": 1})
    assert len(cases["a"].channels[0].model_dump_json()) < 1000


def test_a_kind_whose_cases_have_no_foreground_is_summarised_from_whole_volumes(summarised):
    image, empty = RNG.integers(0, 90, (4, 5, 6)), np.zeros((4, 5, 6))
    summary = summarised({"a": (image, empty)}, {"x": 1}).channels["MR"]["arbitrary"]
    assert (summary.mean, summary.std) == pytest.approx((image.mean(), image.std()))
    assert (summary.percentile_00_5, summary.percentile_99_5) == (image.min(), image.max())


def test_class_sizes_and_shares(summarised):
    shape = (10, 10, 10)
    image = RNG.integers(1, 90, shape)
    cases = {"a": (image, boxed(shape, 4)), "b": (image, boxed(shape, 2)), "c": (image, boxed(shape, 5, 2))}
    names = {"one": 1, "two": 2, "three": 3}
    classes = summarised(cases, names, spacing=(5.0, 2.0, 2.0)).classes
    one = classes["one"]
    assert (one.annotated, one.cases, one.median_ml, one.share) == pytest.approx((3, 2, (64 + 8) / 2 * 0.02, (64 + 8) / 3 / 1000))
    assert (classes["two"].cases, classes["three"].cases, classes["three"].median_ml) == (1, 0, 0)
    # of a case in which nobody annotated "one" nothing is known about it
    classes = summarised(cases, names, spacing=(5.0, 2.0, 2.0), labels_present={"c": ("two",)}).classes
    assert (classes["one"].annotated, classes["one"].cases, classes["one"].share) == pytest.approx((2, 2, (64 + 8) / 2 / 1000))
    assert (classes["two"].annotated, classes["three"].annotated) == (3, 2)


def test_the_cropped_share_is_the_median_over_the_cases(summarised):
    shape = (10, 10, 10)
    assert summarised({str(n): (boxed(shape, n), boxed(shape, 2)) for n in (2, 5, 10)}, {"x": 1}).median_relative_size_after_crop == 0.125
