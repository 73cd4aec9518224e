"""Streaming histograms: merging is exact and without order, quantiles lie within a bin of numpy's."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.fingerprint.histogram import MOST_BINS, describe, histogram, join, merge, quantiles
from autoseg.fingerprint.types import Histogram

whole = arrays(np.float32, st.integers(1, 40), elements=st.integers(-3000, 60000).map(float))
real = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))
unit = arrays(np.float32, st.integers(1, 40), elements=st.floats(-2, 2, width=32))
parts = st.lists(whole | real | unit, min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(parts)
def test_merging_in_any_order_gives_the_same(parts):
    histograms = [histogram(p) for p in parts]
    one, *others = [_merge_all(order) for order in itertools.permutations(histograms)]
    assert all(other == one for other in others)
    if len(parts) == 3:
        a, b, c = histograms
        assert merge(a, merge(b, c)) == one
    assert sum(one.counts) == sum(p.size for p in parts)
    assert len(one.counts) <= MOST_BINS


def _merge_all(histograms):
    merged = histograms[0]
    for h in histograms[1:]:
        merged = merge(merged, h)
    return merged


@settings(max_examples=60, deadline=None)
@given(parts, st.floats(0, 1))
def test_quantiles_lie_within_one_bin_of_numpys(parts, share):
    merged = _merge_all([histogram(p) for p in parts])
    expected = np.quantile(np.concatenate(parts).astype(float), share, method="inverted_cdf")
    [found] = quantiles([merged], [share])
    bin_width = 0 if merged.whole and merged.exponent == 0 else 2.0**merged.exponent
    # a share that falls between two values may round to either of them
    nearby = np.quantile(np.concatenate(parts).astype(float), np.clip([share - 1e-9, share + 1e-9], 0, 1), method="inverted_cdf")
    assert min(expected, *nearby) - bin_width <= found <= max(expected, *nearby) + bin_width


@settings(max_examples=40, deadline=None)
@given(st.lists(whole, min_size=1, max_size=4))
def test_whole_numbers_of_moderate_range_are_counted_exactly(parts):
    parts = [p.clip(-3000, 5000) for p in parts]
    merged = _merge_all([histogram(p) for p in parts])
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    assert (merged.exponent, merged.whole, merged.first) == (0, True, values[0])
    assert {merged.first + i: c for i, c in enumerate(merged.counts) if c} == dict(zip(values, counts, strict=True))


def test_gray_levels_do_not_coarsen_the_fine_values_of_another_case():
    fine = np.linspace(0, 1, 5000).astype(np.float32)
    merged = merge(histogram(np.array([0.0, 1.0])), histogram(fine))
    assert quantiles([merged], [0.5])[0] == pytest.approx(0.5, abs=2.0**-12)


def test_in_a_mixture_each_histogram_weighs_the_same():
    few, many = np.arange(0, 10), np.repeat(np.arange(1000, 1010), 1000)
    assert quantiles([histogram(few), histogram(many)], [0.25, 0.5, 0.75]) == [4, 9, 1004]


def test_dense_data_agree_with_the_usual_percentiles():
    rng = np.random.default_rng(0)
    ct = np.rint(rng.normal(-200, 400, 200_000)).clip(-1024, 3071)
    expected = np.percentile(ct, [0.5, 50, 99.5])
    assert quantiles([histogram(ct)], [0.005, 0.5, 0.995]) == pytest.approx(expected, abs=1)


def test_describe_goes_slab_by_slab_and_gives_numpys_moments(monkeypatch):
    rng = np.random.default_rng(1)
    voxels = rng.normal(1e5, 30, (11, 7, 5)).astype(np.float32)
    mask = rng.random(voxels.shape) < 0.3
    mask[4:6] = False
    at_once = describe(voxels, mask)
    monkeypatch.setattr("autoseg.fingerprint.histogram.SLAB_VOXELS", 70)
    found = describe(voxels, mask)
    values = voxels[mask].astype(float)
    assert (found.count, found.minimum, found.maximum) == (values.size, values.min(), values.max())
    assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()), rel=1e-12)
    assert found.histogram == at_once.histogram
    assert describe(voxels, np.zeros_like(mask)) is None


def test_joined_measures_are_those_of_all_values():
    a, b = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[100.0]]])
    both = join(describe(a), describe(b))
    values = np.array([1, 2, 4, 100])
    assert (both.count, both.mean, both.std) == pytest.approx((4, values.mean(), values.std()))


@settings(max_examples=40, deadline=None)
@given(whole | real)
def test_a_histogram_survives_json_on_one_line(values):
    h = histogram(values)
    text = json.dumps(h.model_dump(), indent=2)
    assert Histogram.model_validate(json.loads(text)) == h
    assert text.count("\n") == 5


def test_a_wide_range_does_not_make_a_large_histogram():
    values = np.concatenate([np.zeros(1000), [1e6]])
    h = histogram(values)
    assert len(h.counts) <= MOST_BINS and len(json.dumps(h.model_dump())) < 200
