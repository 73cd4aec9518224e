"""Scores as plain text: what each column is stands above it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autoseg.evaluation.crossval import CrossValidation
from autoseg.evaluation.scores import CaseScores
from autoseg.evaluation.summary import ClassSummary, Table1

SHORT = {"dice": "Dice", "iou": "IoU", "sensitivity": "Sens", "specificity": "Spec", "precision": "Prec"}
RULES = (
    "Means, medians and quartiles are over the cases whose truth shows the class; a value that is undefined (-) is counted, not scored.",
    "False-positive volume is what was predicted in cases whose truth does not show the class.",
)
NOT_ANNOTATED = "n/a: cases in which nobody annotated the class; they are neither scored nor counted as absent."


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns padded to their widest cell: the first `left` flush left, the others flush right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *(line(row) for row in table[1:])])


def score(value: float) -> str:
    """A score with three digits, - where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def millilitres(value: float) -> str:
    """A volume, - where there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def summary_text(classes: Mapping[str, ClassSummary], groups: Mapping[str, Sequence[str]]) -> str:
    """One row a class and group: the headline first, then what stands beside it."""
    metrics = list(next(iter(classes.values())).metrics) if classes else []
    others = [m for m in metrics if m != "dice"]
    spread = ["Dice mean", "std", "median", "quartiles"] if "dice" in metrics else []
    partly = any(row.not_annotated for row in classes.values())
    header = ["class", "present", "absent", *(["n/a"] if partly else []), *spread, *(f"{SHORT[m]} mean" for m in others)]
    header += ["undefined", "alarms", "FP ml mean", "FP ml max"]
    rows = []
    for name, row in classes.items():
        cells = [f"{name} ({' + '.join(groups[name])})" if name in groups else name, str(row.present), str(row.absent)]
        cells += [str(row.not_annotated)] if partly else []
        if "dice" in metrics:
            dice = row.metrics["dice"]
            quartiles = "-" if math.isnan(dice.median) else f"{dice.lower:.3f}..{dice.upper:.3f}"
            cells += [score(dice.mean), score(dice.std), score(dice.median), quartiles]
        cells += [score(row.metrics[m].mean) for m in others]
        undefined = {SHORT[m]: row.metrics[m].undefined for m in metrics if row.metrics[m].undefined}
        cells.append(", ".join(f"{count} {name}" for name, count in undefined.items()) or "0")
        cells += [f"{row.alarms} of {row.absent}", millilitres(row.false_positive_ml_mean), millilitres(row.false_positive_ml_max)]
        rows.append(cells)
    return aligned(header, rows)


def table_1_text(table: Table1) -> str:
    """The paper's Table 1, a row a fold and their average; below, what the medians leave out."""
    header = ["fold", *(f"{name} {'DSC' if metric == 'dice' else SHORT[metric]}" for name, metric in table.columns)]
    rows = [[str(fold), *map(score, values)] for fold, values in table.rows.items()]
    rows += [["AVG", *map(score, table.average)], ["left out", *map(str, table.left_out)]]
    return aligned(header, rows)


def cases_text(cases: Sequence[CaseScores], folds: Mapping[str, int | str] | None = None) -> str:
    """Dice and volumes of each case: `predicted/true ml`; where the class is absent and predicted, only the volume."""
    names = list(cases[0].classes) if cases else []
    header = ["case", *(["fold"] if folds else []), *(column for name in names for column in (name, "ml/true"))]
    rows = []
    for case in cases:
        cells = [case.case, *([str(folds[case.case])] if folds else [])]
        for name in names:
            scores = case.classes[name]
            if not scores.annotated:
                cells += ["n/a", "n/a"]
                continue
            dice = scores.values.get("dice", math.nan) if scores.present else math.nan
            cells += [score(dice), f"{millilitres(scores.prediction_ml)}/{millilitres(scores.truth_ml)}"]
        rows.append(cells)
    return aligned(header, rows, left=1)


def fold_text(result: CrossValidation) -> str:
    """Mean Dice of each fold, over its cases whose truth shows the class."""
    names = list(result.classes)
    rows = []
    for fold in result.folds:
        means = []
        for name in names:
            values = [c.classes[name].values["dice"] for c in fold.cases if c.classes[name].present]
            means.append(score(sum(values) / len(values)) if values else "-")
        rows.append([str(fold.fold), str(len(fold.cases)), *means])
    return aligned(["fold", "cases", *names], rows)


def crossval_text(result: CrossValidation) -> str:
    """Everything that crossval.txt shows."""
    folds = {case.case: fold.fold for fold in result.folds for case in fold.cases}
    count, parts = len(result.folds), []
    in_folds = f"{len(folds)} cases in {count} {'fold' if count == 1 else 'folds'}"
    parts.append(f"Cross-validation: {in_folds}, each predicted by the fold that did not train on it.")
    if result.notes:
        parts.append("\n".join(result.notes))
    parts.append(headline(result.classes, result.groups, result.foreground_mean))
    if result.table_1 is not None:
        parts.append(
            "Table 1 of the paper: the median over each fold's cases, a group as the mean of its members' medians; AVG is the mean of the\n"
            f"folds; left out are undefined values.\n\n{table_1_text(result.table_1)}"
        )
    if any("dice" in row.metrics for row in result.classes.values()):
        parts.append(f"Mean Dice by fold.\n\n{fold_text(result)}")
        parts.append(f"Dice by case, and predicted/true volume in ml.\n\n{cases_text(result.cases, folds)}")
    return "\n\n".join(parts) + "\n"


def headline(classes: Mapping[str, ClassSummary], groups: Mapping[str, Sequence[str]], mean: float) -> str:
    """The summary table with the rules that it follows and the mean over the classes."""
    last = f"Mean Dice of the {len([n for n in classes if n not in groups])} classes: {score(mean)}"
    rules = [*RULES, *([NOT_ANNOTATED] if any(row.not_annotated for row in classes.values()) else [])]
    return "\n".join(rules) + "\n\n" + summary_text(classes, groups) + ("" if math.isnan(mean) else "\n\n" + last)
