"""Scores of one case, and of the held-out cases of one fold."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.case import LabelMap
from autoseg.data.formats.placing import match
from autoseg.data.labels import LabelSet
from autoseg.errors import LabelError, PlanError
from autoseg.files import read_json, write_json
from autoseg.metrics import METRICS, Overlap, overlap

PREDICTION = "the prediction"


@dataclass(frozen=True)
class ClassScores:
    """One class, or group of classes, in one case.

    counts: voxels that were compared (not those to ignore).
    values: metric -> value; nan where it is undefined.
    voxel_ml: ml of a voxel.
    annotated: whether somebody annotated it in this case; if not, nothing is known of its truth: no voxel is counted, no value defined.
    """

    counts: Overlap
    values: dict[str, float]
    voxel_ml: float
    annotated: bool = True

    @property
    def present(self) -> bool:
        """Whether the truth shows it."""
        return self.counts.TP + self.counts.FN > 0

    @property
    def absent(self) -> bool:
        """Whether the truth is known not to show it."""
        return self.annotated and not self.present

    @property
    def truth_ml(self) -> float:
        return (self.counts.TP + self.counts.FN) * self.voxel_ml

    @property
    def prediction_ml(self) -> float:
        return (self.counts.TP + self.counts.FP) * self.voxel_ml

    @property
    def false_positive_ml(self) -> float:
        return self.counts.FP * self.voxel_ml


@dataclass(frozen=True)
class CaseScores:
    """One case against its truth.

    content_key: of the image, where it is known.
    classes: class or group -> scores.
    """

    case: str
    content_key: str | None
    classes: dict[str, ClassScores]


@dataclass(frozen=True)
class FoldScores:
    """The held-out cases of one fold.

    groups: group -> the classes that it joins.
    """

    fold: int | str
    groups: dict[str, tuple[str, ...]]
    cases: tuple[CaseScores, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, groups not among them."""
        return tuple(name for name in (self.cases[0].classes if self.cases else ()) if name not in self.groups)


def score_case(
    prediction: LabelMap,
    reference: LabelMap,
    *,
    case: str,
    labels: LabelSet,
    groups: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    content_key: str | None = None,
    annotated: Collection[str] | None = None,
) -> CaseScores:
    """Compare a prediction with the truth, voxel by voxel on the truth's grid (paper.md item 18).

    Args:
        prediction, reference: in file values; one lattice may be stored in two axis orders.
        labels: what the values mean; voxels of its ignore value in the truth count nowhere.
        groups: group -> classes that are scored together too.
        metrics: of `autoseg.metrics.METRICS`.
        annotated: the classes that somebody annotated in this case; the others, and groups with one of them, are not scored. None: all.

    Raises:
        GridError: they lie on different grids.
        LabelError: one of them holds a value that is not declared.
        PlanError: a metric or a member of a group that is not known.
    """
    onto_reference, _ = match(reference.grid, prediction.grid, what="the reference", file=PREDICTION)
    voxels = onto_reference.apply(prediction.voxels)
    for what, array in ((PREDICTION, voxels), ("the reference", reference.voxels)):
        if unknown := labels.unknown(values_present(array)):
            raise LabelError(
                f"{what} holds {unknown[:6]}, which are no declared labels",
                case=case,
                remedy="Give the dataset.json that declares its labels",
            )
    table = overlap(voxels, reference.voxels, named_values(labels, groups), ignore=labels.ignore)
    known = set(table) if annotated is None else set(annotated) | {g for g, members in groups.items() if set(members) <= set(annotated)}
    return _case_scores(case, content_key, table, metrics, reference.grid.voxel_ml, known)


def _case_scores(
    case: str, content_key: str | None, table: Mapping[str, Overlap], metrics: Sequence[str], voxel_ml: float, known: Collection[str]
) -> CaseScores:
    if unknown := set(metrics) - set(METRICS):
        raise PlanError(f"evaluation.metrics names {sorted(unknown)}; there are {', '.join(METRICS)}", remedy="Correct the plan")
    classes = {
        name: ClassScores(row, {metric: row[metric] for metric in metrics}, voxel_ml)
        if name in known
        else _not_annotated(metrics, voxel_ml)
        for name, row in table.items()
    }
    return CaseScores(case, content_key, classes)


def _not_annotated(metrics: Iterable[str], voxel_ml: float) -> ClassScores:
    return ClassScores(Overlap(0, 0, 0, 0), dict.fromkeys(metrics, math.nan), voxel_ml, annotated=False)


def named_values(labels: LabelSet, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Class -> file values, and after the classes group -> the values of all its members."""
    values = dict(zip(labels.names, labels.values, strict=True))
    for group, members in groups.items():
        if missing := [m for m in members if m not in labels.names]:
            names = ", ".join(labels.names)
            raise PlanError(f"the group {group!r} holds {missing}, the labels are {names}", remedy="Correct groups_of_labels")
        values[group] = tuple(dict.fromkeys(v for m in members for v in values[m]))
    return values


def values_present(array: np.ndarray) -> np.ndarray:
    """The distinct values of a label map, ascending."""
    if array.dtype.itemsize > 2:
        return np.unique(array)
    return np.flatnonzero(sum(np.bincount(part.ravel(), minlength=np.iinfo(array.dtype).max + 1) for part in array))


def write_scores(path: Path, scores: FoldScores) -> None:
    """Write scores.json, whole or not at all; undefined values are null."""
    write_json(path, "scores", scores_as_json(scores))


def scores_as_json(scores: FoldScores) -> dict[str, Any]:
    """What scores.json holds."""
    return {
        "fold": scores.fold,
        "classes": list(scores.classes),
        "groups": {name: list(members) for name, members in scores.groups.items()},
        "cases": {case.case: case_as_json(case) for case in scores.cases},
    }


def read_scores(path: Path) -> FoldScores:
    """The scores of one fold, as `write_scores` wrote them.

    Raises:
        PlanError: the file is no scores.json, or of another schema.
    """
    content = read_json(path, "scores")
    try:
        groups = {name: tuple(members) for name, members in content["groups"].items()}
        order = [*content["classes"], *groups]
        cases = tuple(_case_from_json(name, row, order) for name, row in content["cases"].items())
        return FoldScores(content["fold"], groups, cases)
    except (KeyError, TypeError, AttributeError) as error:
        message = f"its content is not that of a scores.json ({error!r})"
        raise PlanError(message, file=path, remedy="Remove it and run train again") from error


def case_as_json(case: CaseScores) -> dict[str, Any]:
    """One case's row in scores.json."""
    return {"content_key": case.content_key, "classes": {name: _class_as_json(scores) for name, scores in case.classes.items()}}


def _class_as_json(scores: ClassScores) -> dict[str, Any]:
    counts = scores.counts
    if not scores.annotated:
        return {"annotated": False, **dict.fromkeys(scores.values), "voxel_ml": scores.voxel_ml}
    return {
        "TP": counts.TP,
        "FP": counts.FP,
        "FN": counts.FN,
        "TN": counts.TN,
        **{metric: none_if_undefined(value) for metric, value in scores.values.items()},
        "truth_ml": scores.truth_ml,
        "prediction_ml": scores.prediction_ml,
        "voxel_ml": scores.voxel_ml,
    }


def _case_from_json(name: str, row: dict[str, Any], order: Sequence[str]) -> CaseScores:
    classes = {}
    for label in order:
        entry = row["classes"][label]
        values = {metric: math.nan if entry[metric] is None else entry[metric] for metric in METRICS if metric in entry}
        if not entry.get("annotated", True):
            classes[label] = _not_annotated(values, entry["voxel_ml"])
            continue
        classes[label] = ClassScores(Overlap(*(entry[key] for key in ("TP", "FP", "FN", "TN"))), values, entry["voxel_ml"])
    return CaseScores(name, row["content_key"], classes)


def none_if_undefined(value: float) -> float | None:
    """JSON has no nan: null stands for what is undefined."""
    return None if math.isnan(value) else value
