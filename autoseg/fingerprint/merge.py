"""Measures of single cases to the fingerprint of the dataset: kinds settled, and each case weighing the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from autoseg.data.case import Dataset
from autoseg.fingerprint.histogram import Histogram, quantiles
from autoseg.fingerprint.kinds import KINDS, settle_kinds
from autoseg.fingerprint.sides import label_voxels, summarise_sides
from autoseg.fingerprint.spread import Spread, of_kind
from autoseg.fingerprint.types import (
    CaseMeasures,
    ChannelMeasures,
    ClassSummary,
    Fingerprint,
    ForegroundMeasures,
    Kind,
    KindFinding,
    KindSummary,
)


def summarise(cases: Mapping[str, CaseMeasures], spread: Spread, dataset: Dataset) -> Fingerprint:
    """The fingerprint of at least one case.

    Args:
        cases: name -> measures, as `measure_case` made them.
        spread: the histograms of these cases' foreground.
        dataset: with its labels resolved.

    Raises:
        DatasetError: an override of an intensity kind names none.
    """
    looks = [[_look(case.channels[number]) for case in cases.values()] for number in range(len(dataset.channels))]
    cases = settled(cases, dataset)
    channels = {}
    for number, name in enumerate(dataset.channels):
        histograms = {kind: of_kind(spread, number, name, kind, looks[number]) for kind in KINDS}
        channels[name] = kind_summaries([case.channels[number] for case in cases.values()], histograms)
    return Fingerprint(
        cases=cases,
        channels=channels,
        classes=class_summaries(cases, dataset),
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


def kind_summaries(measures: Sequence[ChannelMeasures], histograms: Mapping[Kind, Histogram | None]) -> dict[Kind, KindSummary]:
    """One channel over the cases, kind by kind, from the foreground of the cases that have any.

    Mean and deviation are those of a mixture in which each case weighs the same, percentiles too: what the peer gets by
    drawing as many voxels of each case (peer sections 1.4, 1.5).

    Args:
        histograms: kind -> of the foreground of its cases, each case weighing the same; None where none has foreground.
    """
    summaries = {}
    for kind in KINDS:
        of_kind = [m for m in measures if m.kind == kind]
        foregrounds = [m.foreground_hu if kind == "hu" and m.foreground_hu else m.foreground for m in of_kind if m.foreground]
        if foregrounds:
            summaries[kind] = _foreground_summary(len(of_kind), foregrounds, histograms[kind])
        elif of_kind:
            summaries[kind] = _volume_summary(of_kind, shift=kind == "hu")
    return summaries


def _foreground_summary(cases: int, foregrounds: Sequence[ForegroundMeasures], histogram: Histogram) -> KindSummary:
    mean, std = _mixture([f.mean for f in foregrounds], [f.std for f in foregrounds])
    low, middle, high = quantiles(histogram, (0.005, 0.5, 0.995))
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


def class_summaries(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> dict[str, ClassSummary]:
    """How often and how large each class or region is, over the cases that annotate it; one that no case shows has 0 ml."""
    summaries = {}
    for name in dataset.labels.names:
        asked = [case for key, case in cases.items() if dataset.annotates(key, name)]
        counts = [label_voxels(case, dataset.labels, name) for case in asked]
        millilitres = [n * math.prod(case.spacing) / 1000 for n, case in zip(counts, asked, strict=True) if n]
        shares = [n / math.prod(case.shape) for n, case in zip(counts, asked, strict=True)]
        summaries[name] = ClassSummary(
            annotated=len(asked),
            cases=len(millilitres),
            share=fmean(shares) if shares else 0.0,
            median_ml=median(millilitres) if millilitres else 0.0,
        )
    return summaries


def _cropped_share(case: CaseMeasures) -> float:
    return math.prod(high - low for low, high in case.crop_box) / math.prod(case.shape)
