"""Intensity transforms do what batchgenerators' and the peer's do with the same drawn numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from autoseg.training.augmentation import intensity, pointwise
from autoseg.training.augmentation.drawing import Change

SHAPE = (21, 34, 27)


@pytest.fixture
def image() -> np.ndarray:
    """Two channels that differ in mean, deviation and sign."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(2, *SHAPE)) * [[[[1.0]]], [[[30.0]]]] + [[[[0.0]]], [[[-200.0]]]]).astype(np.float32)


@pytest.fixture
def drawn(monkeypatch):
    """What batchgenerators draws from any generator."""

    def be(value: float) -> None:
        monkeypatch.setattr(np.random, "uniform", lambda low=0.0, high=1.0, size=None: value)
        monkeypatch.setattr(np.random, "random", lambda size=None: 0.9)  # above 1/2: from 1 upwards, which `value` need not obey
        monkeypatch.setattr(random, "uniform", lambda low, high: value)

    return be


def changed(image, change, conventions="batchgenerators", **other) -> np.ndarray:
    new = image.copy()
    intensity.change_intensity(new, [change], conventions, **other)
    return new


def close(ours, theirs, image) -> None:
    """Within 1e-5 of each channel's deviation."""
    assert np.all(np.abs(ours - theirs) <= 1e-5 * np.maximum(image.std((1, 2, 3), keepdims=True), 1) * 10)
    assert np.max(np.abs(ours - theirs) / image.std((1, 2, 3), keepdims=True)) < 1e-4


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.4, 3.0])
def test_contrast_equals_batchgenerators(image, factor):
    from batchgenerators.augmentations.color_augmentations import augment_contrast

    close(changed(image, Change("contrast", (factor, factor))), augment_contrast(image.astype(float), lambda: factor), image)


@pytest.mark.parametrize("factor", [0.5, 1.9])
def test_brightness_equals_batchgenerators(image, drawn, factor):
    from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative

    drawn(factor)
    close(changed(image, Change("brightness", (factor, factor))), augment_brightness_multiplicative(image.astype(float)), image)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("invert", [False, True])
def test_gamma_equals_batchgenerators(image, drawn, exponent, invert):
    from batchgenerators.augmentations.color_augmentations import augment_gamma

    drawn(exponent)
    theirs = augment_gamma(image.astype(float), (0.5, 2), invert, per_channel=True, retain_stats=True)
    close(changed(image, Change("gamma", (exponent, exponent), invert)), theirs, image)


def test_noise_equals_batchgenerators(image, drawn, monkeypatch):
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_noise

    noise = iter(intensity.normal_noise(5, (2, *SHAPE)).astype(float))
    drawn(0.07)
    monkeypatch.setattr(np.random, "normal", lambda mean, deviation, size: next(noise) * deviation)
    monkeypatch.setattr(np.random, "uniform", lambda: 0.0)
    theirs = augment_gaussian_noise(image.astype(float), (0, 1))
    close(changed(image, Change("noise", (0.07, 0.07), seed=5)), theirs, image)


def test_noise_is_normal_and_repeats():
    noise = intensity.normal_noise(3, (60, 60, 60))
    assert noise.dtype == np.float32 and abs(noise.mean()) < 0.01 and noise.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(noise) > 1.96) == pytest.approx(0.05, abs=0.003)
    np.testing.assert_array_equal(noise, intensity.normal_noise(3, (60, 60, 60)))
    assert not np.array_equal(noise, intensity.normal_noise(4, (60, 60, 60)))


@pytest.mark.parametrize("sigmas", [(0.5, 0.8, 1.0), (2.0, 0.6, 1.3)])
def test_blur_equals_batchgenerators(image, monkeypatch, sigmas):
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur

    given = iter(sigmas * 2)
    monkeypatch.setattr(random, "uniform", lambda low, high: next(given))
    theirs = augment_gaussian_blur(image.astype(float), (0.1, 3.0), per_channel=True, different_sigma_per_axis=True)
    close(changed(image, Change("blur", (sigmas, sigmas))), theirs, image)


@pytest.mark.parametrize("factor", [0.5, 0.63, 0.9, 1.0])
def test_low_resolution_equals_batchgenerators(image, factor):
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy

    theirs = augment_linear_downsampling_scipy(image.astype(float), (factor, factor), order_downsample=0, order_upsample=1)
    close(changed(image, Change("low_resolution", ((factor,) * 3,) * 2)), theirs, image)


def test_low_resolution_leaves_an_axis_alone(image):
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy

    theirs = augment_linear_downsampling_scipy(image.astype(float), (0.6, 0.6), order_downsample=0, order_upsample=1, ignore_axes=(0,))
    close(changed(image, Change("low_resolution", ((1.0, 0.6, 0.6),) * 2)), theirs, image)


# The peer's forms (section 4.6), written out anew


@pytest.mark.parametrize(("sigma", "taps"), [(0.5, 3), (0.6, 5), (0.8, 5), (1.0, 7)])
def test_blur_equals_the_peers(image, sigma, taps):
    """A kernel of 6 sigma + 1/2 voxels, rounded to the nearest odd number; mirrored at the outermost voxels."""
    steps = np.arange(taps) - taps // 2
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    expected = image.astype(float)
    for axis in (1, 2, 3):
        widths = [(taps // 2,) * 2 if axis == a else (0, 0) for a in range(4)]
        padded = np.pad(expected, widths, "reflect")
        expected = sum(w * np.take(padded, np.arange(image.shape[axis]) + k, axis) for k, w in enumerate(kernel / kernel.sum()))
    close(changed(image, Change("blur", ((sigma,) * 3,) * 2), "batchgeneratorsv2"), expected, image)


@pytest.mark.parametrize("factor", [0.5, 0.71, 0.97])
def test_low_resolution_equals_the_peers(image, factor):
    import torch
    from torch.nn.functional import interpolate

    coarse = interpolate(torch.from_numpy(image)[None], [round(n * factor) for n in SHAPE], mode="nearest-exact")
    expected = interpolate(coarse, SHAPE, mode="trilinear")[0].numpy()
    close(changed(image, Change("low_resolution", ((factor,) * 3,) * 2), "batchgeneratorsv2"), expected, image)


@pytest.mark.parametrize("invert", [False, True])
def test_gamma_equals_the_peers(image, invert):
    expected = []
    for x in -image.astype(float) if invert else image.astype(float):
        bent = ((x - x.min()) / np.ptp(x)) ** 1.3 * np.ptp(x) + x.min()
        expected.append((bent - bent.mean()) * (x.std(ddof=1) / bent.std(ddof=1)) + x.mean())
    close(changed(image, Change("gamma", (1.3, 1.3), invert)), -np.array(expected) if invert else np.array(expected), image)


# What we promise beside


def test_a_channel_that_was_not_drawn_stays(image):
    for change in (Change("contrast", (None, 2.0)), Change("noise", (None, 0.1), seed=1), Change("blur", (None, (1.0, 1.0, 1.0)))):
        new = changed(image, change)
        np.testing.assert_array_equal(new[0], image[0])
        assert not np.array_equal(new[1], image[1])


def test_known_statistics_serve_the_first_contrast_only(image):
    from autoseg.preprocessing.store import ChannelStatistics

    known = [ChannelStatistics(1.0, 1.0, -1.5, 1.5), ChannelStatistics(-190.0, 30.0, -250.0, -150.0)]
    new = changed(image, Change("contrast", (2.0, 2.0)), known=known)
    np.testing.assert_allclose(new[0], np.clip((image[0] - 1) * 2 + 1, -1.5, 1.5), atol=1e-5)
    twice, once = image.copy(), image.copy()
    intensity.change_intensity(twice, [Change("brightness", (1.0, 1.0)), Change("contrast", (2.0, 2.0))], "batchgenerators", known)
    intensity.change_intensity(once, [Change("contrast", (2.0, 2.0))], "batchgenerators")
    np.testing.assert_allclose(twice, once, atol=1e-5)


def test_a_constant_channel_survives_everything():
    flat = np.full((1, 6, 7, 8), 3.0, np.float32)
    for change in (Change("contrast", (2.0,)), Change("gamma", (0.7,)), Change("gamma", (0.7,), invert=True)):
        np.testing.assert_allclose(changed(flat, change), 3.0, atol=1e-6)


@pytest.mark.parametrize("exponent", [0.5, 0.7, 1.0, 1.5, 2.2])
def test_powers_are_exact_to_a_few_millionths(exponent):
    t = np.concatenate([np.linspace(0, 1, 100_001), np.logspace(-12, 0, 1000)]).astype(np.float32)
    new = t.copy()
    pointwise.bend(new, np.float32(0), np.float32(1), np.float32(exponent))
    np.testing.assert_allclose(new, t.astype(float) ** exponent, rtol=5e-6, atol=1e-15)


def test_moments_are_numpys(image):
    mean, deviation, low, high = pointwise.moments(image[1].reshape(-1))
    assert mean == pytest.approx(image[1].mean(dtype=float), rel=1e-6)
    assert deviation == pytest.approx(image[1].std(dtype=float), rel=1e-5)
    assert (low, high) == (image[1].min(), image[1].max())
