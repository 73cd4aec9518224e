"""The streaming histogram: merging is exact and without order, quantiles lie within a bin of numpy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.fingerprint.histogram import MOST_BINS, SHARE, describe, histogram, join, merge, quantiles, weighted

whole = arrays(np.float32, st.integers(1, 40), elements=st.integers(-3000, 60000).map(float))
real = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))
unit = arrays(np.float32, st.integers(1, 40), elements=st.floats(-2, 2, width=32))
parts = st.lists(whole | real | unit, min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(parts)
def test_merging_in_any_order_gives_the_same_as_all_values_at_once(parts):
    histograms = [histogram(p) for p in parts]
    at_once = histogram(np.concatenate(parts))
    assert all(_merge_all(order) == at_once for order in itertools.permutations(histograms))
    assert at_once.counts.sum() == sum(p.size for p in parts)


def test_merging_has_no_order_where_bins_are_too_many():
    """Four volumes of a million values each, whose ranges differ a thousandfold and share the bins."""
    volumes = [10.0**n * np.random.default_rng(n).normal(size=100_000).astype(np.float32) for n in range(4)]
    histograms = [histogram(v) for v in volumes]
    at_once = histogram(np.concatenate(volumes))
    assert all(_merge_all(order) == at_once for order in itertools.permutations(histograms))
    assert MOST_BINS / 2 < len(at_once.bins) <= MOST_BINS
    equal = _merge_all([weighted(h) for h in histograms])
    assert all(_merge_all([weighted(h) for h in order]) == equal for order in itertools.permutations(histograms))
    assert equal.counts.sum() == 4 * SHARE


def _merge_all(histograms):
    merged = histograms[0]
    for h in histograms[1:]:
        merged = merge(merged, h)
    return merged


@settings(max_examples=60, deadline=None)
@given(parts, st.floats(0, 1))
def test_quantiles_of_few_values_are_numpys(parts, share):
    """So few values have a bin of their own each."""
    values = np.concatenate(parts).astype(float)
    [found] = quantiles(_merge_all([histogram(p) for p in parts]), [share])
    # a share that falls between two values may round to either of them; a bin spans some thousandths of its value
    nearby = np.quantile(values, np.clip([share - 1e-9, share, share + 1e-9], 0, 1), method="inverted_cdf")
    assert min(abs(found - near) for near in nearby) <= 2.0**-12 * abs(nearby).max() + 1e-30


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_quantiles_of_many_values_lie_within_a_bin_of_numpys(scale, offset):
    values = (offset + scale * np.random.default_rng(0).normal(size=200_000)).astype(np.float32)
    h = histogram(values)
    low, high = h.edges
    for share in (0.0, 0.005, 0.3, 0.5, 0.7, 0.995, 1.0):
        expected, [found] = np.quantile(values, share, method="inverted_cdf"), quantiles(h, [share])
        at = np.searchsorted(high, expected)
        assert low[at] - 1e-12 <= found <= high[at] + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.lists(whole, min_size=1, max_size=4))
def test_whole_numbers_of_moderate_range_are_counted_exactly(parts):
    parts = [p.clip(-3000, 5000) for p in parts]
    merged = _merge_all([histogram(p) for p in parts])
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    assert merged.whole and np.array_equal(merged.nearest, values) and np.array_equal(merged.counts, counts)
    assert all(np.array_equal(edge, values) for edge in merged.edges)


def test_gray_levels_do_not_coarsen_the_fine_values_of_another_case():
    fine = np.linspace(0, 1, 5000).astype(np.float32)
    merged = merge(histogram(np.array([0.0, 1.0])), histogram(fine))
    assert quantiles(merged, [0.5])[0] == pytest.approx(0.5, abs=2.0**-12)


def test_a_volume_of_small_values_keeps_its_detail_beside_one_a_thousand_times_brighter():
    """Bins of equal width would be 30 wide here."""
    rng = np.random.default_rng(5)
    dim, bright = rng.uniform(0, 120, 100_000), rng.uniform(0, 1e6, 100_000)
    merged = merge(weighted(histogram(dim)), weighted(histogram(bright)))
    expected = np.quantile(np.concatenate([dim, bright]), [0.005, 0.25, 0.75], method="inverted_cdf")
    assert quantiles(merged, [0.005, 0.25, 0.75]) == pytest.approx(list(expected), rel=1e-3)


def test_in_a_mixture_each_histogram_weighs_the_same():
    few, many = np.arange(0, 10), np.repeat(np.arange(1000, 1010), 1000)
    assert quantiles(merge(weighted(histogram(few)), weighted(histogram(many))), [0.25, 0.5, 0.75]) == [4, 9, 1004]


def test_dense_data_agree_with_the_usual_percentiles():
    rng = np.random.default_rng(0)
    ct = np.rint(rng.normal(-200, 400, 200_000)).clip(-1024, 3071)
    expected = np.percentile(ct, [0.5, 50, 99.5])
    assert quantiles(histogram(ct), [0.005, 0.5, 0.995]) == pytest.approx(expected, abs=1)


def test_both_zeros_are_one():
    assert histogram(np.array([0.0, -0.0])) == histogram(np.array([0.0, 0.0]))


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


def test_a_wide_range_does_not_make_a_large_histogram():
    values = np.concatenate([np.zeros(1000), [1e-30, 1e6, -1e30]])
    assert len(histogram(values).bins) == 4
    noise = np.random.default_rng(0).normal(size=300_000) * 10.0 ** np.random.default_rng(1).uniform(-8, 8, 300_000)
    assert len(histogram(noise).bins) <= MOST_BINS
