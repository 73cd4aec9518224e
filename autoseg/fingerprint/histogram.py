"""Streaming statistics of intensities: moments and a histogram that merge, so that memory does not grow with the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoseg.fingerprint.types import ForegroundMeasures, Histogram

MOST_BINS = 8192  # holds all of -1024..3071, and twice that, in whole numbers
FINEST_EXPONENT = -200  # finer than any float32 that differs from 0 in a medical image
SLAB_VOXELS = 1 << 22  # what is looked at at once; bounds temporary memory to some 100 MB


def histogram(values: np.ndarray) -> Histogram:
    """Counts of at least one finite value (any shape), in the finest bins of width 2**exponent that number at most 8192.

    Whole numbers get bins no finer than 1, so they are counted exactly as long as their range is below 8192.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    whole = bool(np.all(values == np.rint(values)))
    low, high = float(values.min()), float(values.max())
    exponent = _exponent(low, high, at_least=0 if whole else _precision(max(abs(low), abs(high))))
    bins = np.floor(np.ldexp(values, -exponent)).astype(np.int64)
    first = int(bins.min())
    return Histogram(exponent=exponent, first=first, counts=np.bincount(bins - first).tolist(), whole=whole)


def _precision(magnitude: float) -> int:
    """The exponent of the last bit of a float32 of this magnitude: finer bins would hold nothing new."""
    return max(FINEST_EXPONENT, math.frexp(magnitude)[1] - 24) if magnitude else FINEST_EXPONENT


def _exponent(low: float, high: float, *, at_least: int) -> int:
    """The smallest exponent, `at_least` or more, with which [low, high] spans at most MOST_BINS bins."""
    exponent = at_least
    if high > low:
        exponent = max(at_least, math.frexp((high - low) / MOST_BINS)[1] - 2)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= MOST_BINS:
        exponent += 1
    return exponent


def merge(one: Histogram, other: Histogram) -> Histogram:
    """The histogram of both sets of values; the order of merging makes no difference."""
    whole = one.whole and other.whole
    # Whole numbers in bins of width 1 are known exactly, so they can follow the other to finer bins.
    finest = [h.exponent for h in (one, other) if whole or not (h.whole and h.exponent == 0)]
    low = min(math.ldexp(h.first, h.exponent) for h in (one, other))
    high = max(math.ldexp(h.first + len(h.counts) - 1, h.exponent) for h in (one, other))
    exponent = _exponent(low, high, at_least=max(finest))
    parts = [_in_bins(h, exponent) for h in (one, other)]
    first = min(start for start, _ in parts)
    counts = np.zeros(max(start + len(c) for start, c in parts) - first)
    for start, part in parts:
        counts[start - first : start - first + len(part)] += part
    return Histogram(exponent=exponent, first=first, counts=counts.tolist(), whole=whole)


def _in_bins(h: Histogram, exponent: int) -> tuple[int, np.ndarray]:
    """First bin and counts of `h` in bins of width 2**exponent."""
    counts = np.asarray(h.counts)
    bins = np.arange(h.first, h.first + len(counts))
    # Finer bins (whole numbers only) start where the value is; coarser ones take neighbours together.
    bins = bins << (h.exponent - exponent) if exponent < h.exponent else bins >> (exponent - h.exponent)
    return int(bins[0]), np.bincount(bins - bins[0], weights=counts)


def quantiles(histograms: Sequence[Histogram], shares: Sequence[float]) -> list[float]:
    """Values below which the given shares (0..1) of the mixture of the histograms lie, each histogram weighing the same.

    The inverse of the distribution function, as `np.quantile(method="inverted_cdf")`; values are taken as spread evenly
    inside a bin, and as exact in bins of whole numbers, so that results lie within one bin of the truth.
    """
    steps = [_distribution(h) for h in histograms]
    low = min(edges[0] for edges, _, _ in steps)
    high = max(edges[-1] for edges, _, _ in steps)
    return [_inverse(steps, share, low, high) for share in shares]


def _distribution(h: Histogram) -> tuple[np.ndarray, np.ndarray, bool]:
    """Edges of the bins, share of the values below each edge, and whether a bin's values all lie on its lower edge."""
    counts = np.asarray(h.counts)
    cumulated = np.concatenate([[0.0], np.cumsum(counts)])
    edges = np.ldexp(np.arange(h.first, h.first + len(counts) + 1, dtype=float), h.exponent)
    return edges, cumulated / cumulated[-1], h.whole and h.exponent == 0


def _share_up_to(step: tuple[np.ndarray, np.ndarray, bool], value: float) -> float:
    edges, cumulated, exact = step
    if exact:
        return float(cumulated[np.clip(math.floor(value - edges[0]) + 1, 0, len(cumulated) - 1)])
    return float(np.interp(value, edges, cumulated))


def _inverse(steps: list[tuple[np.ndarray, np.ndarray, bool]], share: float, low: float, high: float) -> float:
    """The smallest value up to which `share` of the mixture lies, by bisection."""
    wanted = share * (1 - 1e-12) * len(steps)  # rounding of sums must not push a step past its value
    if all(exact for _, _, exact in steps):
        low, high = math.floor(low) - 1, math.ceil(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if sum(_share_up_to(s, middle) for s in steps) >= wanted else (middle, high)
        return float(high)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(_share_up_to(s, middle) for s in steps) >= wanted else (middle, high)
    return high


def describe(voxels: np.ndarray, mask: np.ndarray | None = None) -> ForegroundMeasures | None:
    """Count, moments, extremes and histogram of finite voxels (z, y, x), those in the mask if one is given; None if there are none."""
    slices = max(1, SLAB_VOXELS // max(1, voxels[0].size))
    total = None
    for start in range(0, len(voxels), slices):
        slab = voxels[start : start + slices]
        values = slab.ravel() if mask is None else slab[mask[start : start + slices]]
        if values.size:
            part = _describe(values.astype(np.float64))
            total = part if total is None else join(total, part)
    return total


def _describe(values: np.ndarray) -> ForegroundMeasures:
    return ForegroundMeasures(
        count=values.size,
        mean=float(values.mean()),
        std=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        histogram=histogram(values),
    )


def join(one: ForegroundMeasures, other: ForegroundMeasures) -> ForegroundMeasures:
    """The measures of both sets of values."""
    count = one.count + other.count
    distance = other.mean - one.mean
    variance = (one.count * one.std**2 + other.count * other.std**2 + distance**2 * one.count * other.count / count) / count
    return ForegroundMeasures(
        count=count,
        mean=one.mean + distance * other.count / count,
        std=math.sqrt(variance),
        minimum=min(one.minimum, other.minimum),
        maximum=max(one.maximum, other.maximum),
        histogram=merge(one.histogram, other.histogram),
    )
