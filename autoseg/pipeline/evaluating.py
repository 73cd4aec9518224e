"""evaluate: predictions, a folder's or a WORK's, -> scores."""

from __future__ import annotations

from pathlib import Path

from autoseg.data.folders.description import describe
from autoseg.errors import DatasetError
from autoseg.evaluation.crossval import CrossValidation, crossval_as_json
from autoseg.evaluation.folders import Evaluation, evaluate_folders, write_evaluation
from autoseg.files import Work, write_json
from autoseg.fold_runs import join_folds, scored_folds
from autoseg.metrics import METRICS
from autoseg.planning.plan_file import read_plan


def evaluate(
    predictions: Path, references: Path, *, labels: Path | None = None, output: Path | None = None, workers: int | None = None
) -> Evaluation:
    """Score a folder of label maps against one of references; cases that the model was trained on stay out of the headline.

    Args:
        labels: a dataset.json, or a folder with one, that names the labels.
        output: a JSON file to write too.

    Raises:
        DatasetError: nothing can be compared.
    """
    declared = describe(labels.parent if labels.is_file() else labels) if labels else None
    result = evaluate_folders(
        predictions,
        references,
        labels=declared.labels if declared else None,
        groups=declared.label_groups if declared else {},
        annotated=declared.labels_present if declared else None,
        metrics=METRICS,
        workers=workers,
    )
    if output:
        write_evaluation(output, result)
    return result


def evaluate_work(work: Path, *, output: Path | None = None) -> dict[str, CrossValidation]:
    """Join the scores of a WORK's folds anew: configuration -> cross-validation.

    Args:
        output: a JSON file to write too, a cross-validation a configuration.

    Raises:
        DatasetError: no fold is scored.
    """
    folder = Work(work).planned()
    plan = read_plan(folder.plan)
    result = {name: join_folds(folder, plan, name) for name in plan.configurations if scored_folds(folder, name)}
    if not result:
        raise DatasetError(f"{work.name} has no fold with scores", remedy="Run autoseg train first")
    if output:
        write_json(output, "crossvals", {name: crossval_as_json(joined) for name, joined in result.items()})
    return result
