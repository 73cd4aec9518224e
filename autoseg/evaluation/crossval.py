"""The folds' held-out scores joined: each case predicted by the one fold that did not train on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.evaluation.scores import CaseScores, FoldScores, case_as_json, none_if_undefined
from autoseg.evaluation.summary import ClassSummary, Table1, foreground_mean, summarise, table_1
from autoseg.files import write_json, write_text
from autoseg.planning.schema import EvaluationPlan


@dataclass(frozen=True)
class CrossValidation:
    """All folds of one configuration.

    classes: class or group -> summary over the pooled cases.
    foreground_mean: mean over the classes of their mean Dice.
    table_1: the paper's table, where the plan's summary is `median`.
    notes: what a reader must know about the folds, such as cases that joined after they were trained.
    """

    folds: tuple[FoldScores, ...]
    groups: dict[str, tuple[str, ...]]
    classes: dict[str, ClassSummary]
    foreground_mean: float
    table_1: Table1 | None
    notes: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[CaseScores, ...]:
        """All cases, fold by fold."""
        return tuple(case for fold in self.folds for case in fold.cases)


def cross_validate(folds: Sequence[FoldScores], plan: EvaluationPlan, notes: Sequence[str] = ()) -> CrossValidation:
    """Join the folds' scores; folds without cases are left out.

    Raises:
        PlanError: no fold has a case, the folds score different classes, or a case was scored in two folds.
    """
    scored = tuple(fold for fold in folds if fold.cases)
    if not scored:
        raise PlanError("no fold has scored cases", remedy="Train the folds first")
    for fold in scored:
        if fold.classes != scored[0].classes or fold.groups != scored[0].groups:
            raise PlanError(
                f"fold {fold.fold} scores {', '.join(fold.classes)}, fold {scored[0].fold} {', '.join(scored[0].classes)}",
                remedy="Train the folds by the same plan",
            )
    times = Counter(case.case for fold in scored for case in fold.cases)
    if twice := sorted(case for case, count in times.items() if count > 1):
        raise PlanError(f"{', '.join(twice[:4])} was held out in two folds", remedy="Train the folds by the same folds.json")
    pooled = [case for fold in scored for case in fold.cases]
    classes, groups = summarise(pooled), scored[0].groups
    medians = table_1(scored) if plan.summary == "median" else None
    return CrossValidation(scored, groups, classes, foreground_mean(classes, groups), medians, tuple(notes))


def write_crossval(path: Path, result: CrossValidation, text: str) -> None:
    """Write crossval.json at `path`, and `text` beside it as crossval.txt."""
    write_json(path, "crossval", crossval_as_json(result))
    write_text(path.with_suffix(".txt"), text)


def crossval_as_json(result: CrossValidation) -> dict[str, Any]:
    """What crossval.json holds; undefined values are null."""
    return {
        "folds": {str(fold.fold): [case.case for case in fold.cases] for fold in result.folds},
        "notes": list(result.notes),
        "groups": {name: list(members) for name, members in result.groups.items()},
        "classes": classes_as_json(result.classes),
        "foreground_mean": {"dice": none_if_undefined(result.foreground_mean)},
        "table_1": None if result.table_1 is None else _table_1_as_json(result.table_1),
        "cases": {case.case: {"fold": fold.fold, **case_as_json(case)} for fold in result.folds for case in fold.cases},
    }


def classes_as_json(classes: Mapping[str, ClassSummary]) -> dict[str, Any]:
    """Class or group -> its summary as JSON."""
    return {name: _without_nan(asdict(row)) for name, row in classes.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return none_if_undefined(value) if isinstance(value, float) else value


def _table_1_as_json(table: Table1) -> dict[str, Any]:
    def row(values: Sequence[float]) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for (name, metric), value in zip(table.columns, values, strict=True):
            nested.setdefault(name, {})[metric] = none_if_undefined(float(value))
        return nested

    return {
        "folds": {str(fold): row(values) for fold, values in table.rows.items()},
        "average": row(table.average),
        "left_out": row(table.left_out),
    }
