"""Intensity steps against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.planning.schema import Clip, Nothing, Rescale, ZScore
from autoseg.preprocessing.intensity import apply_steps, mean_and_std

GRAY = Rescale(do="rescale", low=None, high=None, to=(0, 255), round=True)
OWN = ZScore(do="zscore", mean=None, std=None, mask="all")


def test_the_papers_steps():
    """Clip to -1250..250, then 255 (x - min) / (max - min), rounded (paper.md items 4, 5)."""
    hu = np.array([[[-2000.0, -1250, -500, 100, 3000]]])
    steps = [Clip(do="clip", low=-1250, high=250), GRAY]
    wanted = np.rint(255 * (np.clip(hu, -1250, 250) + 1250) / 1500)
    result = apply_steps(steps, hu, mask=None)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, wanted)
    assert hu.min() == -2000


def test_zscore_of_the_volume_and_of_the_plan():
    values = np.random.default_rng(0).normal(1000, 20, (3, 4, 5)).astype(np.float32)
    own = apply_steps([OWN], values, mask=None)
    np.testing.assert_allclose(own, (values - values.mean(dtype=float)) / values.std(dtype=float), atol=1e-5)
    given = apply_steps([ZScore(do="zscore", mean=990.0, std=10.0, mask="all")], values, mask=None)
    np.testing.assert_allclose(given, (values - 990) / 10, rtol=1e-5, atol=1e-5)


def test_zscore_in_the_mask_leaves_the_rest():
    values = np.array([[[0.0, 1, 3, 5, 0]]])
    mask = np.array([[[False, True, True, True, False]]])
    step = ZScore(do="zscore", mean=None, std=None, mask="nonzero")
    result = apply_steps([step], values, mask=mask)
    np.testing.assert_allclose(result, [[[0, -2 / np.sqrt(8 / 3), 0, 2 / np.sqrt(8 / 3), 0]]], atol=1e-6)
    np.testing.assert_allclose(apply_steps([step], values, mask=None), apply_steps([OWN], values, mask=None))
    np.testing.assert_array_equal(apply_steps([OWN], values, mask=mask), apply_steps([OWN], values, mask=None))


@pytest.mark.parametrize("step", [GRAY, OWN, ZScore(do="zscore", mean=None, std=None, mask="nonzero")])
def test_a_constant_volume_becomes_zero(step):
    values = np.full((4, 40, 40), 100.1, np.float32)
    assert not apply_steps([step], values, mask=np.ones(values.shape, bool)).any()


def test_rescale_between_given_values_and_nothing():
    values = np.array([[[0.0, 51, 255]]])
    step = Rescale(do="rescale", low=0, high=255, to=(-1, 1), round=False)
    np.testing.assert_allclose(apply_steps([step], values, mask=None), [[[-1, -0.6, 1]]], atol=1e-6)
    np.testing.assert_array_equal(apply_steps([Nothing(do="none")], values, mask=None), values)


def test_statistics_of_large_numbers_are_exact():
    values = (np.random.default_rng(0).normal(0, 1, 700_000) + 30_000).astype(np.float32).reshape(7, 100, 1000)
    mean, std = mean_and_std(values[:, ::-1])
    assert mean == pytest.approx(values.mean(dtype=float), rel=1e-12)
    assert std == pytest.approx(values.std(dtype=float), rel=1e-9)
