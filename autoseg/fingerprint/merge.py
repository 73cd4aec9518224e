"""Measures of single cases to the fingerprint of the dataset: kinds settled, and each case weighing the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

import numpy as np

from autoseg.data.case import Dataset
from autoseg.data.labels import LabelSet
from autoseg.fingerprint.histogram import quantiles
from autoseg.fingerprint.kinds import INTERCEPT, KINDS, PADDING, settle_kinds
from autoseg.fingerprint.sides import label_voxels, summarise_sides
from autoseg.fingerprint.types import (
    CaseMeasures,
    ChannelMeasures,
    ClassSummary,
    Fingerprint,
    ForegroundMeasures,
    Histogram,
    Kind,
    KindFinding,
    KindSummary,
)


def summarise(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> Fingerprint:
    """The fingerprint of at least one case.

    Args:
        cases: name -> measures, as `measure_case` made them or as an earlier fingerprint holds them.
        dataset: with its labels resolved.

    Raises:
        DatasetError: an override of an intensity kind names none.
    """
    cases = settled(cases, dataset)
    channels = {name: kind_summaries([case.channels[number] for case in cases.values()]) for number, name in enumerate(dataset.channels)}
    return Fingerprint(
        cases=cases,
        channels=channels,
        classes=class_summaries(cases, dataset.labels),
        sides=summarise_sides(cases, dataset.labels),
        median_relative_size_after_crop=median(_cropped_share(case) for case in cases.values()),
    )


def settled(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> dict[str, CaseMeasures]:
    """The cases with the kinds that the whole dataset gives them."""
    looks = {name: dict(zip(dataset.channels, map(_look, case.channels), strict=True)) for name, case in cases.items()}
    kinds = settle_kinds(looks, dataset.channels, dataset.intensity_kinds)
    return {name: case.model_copy(update={"channels": _with_kinds(case.channels, kinds[name].values())}) for name, case in cases.items()}


def _look(measures: ChannelMeasures) -> KindFinding:
    return measures.look or KindFinding(kind=measures.kind, why=measures.why, sure=measures.sure, offset=measures.offset)


def _with_kinds(channels: Iterable[ChannelMeasures], kinds: Iterable[KindFinding]) -> list[ChannelMeasures]:
    return [measures.model_copy(update=kind.model_dump()) for measures, kind in zip(channels, kinds, strict=True)]


def kind_summaries(measures: Sequence[ChannelMeasures]) -> dict[Kind, KindSummary]:
    """One channel over the cases, kind by kind, from the foreground of the cases that have any.

    Mean and deviation are those of a mixture in which each case weighs the same, percentiles too: what the peer gets by
    drawing as many voxels of each case (peer sections 1.4, 1.5).
    """
    summaries = {}
    for kind in KINDS:
        of_kind = [m for m in measures if m.kind == kind]
        foregrounds = [mended(m.foreground, m.offset) if kind == "hu" else m.foreground for m in of_kind if m.foreground]
        if foregrounds:
            summaries[kind] = _foreground_summary(len(of_kind), foregrounds)
        elif of_kind:
            summaries[kind] = _volume_summary(of_kind, shift=kind == "hu")
    return summaries


def _foreground_summary(cases: int, foregrounds: Sequence[ForegroundMeasures]) -> KindSummary:
    mean, std = _mixture([f.mean for f in foregrounds], [f.std for f in foregrounds])
    low, middle, high = quantiles([f.histogram for f in foregrounds], (0.005, 0.5, 0.995))
    return KindSummary(
        cases=cases,
        mean=mean,
        std=std,
        median=middle,
        percentile_00_5=low,
        percentile_99_5=high,
        minimum=min(f.minimum for f in foregrounds),
        maximum=max(f.maximum for f in foregrounds),
    )


def _volume_summary(measures: Sequence[ChannelMeasures], *, shift: bool) -> KindSummary:
    offsets = [m.offset if shift else 0.0 for m in measures]
    mean, std = _mixture([m.mean + o for m, o in zip(measures, offsets, strict=True)], [m.std for m in measures])
    low = min(m.minimum + o for m, o in zip(measures, offsets, strict=True))
    high = max(m.maximum + o for m, o in zip(measures, offsets, strict=True))
    return KindSummary(
        cases=len(measures),
        mean=mean,
        std=std,
        median=mean,
        minimum=low,
        maximum=high,
        percentile_00_5=low,
        percentile_99_5=high,
    )


def _mixture(means: Sequence[float], stds: Sequence[float]) -> tuple[float, float]:
    """Mean and population deviation of a mixture of equal parts."""
    mean = fmean(means)
    return mean, math.sqrt(fmean(s**2 + (m - mean) ** 2 for m, s in zip(means, stds, strict=True)))


def mended(foreground: ForegroundMeasures, offset: float) -> ForegroundMeasures:
    """The measures that the foreground has once `kinds.mend_hu` mended the volume: in HU, padding raised to -1024."""
    shifted = _shifted(foreground, offset)
    if shifted.minimum >= PADDING:
        return shifted
    h = shifted.histogram
    values = np.maximum(np.ldexp(np.arange(h.first, h.first + len(h.counts), dtype=float), h.exponent), INTERCEPT)
    counts = np.asarray(h.counts)
    lowest = max(h.first, math.floor(math.ldexp(INTERCEPT, -h.exponent)))
    below = counts[: lowest - h.first + 1].sum()
    mean = float(np.average(values, weights=counts))
    return shifted.model_copy(
        update={
            "mean": mean,
            "std": float(np.sqrt(np.average((values - mean) ** 2, weights=counts))),
            "minimum": INTERCEPT,
            "maximum": max(shifted.maximum, INTERCEPT),
            "histogram": Histogram(exponent=h.exponent, first=lowest, counts=[below, *counts[lowest - h.first + 1 :]], whole=h.whole),
        }
    )


def _shifted(foreground: ForegroundMeasures, offset: float) -> ForegroundMeasures:
    h = foreground.histogram
    return foreground.model_copy(
        update={
            "mean": foreground.mean + offset,
            "minimum": foreground.minimum + offset,
            "maximum": foreground.maximum + offset,
            "histogram": h.model_copy(update={"first": h.first + round(math.ldexp(offset, -h.exponent))}),
        }
    )


def class_summaries(cases: Mapping[str, CaseMeasures], labels: LabelSet) -> dict[str, ClassSummary]:
    """How often and how large each class or region is; a class that no case shows has 0 ml."""
    summaries = {}
    for name in labels.names:
        counts = [label_voxels(case, labels, name) for case in cases.values()]
        millilitres = [n * math.prod(case.spacing) / 1000 for n, case in zip(counts, cases.values(), strict=True) if n]
        shares = [n / math.prod(case.shape) for n, case in zip(counts, cases.values(), strict=True)]
        summaries[name] = ClassSummary(cases=len(millilitres), share=fmean(shares), median_ml=median(millilitres) if millilitres else 0.0)
    return summaries


def _cropped_share(case: CaseMeasures) -> float:
    return math.prod(high - low for low, high in case.crop_box) / math.prod(case.shape)
