"""Tiles cover every voxel, stand where the paper and the peer put them, and weigh what they say."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from autoseg.inference.tiles import axis_weight, covered_weight, pad_to, tile_starts

AXES = st.tuples(st.integers(1, 90), st.integers(0, 150), st.floats(0, 0.9), st.sampled_from(["regular", "even"]))


@given(AXES)
def test_tiles_cover_every_voxel_and_stay_inside(axis):
    patch, extra, overlap, rule = axis
    size = patch + extra
    starts = tile_starts(size, patch, overlap, rule)
    covered = np.zeros(size, int)
    for start in starts:
        assert 0 <= start <= size - patch
        covered[start : start + patch] += 1
    assert covered.min() >= 1
    assert list(starts) == sorted(set(starts))


@given(AXES)
def test_neighbours_share_at_least_the_overlap(axis):
    patch, extra, overlap, rule = axis
    starts = tile_starts(patch + extra, patch, overlap, rule)
    assert max(np.diff(starts), default=0) <= max(patch - round(overlap * patch), (1 - overlap) * patch + 1, 1)


@given(AXES, st.sampled_from(["gaussian", "uniform"]))
def test_the_weighted_mean_of_tiles_of_one_volume_is_the_volume(axis, weighting):
    patch, extra, overlap, rule = axis
    size = patch + extra
    starts = tile_starts(size, patch, overlap, rule)
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    total = np.zeros(size, np.float32)
    for start in starts:
        total[start : start + patch] += values[start : start + patch] * axis_weight(patch, weighting)
    np.testing.assert_allclose(total / covered_weight(size, patch, starts, weighting), values, rtol=1e-5, atol=1e-6)


def test_the_papers_median_shape_has_its_eighteen_tiles():
    """paper.md item 16, in (z, y, x)."""
    starts = [tile_starts(size, patch, 0.5, "regular") for size, patch in ((104, 80), (254, 160), (267, 160))]
    assert starts == [(0, 24), (0, 80, 94), (0, 80, 107)]
    assert math.prod(map(len, starts)) == 18


def test_the_peers_steps_are_equal():
    """nnunet_algorithms.md 5.2; halves round to even."""
    assert tile_starts(110, 64, 0.5, "even") == (0, 23, 46)
    assert tile_starts(64, 64, 0.5, "even") == (0,)
    assert tile_starts(65, 64, 0.5, "even") == (0, 1)
    assert tile_starts(15, 4, 0.5, "even") == (0, 2, 4, 6, 7, 9, 11)  # 1.83 steps
    assert tile_starts(13, 8, 0.5, "even") == (0, 2, 5)  # the middle one at 2.5


def test_an_axis_shorter_than_a_tile_must_be_padded_first():
    with pytest.raises(ValueError, match="shorter"):
        tile_starts(10, 12, 0.5, "regular")


@pytest.mark.parametrize("patch", [(8, 16, 12), (7, 9, 5), (1, 4, 3), (20, 20)])
def test_gaussian_weights_of_the_axes_multiply_to_the_filtered_impulse(patch):
    impulse = np.zeros(patch)
    impulse[tuple(n // 2 for n in patch)] = 1
    expected = gaussian_filter(impulse, [n / 8 for n in patch], mode="constant")
    weight = functools.reduce(np.multiply.outer, [axis_weight(n, "gaussian") for n in patch])
    assert weight.dtype == np.float32
    assert weight.min() > 0
    np.testing.assert_allclose(weight, expected / expected.max(), rtol=1e-5)


def test_gaussian_weight_has_no_zeros_even_where_the_filter_is_cut_off():
    for patch in range(1, 200):
        assert axis_weight(patch, "gaussian").min() > 0


def test_padding_is_symmetric_with_the_odd_voxel_at_the_end():
    image = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5) - 7
    padded, box = pad_to(image, (6, 4, 9), "zero")
    assert padded.shape == (2, 6, 4, 9)
    assert box == ((1, 4), (0, 4), (2, 7))
    np.testing.assert_array_equal(padded[:, 1:4, 0:4, 2:7], image)
    assert padded.sum() == image.sum()


def test_padding_with_the_minimum_repeats_each_lines_smallest_value():
    image = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    padded, _ = pad_to(image, (3, 4, 8), "minimum")
    np.testing.assert_array_equal(padded[..., 0], image.min(-1))
    np.testing.assert_array_equal(padded[..., -2], image.min(-1))


def test_a_large_volume_is_not_copied():
    image = np.zeros((1, 5, 5, 5), np.float32)
    padded, box = pad_to(image, (4, 5, 2), "minimum")
    assert padded is image
    assert box == ((0, 5),) * 3
