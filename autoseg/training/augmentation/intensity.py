"""Intensity transforms on the CPU, in float32 and in place, with numbers that were drawn before.

Sources: paper.md item 10; the peer's section 4.6. Where batchgenerators and batchgeneratorsv2 differ, `conventions` says which holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from autoseg.training.augmentation import pointwise
from autoseg.training.augmentation.drawing import Change
from autoseg.training.augmentation.lines import Band, along_axes, coarse_band, gaussian_band


class Statistics(Protocol):
    """Of the volume that a channel belongs to."""

    mean: float
    minimum: float
    maximum: float


def change_intensity(image: np.ndarray, changes: Sequence[Change], conventions: str, known: Sequence[Statistics] | None = None) -> None:
    """Change an image, contiguous float32 (C, z, y, x), in place and in this order.

    Args:
        known: what a first contrast takes for each channel's mean and range; None: the image's own.
    """
    for number, change in enumerate(changes):
        if change.do == "noise":
            _add_noise(image, change)
            continue
        for channel, value in enumerate(change.values):
            if value is None:
                continue
            if change.do == "contrast":
                contrast(image[channel], value, known[channel] if known is not None and number == 0 else None)
            elif change.do == "gamma":
                gamma(image[channel], value, invert=change.invert)
            else:
                _OTHERS[change.do](image[channel], value, conventions)


def contrast(values: np.ndarray, factor: float, known: Statistics | None = None) -> None:
    """Stretch about the mean, within the former range."""
    flat = values.reshape(-1)
    mean, _, low, high = pointwise.moments(flat) if known is None else (known.mean, 0, known.minimum, known.maximum)
    pointwise.stretch(flat, np.float32(factor), np.float32(mean * (1 - factor)), np.float32(low), np.float32(high))


def gamma(values: np.ndarray, exponent: float, *, invert: bool = False) -> None:
    """The range's share to a power; mean and standard deviation stay. `invert`: of the negative image."""
    flat = values.reshape(-1)
    if invert:
        pointwise.scale(flat, np.float32(-1), np.float32(0))
    mean, deviation, low, high = pointwise.moments(flat)
    if high > low:
        pointwise.bend(flat, low, high - low, np.float32(exponent))
        now_mean, now_deviation, _, _ = pointwise.moments(flat)
        factor = deviation / (now_deviation + 1e-8)
        sign = -1 if invert else 1
        pointwise.scale(flat, np.float32(sign * factor), np.float32(sign * (mean - now_mean * factor)))
    elif invert:
        pointwise.scale(flat, np.float32(-1), np.float32(0))


def brightness(values: np.ndarray, factor: float, _conventions: str = "") -> None:
    """Multiply."""
    pointwise.scale(values.reshape(-1), np.float32(factor), np.float32(0))


def blur(values: np.ndarray, sigmas: Sequence[float], conventions: str) -> None:
    """Gaussian smoothing, sigmas in voxels (z, y, x); 0 leaves an axis as it is."""
    values[:] = along_axes(values, blur_bands(values.shape, sigmas, conventions))


def blur_bands(shape: Sequence[int], sigmas: Sequence[float], conventions: str) -> list[Band | None]:
    """batchgenerators: 4 sigmas, edge voxels repeated; batchgeneratorsv2: about 3, mirrored at the edge voxels."""

    def band(length: int, sigma: float) -> Band | None:
        if sigma == 0:
            return None
        if conventions == "batchgenerators":
            return gaussian_band(length, sigma, beyond="symmetric", radius=int(4 * sigma + 0.5))
        return gaussian_band(length, sigma, beyond="mirror", radius=_odd(6 * sigma + 0.5) // 2)

    return [band(length, sigma) for length, sigma in zip(shape, sigmas, strict=True)]


def _odd(number: float) -> int:
    """The nearest odd whole number."""
    nearest = round(number)
    return nearest if nearest % 2 else nearest + (1 if number >= nearest else -1)


def low_resolution(values: np.ndarray, factors: Sequence[float], _conventions: str = "") -> None:
    """Sampled coarser by these factors (z, y, x), nearest voxel, and brought back linearly."""
    values[:] = along_axes(values, low_resolution_bands(values.shape, factors))


def low_resolution_bands(shape: Sequence[int], factors: Sequence[float]) -> list[Band | None]:
    """One an axis; an axis that keeps its voxels has none."""
    coarse = [max(round(length * factor), 1) for length, factor in zip(shape, factors, strict=True)]
    return [None if fewer == length else coarse_band(length, fewer) for length, fewer in zip(shape, coarse, strict=True)]


def normal_noise(seed: int, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 noise."""
    return np.random.Generator(np.random.SFC64(seed)).standard_normal(tuple(shape), np.float32)


def _add_noise(image: np.ndarray, change: Change) -> None:
    """Gaussian noise, another for each channel."""
    noise = normal_noise(change.seed, (sum(value is not None for value in change.values), *image.shape[1:]))
    for values, each, deviation in zip(
        [image[c] for c, value in enumerate(change.values) if value is not None],
        noise,
        [value for value in change.values if value is not None],
        strict=True,
    ):
        pointwise.add(values.reshape(-1), each.reshape(-1), np.float32(deviation))


_OTHERS: dict[str, Callable[[np.ndarray, float, str], None]] = {"brightness": brightness, "blur": blur, "low_resolution": low_resolution}
