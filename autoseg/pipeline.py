"""What each command does, as one function over the rooms below. Reading the program starts here.

Data flows one way: Dataset -> Fingerprint -> Plan -> stored cases -> fold runs -> predictions -> scores. The functions that stand
for these arrows are called here in that order: `open_dataset`, `measure`, `plan`, `preprocess`, `run_folds` (for each fold
`train_fold`, `predict_stored`, `fold_scores`), `join_folds`; and `load_model`, `predict_files` for fresh images.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.data.choices import Choices, settled_choices
from autoseg.data.folders.description import describe
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.folders.listing import SeriesListing, look_for_series
from autoseg.data.key import Key, read_key
from autoseg.data.labels import LabelSet
from autoseg.errors import DatasetError, Problem, excluded_cases, problem_table
from autoseg.evaluation.crossval import CrossValidation, crossval_as_json
from autoseg.evaluation.folders import Evaluation, evaluate_folders, write_evaluation
from autoseg.evaluation.predictions import write_summary
from autoseg.files import Work, locked, write_json
from autoseg.fingerprint.measure import Measurement, measure
from autoseg.fold_runs import FoldSettings, is_done, join_folds, require_own_plan, require_prepared, run_folds, scored_folds, validate_folds
from autoseg.inference.model import CaseResult, Model, load_model
from autoseg.metrics import METRICS
from autoseg.network.device import machine, resolve_device
from autoseg.network.factory import require_trust
from autoseg.parallel import require_shared
from autoseg.planning import folds as splitting
from autoseg.planning.explain import explain
from autoseg.planning.extents import with_own_cases
from autoseg.planning.keeping import require_agreement, split_cases, write_decisions
from autoseg.planning.overrides import planning_options
from autoseg.planning.plan_file import read_plan
from autoseg.planning.planner import plan as make_plan
from autoseg.planning.planner import reading_orientation, require_configurations
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import Plan
from autoseg.preprocessing.preprocess import preprocess
from autoseg.progress import bar
from autoseg.stages import every_stage, runs_in_order
from autoseg.standing import Diagnosis, compare, folds_text, kept_note
from autoseg.training.replay import replayed_fold

log = logging.getLogger("autoseg")


@dataclass(frozen=True)
class Planned:
    """What plan-and-preprocess leaves: the plan, the cases that are ready, and every problem.

    stages: the configurations that were prepared, a cascade's first stage among them.
    """

    work: Work
    plan: Plan
    stages: tuple[str, ...]
    measured: Measurement
    problems: tuple[Problem, ...]

    @property
    def failed(self) -> frozenset[str]:
        """Cases that an error excludes."""
        return excluded_cases(self.problems)


def plan_and_preprocess(
    dataset: Path,
    work: Path,
    *,
    recipe: str | None = None,
    configurations: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    memory_gb: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    strict: bool = False,
    replan: bool = False,
    dry_run: bool = False,
    choices: Choices | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    quiet: bool = False,
) -> Planned:
    """Measure a dataset, decide everything, and store its cases ready for training.

    A plan that WORK has is kept; see DESIGN.md section 4. Cases that are stored already are not processed again.

    Args:
        choices: about reading the files; what is not chosen is as WORK keeps it.
        cluster: address of a Dask scheduler whose workers measure and prepare the cases; DATASET and WORK lie in shared folders.

    Raises:
        DatasetError: no layout fits, no case can be used, or, with `strict`, any case has an error.
        PlanError: settings that are impossible, or that disagree with the plan that WORK has.
    """
    if cluster:
        dataset, work = dataset.resolve(), work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        require_shared(cluster, [dataset, work])
    folder = Work(work)
    asked = planning_options(settings, memory_gb, seed, configurations)
    kept = read_plan(folder.plan) if folder.plan.is_file() and not replan else None
    chosen = None if kept else load_recipe(recipe or "auto")
    orientation = kept.dataset.orientation if kept else reading_orientation(chosen, asked)
    reading = settled_choices(choices or Choices(), folder.dataset, replan=replan)
    labels = kept.dataset.label_set() if kept else None
    measured = _measured(dataset, orientation, reading, read_key(folder.key), workers, quiet, labels=labels, cluster=cluster)
    if strict and excluded_cases(measured.problems):
        raise DatasetError(
            f"--strict refuses cases with errors:\n{problem_table(measured.problems)}\n", remedy="Mend these, or go on without --strict"
        )

    if kept:
        require_agreement(kept, measured.dataset, recipe=recipe, options=asked, file=folder.plan)
        plan = kept
        log.info("The plan of %s is kept (--replan makes a new one). %s.", folder.path.name, kept_note(folder, kept, measured))
    else:
        made_for = machine(device, card_gb=chosen.reference_machine.memory_gb)
        plan = make_plan(measured.dataset, measured.fingerprint, chosen, made_for=made_for, options=asked)
    stages = every_stage(plan, _known_configurations(plan, configurations))
    planned = Planned(folder, plan, tuple(stages), measured, measured.problems)
    folds = split_cases(folder, plan, measured, left_out=planned.failed, fresh=kept is None)
    if dry_run:
        return planned
    with locked(folder.lock, f"the preprocessed cases of {folder.path.name}"):
        write_decisions(folder, plan, measured, folds, recipe=chosen)
        with bar("preprocessing", len(measured.dataset.cases), quiet=quiet) as tick:
            crew = {"workers": workers, "cluster": cluster, "on_case": tick}
            failed = preprocess(measured.dataset, measured.fingerprint, plan, folder, configurations=stages, **crew)
        if failed:
            planned = replace(planned, problems=(*planned.problems, *failed))
            splitting.write_folds(folder.folds, split_cases(folder, plan, measured, left_out=planned.failed, fresh=kept is None))
    return planned


def doctor(
    dataset: Path, work: Path | None = None, *, choices: Choices | None = None, workers: int | None = None, quiet: bool = False
) -> Diagnosis:
    """Read every case of a dataset and find what is wrong or doubtful; nothing is written.

    Args:
        work: a WORK made from it, whose orientation and choices are used, and which it is compared with.

    Raises:
        DatasetError: no layout fits, or no case can be used.
    """
    kept = read_plan(Work(work).planned().plan) if work else None
    reading, key = _kept_reading(work, choices)
    orientation, labels = (kept.dataset.orientation, kept.dataset.label_set()) if kept else ("lps", None)
    measured = _measured(dataset, orientation, reading, key, workers, quiet, labels=labels)
    return Diagnosis(measured, compare(Work(work), kept, measured) if kept else None)


def list_series(dataset: Path, work: Path | None = None, *, choices: Choices | None = None, workers: int | None = None) -> SeriesListing:
    """Every DICOM image under a folder, with the case that it becomes; nothing is read but headers.

    Raises:
        DatasetError: the folder has another layout than an export's, and no case in it can be used.
    """
    return look_for_series(dataset, *_kept_reading(work, choices), workers=workers)


def _kept_reading(work: Path | None, choices: Choices | None) -> tuple[Choices, Key]:
    """What is chosen about reading files, and the numbers of an export's cases, as WORK keeps both."""
    if work is None:
        return choices or Choices(), Key()
    return settled_choices(choices or Choices(), Work(work).dataset), read_key(Work(work).key)


def _measured(
    dataset: Path,
    orientation: str,
    choices: Choices,
    key: Key,
    workers: int | None,
    quiet: bool,
    *,
    labels: LabelSet | None,
    cluster: str | None = None,
) -> Measurement:
    """The dataset, measured; `labels` are those of a plan that is kept."""
    found = open_dataset(dataset, choices=choices, key=key, workers=workers)
    log.info("%s: %s layout, %d cases, channels %s", found.name, found.layout, len(found.cases), ", ".join(found.channels))
    with bar("measuring", len(found.cases), quiet=quiet) as tick:
        return measure(found, orientation=orientation, workers=workers, cluster=cluster, on_case=tick, kept_labels=labels)


@dataclass(frozen=True)
class Trained:
    """What train leaves.

    done: (configuration, fold) that have finished, now or before.
    problems: a fold that failed, with its error.
    crossvals: configuration -> its cross-validation, as far as folds are scored.
    ensemble_ready: whether all folds of these configurations are scored.
    """

    work: Work
    plan: Plan
    done: tuple[tuple[str, int | str], ...]
    problems: tuple[Problem, ...]
    crossvals: dict[str, CrossValidation]
    ensemble_ready: bool


def train(
    work: Path,
    *,
    folds: Sequence[int | str] = ("all",),
    configurations: Sequence[str] | None = None,
    budget_seconds: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    weights: Path | None = None,
    extend: bool = False,
    replay: Path | None = None,
    validate_only: bool = False,
    track: Sequence[str] = (),
    probe: bool = False,
    trust_code: bool = False,
    workers: int | None = None,
    quiet: bool = False,
) -> Trained:
    """Train folds, predict and score what each held out, and join the scores; of a cascade, the first stage's folds first.

    Folds that are done are skipped; one that was interrupted goes on. A fold that fails does not stop the others.

    Args:
        folds: numbers, "all" for the cross-validation, "full" for one model of all cases.
        budget_seconds: time of the whole call, shared equally among the folds that it runs.
        epochs: instead of the plan's.
        weights: file or folder of weights to start from.
        extend: folds that have finished go on, for `epochs` in all or for the budget.
        replay: folder of a fold whose training is repeated step by step; it says which configuration and fold that is.
        validate_only: train nothing; predict and score anew what finished folds held out.
        track: experiment trackers; see `autoseg.training.tracking`.
        probe: measure real steps of each configuration before its first epoch, print what follows and write WORK/forecast.json.
        trust_code: run a network or loss outside autoseg that the plan names though it was not given with --set.

    Raises:
        DatasetError, PlanError, ResourceError: training cannot begin.
    """
    end = None if budget_seconds is None else time.monotonic() + budget_seconds
    folder = Work(work).planned()
    plan = read_plan(folder.plan)
    require_trust(plan, trust_code=trust_code)
    if replay:
        configurations, folds = replayed_fold(replay)
    names = _known_configurations(plan, configurations)
    processes = 1 if workers is None else workers
    settings = FoldSettings(
        epochs, seed, resolve_device(device), processes, quiet, weights, extend, replay, tuple(track), tuple(names), probe
    )
    every = splitting.read_folds(folder.folds)
    runs = with_own_cases(folder, runs_in_order(plan, names, every, folds))

    require_own_plan(folder, plan, runs)
    require_prepared(folder, runs)
    problems = validate_folds(folder, plan, runs, settings) if validate_only else run_folds(folder, plan, runs, settings, end)
    crossvals = {name: join_folds(folder, plan, name) for name in every_stage(plan, names) if scored_folds(folder, name)}
    done = tuple((name, fold.name) for name, fold in runs if is_done(folder, name, fold))
    whole = all(folder.fold(name, fold.name).state == "scored" for name in names for fold in every)
    return Trained(folder, plan, done, tuple(problems), crossvals, whole)


@dataclass(frozen=True)
class Predicted:
    """What predict leaves: a result a case, and the model's notices."""

    model: Model
    results: tuple[CaseResult, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Errors and warnings of all cases."""
        return tuple(p for r in self.results for p in (*([r.error] if r.error else []), *r.warnings))


def predict(
    model: Path,
    inputs: Path,
    output: Path,
    *,
    folds: Sequence[int | str] | None = None,
    configurations: Sequence[str] | None = None,
    probabilities: bool = False,
    device: str = "auto",
    trust_code: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    quiet: bool = False,
) -> Predicted:
    """Predict a label map for each image, on its own grid, with the ensemble of the model's folds.

    Args:
        workers, cluster: see `Model.predict_files`.

    Raises:
        ModelError: no model, or one that may not be opened.
        DatasetError: no images.
    """
    loaded = load_model(model, device=device, folds=folds, configurations=configurations, trust_code=trust_code)
    for notice in loaded.notices:
        log.warning("%s.", notice)
    log.info("Model: %s, %s, fold(s) %s.", model.name, " then ".join(loaded.stages), ", ".join(map(str, loaded.folds)))
    with bar("predicting", None, quiet=quiet) as tick:
        where = {"workers": workers, "cluster": cluster}
        results = loaded.predict_files(inputs, output, probabilities=probabilities, **where, on_case=lambda result: tick(result.case))
    write_summary(output, results, loaded.configuration, loaded.folds)
    return Predicted(loaded, tuple(results))


def info(path: Path) -> str:
    """A WORK's plan in words with the state of its folds, or what a dataset holds.

    Raises:
        DatasetError: it is neither.
    """
    work = Work(path)
    if not work.plan.is_file():
        found = open_dataset(path)
        labels = ", ".join(found.labels.names) if found.labels else "to be found in the files"
        return f"{found.name}: {found.layout} layout, {len(found.cases)} cases\nchannels: {', '.join(found.channels)}\nlabels: {labels}\n"
    plan = read_plan(work.plan)
    return f"{explain(plan)}\n{folds_text(work, plan)}\n"


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


def _known_configurations(plan: Plan, wanted: Sequence[str] | None) -> list[str]:
    names = list(wanted or plan.default_configurations)
    require_configurations(names, plan.configurations)
    return names
