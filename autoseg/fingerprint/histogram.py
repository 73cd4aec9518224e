"""Streaming statistics of intensities: moments, and a histogram that merges, so that memory does not grow with the data.

A float32 whose sign is set apart is a whole number that grows with the value, so its leading bits are a bin: narrow near 0 and
of the same relative width everywhere. Bins are as narrow as their number allows: whole numbers as CT has them are told apart. So
volumes whose ranges differ a thousandfold share one histogram, and none loses its detail to another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.types import ForegroundMeasures

MOST_BINS = 1 << 15  # of a histogram: 384 kB, whatever went into it
MOST_SPAN = 1 << 22  # bins between the lowest and the highest, empty ones too; bounds what counting takes
SLAB_VOXELS = 1 << 22  # what is looked at at once; bounds temporary memory to some 100 MB
SHARE = 1 << 40  # what the counts of a weighted histogram sum to: whole numbers, whose sums don't depend on their order


@dataclass(frozen=True)
class Histogram:
    """How many values have which leading bits.

    shift: how many of a float32's last bits are dropped.
    bins: int32, ascending, those that hold anything: the leading bits without the sign, and the sign before them.
    counts: int64, of each bin.
    whole: whether all values are whole numbers.
    """

    shift: int
    bins: np.ndarray
    counts: np.ndarray
    whole: bool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and (
            (self.shift, self.whole) == (other.shift, other.whole)
            and np.array_equal(self.bins, other.bins)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None

    @property
    def nearest(self) -> np.ndarray:
        """Of each bin the value nearest to 0."""
        return np.sign(self.bins) * _magnitudes(np.abs(self.bins), self.shift)

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest value that each bin can hold."""
        inner, outer = self.nearest, _magnitudes(np.abs(self.bins) + 1, self.shift)
        if self.whole:
            outer = np.maximum(outer - 1, np.abs(inner))
        elif self.shift == 0:
            outer = np.abs(inner)
        outer = np.where(self.bins < 0, -outer, outer)
        return np.minimum(inner, outer), np.maximum(inner, outer)


@dataclass(frozen=True)
class Intensities:
    """A set of values: how many, their moments, extremes and histogram."""

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float
    histogram: Histogram

    def measures(self) -> ForegroundMeasures:
        """What the fingerprint keeps of it."""
        return ForegroundMeasures(count=self.count, mean=self.mean, std=self.std, minimum=self.minimum, maximum=self.maximum)


def histogram(values: np.ndarray) -> Histogram:
    """Of at least one finite value, any shape; values are taken as float32."""
    values = np.asarray(values, dtype=np.float32).ravel()
    places = _ordered(values)
    low, high = int(places.min()), int(places.max())
    shift = 0
    while _span(low, high, shift) > MOST_SPAN:
        shift += 1
    places = _coarser(places, shift)
    low, high = int(places.min()), int(places.max())
    if high - low < 8 * values.size:
        every = np.bincount(places - low)
        bins = np.flatnonzero(every)
        counts, bins = every[bins], bins + low
    else:
        bins, counts = np.unique(places, return_counts=True)
    return _bounded(shift, bins.astype(np.int32), counts.astype(np.int64), bool(np.all(values == np.rint(values))))


def merge(one: Histogram, other: Histogram) -> Histogram:
    """The histogram of both sets of values; the order of merging makes no difference."""
    shift = max(one.shift, other.shift)
    bins = np.concatenate([_coarser(h.bins, shift - h.shift) for h in (one, other)])
    return _bounded(shift, *_gathered(bins, np.concatenate([one.counts, other.counts])), one.whole and other.whole)


def weighted(h: Histogram) -> Histogram:
    """The same with counts that sum to `SHARE`, so that sets of different size weigh the same when they are merged."""
    upto = np.cumsum(h.counts)
    return Histogram(h.shift, h.bins, np.diff(np.rint(upto / upto[-1] * SHARE).astype(np.int64), prepend=0), h.whole)


def _ordered(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of the float32 values; equal values, equal numbers, and 0 for both zeros."""
    bits = values.view(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _magnitudes(places: np.ndarray, shift: int) -> np.ndarray:
    bits = np.minimum(places.astype(np.int64) << shift, 0x7F7FFFFF)  # the largest float32
    return bits.astype(np.int32).view(np.float32).astype(float)


def _coarser(places: np.ndarray, bits: int) -> np.ndarray:
    """Places without their last bits, towards 0."""
    return np.where(places < 0, -(-places >> bits), places >> bits) if bits else places


def _span(low: int, high: int, shift: int) -> int:
    low, high = (-(-place >> shift) if place < 0 else place >> shift for place in (low, high))
    return high - low + 1


def _gathered(bins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each bin once, ascending, with the sum of its counts."""
    order = np.argsort(bins, kind="stable")
    bins, counts = bins[order], counts[order]
    first = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    return bins[first], np.add.reduceat(counts, first)


def _bounded(shift: int, bins: np.ndarray, counts: np.ndarray, whole: bool) -> Histogram:
    """In the narrowest bins that are few enough: a rule on the set of values alone, whichever way it came together."""
    while len(bins) > MOST_BINS or int(bins[-1]) - int(bins[0]) >= MOST_SPAN:
        shift += 1
        bins, counts = _gathered(_coarser(bins, 1), counts)
    return Histogram(shift, bins, counts, whole)


def quantiles(h: Histogram, shares: Sequence[float]) -> list[float]:
    """Values up to which the given shares (0..1) lie, as `np.quantile(method="inverted_cdf")` has them.

    Values are taken as spread evenly inside a bin, so that results lie within one bin of the truth.
    """
    low, high = h.edges
    upto = np.cumsum(h.counts)
    found = []
    for share in shares:
        wanted = share * float(upto[-1]) * (1 - 1e-12)  # rounding must not push a step past its value
        place = min(int(np.searchsorted(upto, wanted)), len(upto) - 1)
        inside = (wanted - (float(upto[place]) - float(h.counts[place]))) / float(h.counts[place])
        found.append(float(low[place] + min(max(inside, 0.0), 1.0) * (high[place] - low[place])))
    return found


def describe(voxels: np.ndarray, mask: np.ndarray | None = None) -> Intensities | None:
    """Count, moments, extremes and histogram of finite voxels (z, y, x), those in the mask if one is given; None if there are none."""
    slices = max(1, SLAB_VOXELS // max(1, voxels[0].size))
    total = None
    for start in range(0, len(voxels), slices):
        slab = voxels[start : start + slices]
        values = slab.ravel() if mask is None else slab[mask[start : start + slices]]
        if values.size:
            part = _describe(values)
            total = part if total is None else join(total, part)
    return total


def _describe(values: np.ndarray) -> Intensities:
    precise = values.astype(np.float64)
    return Intensities(
        count=values.size,
        mean=float(precise.mean()),
        std=float(precise.std()),
        minimum=float(precise.min()),
        maximum=float(precise.max()),
        histogram=histogram(values),
    )


def join(one: Intensities, other: Intensities) -> Intensities:
    """The measures of both sets of values."""
    count = one.count + other.count
    distance = other.mean - one.mean
    variance = (one.count * one.std**2 + other.count * other.std**2 + distance**2 * one.count * other.count / count) / count
    return Intensities(
        count=count,
        mean=one.mean + distance * other.count / count,
        std=math.sqrt(variance),
        minimum=min(one.minimum, other.minimum),
        maximum=max(one.maximum, other.maximum),
        histogram=merge(one.histogram, other.histogram),
    )
