"""Many cases to one row a class: the headline, what stands beside it, and the paper's Table 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.scores import CaseScores, FoldScores

TABLE_1_METRICS = ("dice", "sensitivity", "specificity")


@dataclass(frozen=True)
class MetricSummary:
    """One metric of one class over the cases whose truth shows the class.

    defined, undefined: cases with and without a value; the undefined ones enter nothing else here.
    lower, upper: quartiles.
    """

    defined: int
    undefined: int
    mean: float
    std: float
    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class ClassSummary:
    """One class, or group of classes, over the cases.

    present, absent: cases whose truth shows it, and does not.
    not_annotated: cases of which nobody knows, since nobody annotated it there; they enter nothing else here.
    alarms: of the absent ones, those where it was predicted.
    false_positive_ml_mean, false_positive_ml_max: over all absent ones; nan if there are none.
    """

    present: int
    absent: int
    alarms: int
    false_positive_ml_mean: float
    false_positive_ml_max: float
    metrics: dict[str, MetricSummary]
    not_annotated: int = 0


@dataclass(frozen=True)
class Table1:
    """The paper's Table 1: medians per fold, and the mean of these (paper.md R18, R19).

    columns: (class or group, metric).
    rows: fold -> a value a column; nan where no case of the fold has one.
    average: of the folds' values that are defined.
    left_out: undefined case values that the medians leave out (R22), a column.
    """

    columns: tuple[tuple[str, str], ...]
    rows: dict[int | str, tuple[float, ...]]
    average: tuple[float, ...]
    left_out: tuple[int, ...]


def summarise(cases: Sequence[CaseScores]) -> dict[str, ClassSummary]:
    """Class or group -> what the cases say of it; the headline is `metrics["dice"].mean`."""
    names = cases[0].classes if cases else ()
    return {name: _summarise_class([case.classes[name] for case in cases]) for name in names}


def _summarise_class(scores: Sequence) -> ClassSummary:
    present = [s for s in scores if s.present]
    alarms = [s.false_positive_ml for s in scores if s.absent]
    metrics = {metric: _summarise_values([s.values[metric] for s in present]) for metric in (scores[0].values if scores else ())}
    return ClassSummary(
        len(present),
        len(alarms),
        sum(ml > 0 for ml in alarms),
        float(np.mean(alarms)) if alarms else math.nan,
        max(alarms, default=math.nan),
        metrics,
        sum(not s.annotated for s in scores),
    )


def _summarise_values(values: Sequence[float]) -> MetricSummary:
    known = np.array([v for v in values if not math.isnan(v)])
    missing = len(values) - len(known)
    if not len(known):
        return MetricSummary(0, missing, *[math.nan] * 5)
    std = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    lower, median, upper = (float(v) for v in np.quantile(known, (0.25, 0.5, 0.75)))
    return MetricSummary(len(known), missing, float(known.mean()), std, median, lower, upper)


def foreground_mean(summary: Mapping[str, ClassSummary], groups: Mapping[str, Sequence[str]]) -> float:
    """Mean over the classes (not the groups) of their headline Dice; nan if none has one."""
    means = [row.metrics["dice"].mean for name, row in summary.items() if name not in groups and "dice" in row.metrics]
    return mean_of_defined(means)


def table_1(folds: Sequence[FoldScores]) -> Table1:
    """Medians over each fold's cases: a column for each group (the mean of its members' medians) and each class in no group."""
    groups, classes, metrics = folds[0].groups, folds[0].classes, _table_1_metrics(folds)
    grouped = {member for members in groups.values() for member in members}
    members = {**groups, **{name: (name,) for name in classes if name not in grouped}}
    columns = tuple((name, metric) for name in members for metric in metrics)
    rows = {fold.fold: tuple(_fold_value(fold, members[name], metric) for name, metric in columns) for fold in folds}
    average = tuple(mean_of_defined(column) for column in zip(*rows.values(), strict=True))
    left_out = tuple(sum(_undefined(fold, members[name], metric) for fold in folds) for name, metric in columns)
    return Table1(columns, rows, average, left_out)


def _table_1_metrics(folds: Sequence[FoldScores]) -> tuple[str, ...]:
    for fold in folds:
        for case in fold.cases:
            for scores in case.classes.values():
                return tuple(m for m in TABLE_1_METRICS if m in scores.values)
    return ()


def _values(fold: FoldScores, name: str, metric: str) -> list[float]:
    return [case.classes[name].values[metric] for case in fold.cases if case.classes[name].annotated]


def _fold_value(fold: FoldScores, members: Sequence[str], metric: str) -> float:
    medians = []
    for name in members:
        known = [v for v in _values(fold, name, metric) if not math.isnan(v)]
        medians.append(float(np.median(known)) if known else math.nan)
    return mean_of_defined(medians)


def _undefined(fold: FoldScores, members: Sequence[str], metric: str) -> int:
    return sum(math.isnan(v) for name in members for v in _values(fold, name, metric))


def mean_of_defined(values: Sequence[float]) -> float:
    """The mean of what is not nan; nan if nothing is."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan
