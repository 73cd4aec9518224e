"""Cases to fingerprint: each case weighs the same, and the peer's own numbers come out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autoseg.fingerprint.histogram import describe
from autoseg.fingerprint.kinds import mend_hu
from autoseg.fingerprint.merge import mended, summarise

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
    for name, tolerance in (("mean", 0.001), ("std", 0.001), ("median", 0.002), ("percentile_00_5", 0.02), ("percentile_99_5", 0.002)):
        assert getattr(summary, name) == pytest.approx(theirs[name], rel=tolerance), name
    assert summary.minimum == theirs["min"] and summary.maximum == pytest.approx(theirs["max"], rel=0.01)


def test_each_case_weighs_the_same_however_large_its_foreground(measured_cases):
    shape = (12, 12, 12)
    small, large = RNG.integers(0, 100, shape), RNG.integers(500, 1500, shape)
    cases, dataset = measured_cases({"small": (small, boxed(shape, 3)), "large": (large, boxed(shape, 10))}, {"x": 1})
    summary = summarise(cases, dataset).channels["MR"]["arbitrary"]
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


def test_kinds_are_summarised_apart_and_in_hu(measured_cases):
    labels = boxed((12, 20, 20), 9)
    hu, gray = chest(0), np.rint((chest(1).clip(-1250, 250) + 1250) * 0.17)
    cases, dataset = measured_cases({"hu": (hu, labels), "raw": (hu + 1024, labels), "gray": (gray, labels)}, {"x": 1}, ("scan",))
    fingerprint = summarise(cases, dataset)
    channel = fingerprint.channels["scan"]
    assert {kind: summary.cases for kind, summary in channel.items()} == {"hu": 2, "windowed": 1}
    inside = hu[labels == 1]
    assert (channel["hu"].mean, channel["hu"].std) == pytest.approx((inside.mean(), inside.std()))
    assert channel["hu"].median == np.percentile(inside, 50, method="inverted_cdf")
    assert (channel["hu"].minimum, channel["hu"].maximum) == (inside.min(), inside.max())
    assert channel["windowed"].mean == pytest.approx(gray[labels == 1].mean())
    assert summarise(fingerprint.cases, dataset) == fingerprint  # measures of an earlier fingerprint give the same


@pytest.mark.parametrize("offset", [0.0, -1024.0])
def test_foreground_measures_are_mended_as_the_volume_is(offset):
    hu = chest(2)
    hu[:, :3] = -3024
    stored = hu - offset
    found = mended(describe(stored), offset)
    wanted = describe(mend_hu(stored))
    assert found.histogram == wanted.histogram
    assert (found.mean, found.std, found.minimum, found.maximum) == pytest.approx((wanted.mean, wanted.std, wanted.minimum, wanted.maximum))


def test_a_kind_whose_cases_have_no_foreground_is_summarised_from_whole_volumes(measured_cases):
    image, empty = RNG.integers(0, 90, (4, 5, 6)), np.zeros((4, 5, 6))
    cases, dataset = measured_cases({"a": (image, empty)}, {"x": 1})
    summary = summarise(cases, dataset).channels["MR"]["arbitrary"]
    assert (summary.mean, summary.std) == pytest.approx((image.mean(), image.std()))
    assert (summary.percentile_00_5, summary.percentile_99_5) == (image.min(), image.max())


def test_class_sizes_and_shares(measured_cases):
    shape = (10, 10, 10)
    image = RNG.integers(1, 90, shape)
    cases, dataset = measured_cases(
        {"a": (image, boxed(shape, 4)), "b": (image, boxed(shape, 2)), "c": (image, boxed(shape, 5, 2))},
        {"one": 1, "two": 2, "three": 3},
        spacing=(5.0, 2.0, 2.0),
    )
    classes = summarise(cases, dataset).classes
    one = classes["one"]
    assert (one.cases, one.median_ml, one.share) == pytest.approx((2, (64 + 8) / 2 * 0.02, (64 + 8) / 3 / 1000))
    assert (classes["two"].cases, classes["three"].cases, classes["three"].median_ml) == (1, 0, 0)


def test_the_cropped_share_is_the_median_over_the_cases(measured_cases):
    shape = (10, 10, 10)
    cases, dataset = measured_cases({str(n): (boxed(shape, n), boxed(shape, 2)) for n in (2, 5, 10)}, {"x": 1})
    assert summarise(cases, dataset).median_relative_size_after_crop == 0.125
