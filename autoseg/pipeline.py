"""What each command does, as one function over the rooms below. Reading the program starts here.

Data flows one way: Dataset -> Fingerprint -> Plan -> stored cases -> fold runs -> predictions -> scores. The functions that stand
for these arrows are called here in that order: `open_dataset`, `measure`, `plan`, `preprocess`, `train_fold`, `predict`,
`score_case`, `cross_validate`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.description import describe
from autoseg.data.layouts import open_dataset
from autoseg.errors import AutosegError, DatasetError, PlanError, Problem, ResourceError, excluded_cases, problem_table
from autoseg.evaluation.crossval import CrossValidation, cross_validate, crossval_as_json, write_crossval
from autoseg.evaluation.folders import Evaluation, Pair, evaluate_folders, fold_scores, write_evaluation
from autoseg.evaluation.scores import FoldScores, read_scores, write_scores
from autoseg.evaluation.tables import crossval_text
from autoseg.files import Work, locked, write_json
from autoseg.fingerprint.measure import Measurement, measure
from autoseg.inference.held_out import expected_seconds, predict_stored
from autoseg.inference.model import CaseResult, Model, load_model
from autoseg.metrics import METRICS
from autoseg.network.device import machine, resolve_device
from autoseg.network.factory import require_trust
from autoseg.planning import folds as splitting
from autoseg.planning.explain import explain
from autoseg.planning.folds import Fold
from autoseg.planning.keeping import disagreement, require_agreement, split_cases, write_decisions
from autoseg.planning.plan_file import read_plan
from autoseg.planning.planner import plan as make_plan
from autoseg.planning.planner import reading_orientation
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import Plan
from autoseg.preprocessing.preprocess import preprocess
from autoseg.preprocessing.store import open_case
from autoseg.progress import bar, clock
from autoseg.report.held_out import draw_cross_validation
from autoseg.training.loop import train_fold
from autoseg.training.resolving import resolved_plan

log = logging.getLogger("autoseg")


@dataclass(frozen=True)
class Planned:
    """What plan-and-preprocess leaves: the plan, the cases that are ready, and every problem."""

    work: Work
    plan: Plan
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
    workers: int | None = None,
    quiet: bool = False,
) -> Planned:
    """Measure a dataset, decide everything, and store its cases ready for training.

    A plan that WORK has is kept; see DESIGN.md section 4. Cases that are stored already are not processed again.

    Raises:
        DatasetError: no layout fits, no case can be used, or, with `strict`, any case has an error.
        PlanError: settings that are impossible, or that disagree with the plan that WORK has.
    """
    folder = Work(work)
    asked = _planning_options(settings, memory_gb, seed, configurations)
    kept = read_plan(folder.plan) if folder.plan.is_file() and not replan else None
    chosen = load_recipe(recipe or (kept.recipe if kept else "auto"))
    orientation = kept.dataset.orientation if kept else reading_orientation(chosen, asked)
    measured = _measured(dataset, orientation, workers, quiet)
    if strict and excluded_cases(measured.problems):
        raise DatasetError(
            f"--strict refuses cases with errors:\n{problem_table(measured.problems)}\n", remedy="Mend these, or go on without --strict"
        )

    if kept:
        require_agreement(kept, measured.dataset, recipe=recipe, options=asked, file=folder.plan)
        plan = kept
        log.info("The plan of %s is kept (--replan makes a new one).", folder.path.name)
    else:
        plan = make_plan(measured.dataset, measured.fingerprint, chosen, made_for=machine(device), options=asked)
    planned = Planned(folder, plan, measured, measured.problems)
    folds = split_cases(folder, plan, measured, left_out=planned.failed, fresh=kept is None)
    if dry_run:
        return planned
    with locked(folder.lock, f"the preprocessed cases of {folder.path.name}"):
        write_decisions(folder, plan, measured, folds, fresh=kept is None)
        wanted = list(configurations or plan.default_configurations)
        with bar("preprocessing", len(measured.dataset.cases), quiet=quiet) as tick:
            failed = preprocess(measured.dataset, measured.fingerprint, plan, folder, configurations=wanted, workers=workers, on_case=tick)
        if failed:
            planned = Planned(folder, plan, measured, (*measured.problems, *failed))
            splitting.write_folds(folder.folds, split_cases(folder, plan, measured, left_out=planned.failed, fresh=kept is None))
    return planned


def doctor(dataset: Path, work: Path | None = None, *, workers: int | None = None, quiet: bool = False) -> Measurement:
    """Read every case of a dataset and find what is wrong or doubtful; nothing is written.

    Args:
        work: a WORK made from it, whose orientation is used.

    Raises:
        DatasetError: no layout fits, or no case can be used.
    """
    kept = read_plan(Work(work).planned().plan) if work else None
    return _measured(dataset, kept.dataset.orientation if kept else "lps", workers, quiet)


def _measured(dataset: Path, orientation: str, workers: int | None, quiet: bool) -> Measurement:
    found = open_dataset(dataset)
    log.info("%s: %s layout, %d cases, channels %s", found.name, found.layout, len(found.cases), ", ".join(found.channels))
    with bar("measuring", len(found.cases), quiet=quiet) as tick:
        return measure(found, orientation=orientation, workers=workers, on_case=tick)


def _planning_options(
    settings: Mapping[str, Any] | None, memory_gb: float | None, seed: int | None, configurations: Sequence[str] | None
) -> dict[str, Any]:
    given = dict(settings or {})
    if seed is not None:
        given = {"training.seed": seed, "folds.seed": seed} | given
    options = {"set": given, "memory_gb": memory_gb, "configurations": list(configurations) if configurations else None}
    return {key: value for key, value in options.items() if value}


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
    trust_code: bool = False,
    workers: int | None = None,
    quiet: bool = False,
) -> Trained:
    """Train folds, predict and score what each held out, and join the scores.

    Folds that are done are skipped; one that was interrupted goes on. A fold that fails does not stop the others.

    Args:
        folds: numbers, "all" for the cross-validation, "full" for one model of all cases.
        budget_seconds: time of the whole call, shared equally among the folds that it runs.
        epochs: instead of the plan's.
        trust_code: run a network or loss outside autoseg that the plan names though it was not given with --set.

    Raises:
        DatasetError, PlanError, ResourceError: training cannot begin.
    """
    end = None if budget_seconds is None else time.monotonic() + budget_seconds
    folder = Work(work).planned()
    plan = read_plan(folder.plan)
    require_trust(plan, trust_code=trust_code)
    names = _known_configurations(plan, configurations)
    settings = FoldSettings(epochs, seed, resolve_device(device), 1 if workers is None else workers, quiet)
    every = splitting.read_folds(folder.folds)
    runs = [(name, fold) for name in names for fold in splitting.choose_folds(every, folds)]

    _require_own_plan(folder, plan, runs)
    problems = _run_folds(folder, plan, runs, settings, end)
    crossvals = {name: join_folds(folder, plan, name) for name in names if scored_folds(folder, name)}
    done = tuple((name, fold.name) for name, fold in runs if _is_done(folder, name, fold))
    whole = all(folder.fold(name, fold.name).state == "scored" for name in names for fold in every)
    return Trained(folder, plan, done, tuple(problems), crossvals, whole)


@dataclass(frozen=True)
class FoldSettings:
    """What a command says about running its folds.

    epochs, seed: instead of the plan's, if given.
    workers: processes that make samples.
    """

    epochs: int | None
    seed: int | None
    device: str
    workers: int
    quiet: bool


def _require_own_plan(work: Work, plan: Plan, runs: Sequence[tuple[str, Fold]]) -> None:
    """Refuse to skip, go on with or join a fold that was trained by another plan than WORK has now."""
    for name, fold in runs:
        file = work.fold(name, fold.name).plan
        if file.is_file() and (key := disagreement(read_plan(file), plan, name)):
            raise PlanError(
                f"{name} fold {fold.name} was trained by another plan than WORK has now: {key} differs",
                file=file,
                remedy=f"Delete {file.parent.name} to train it anew, or use another WORK",
            )


def _run_folds(work: Work, plan: Plan, runs: Sequence[tuple[str, Fold]], settings: FoldSettings, end: float | None) -> list[Problem]:
    """Run the folds that are not done, each until its share of the time that is left to `end`; what failed, as problems."""
    waiting = [(name, fold) for name, fold in runs if not _is_done(work, name, fold)]
    for name, fold in runs:
        if (name, fold) not in waiting:
            log.info("%s fold %s is done and skipped.", name, fold.name)
    problems = []
    for position, (name, fold) in enumerate(waiting):
        now = time.monotonic()
        share = None if end is None else (end - now) / (len(waiting) - position)
        if share is not None:
            log.info("%s fold %s has %s of the budget.", name, fold.name, clock(share))
        try:
            run_fold(work, plan, name, fold, settings, until=None if share is None else now + share)
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(f"{name} fold {fold.name}")))
            log.error("%s", problem_table(problems[-1:]))
            log.debug("Its traceback:", exc_info=error, extra={"file_only": True})
    return problems


def run_fold(work: Work, plan: Plan, configuration: str, fold: Fold, settings: FoldSettings, *, until: float | None) -> None:
    """One fold: train it, predict its held-out cases at full size, score them.

    Args:
        until: time.monotonic() at which the last score must be there; None: by epochs.

    Raises:
        AutosegError: what kept it from its scores; run again, it goes on from there.
    """
    began = time.monotonic()
    folder = work.fold(configuration, fold.name)
    share = None if until is None else max(until - began, 1.0)
    resolved = resolved_plan(plan, folder, epochs=settings.epochs, seconds=share, seed=settings.seed, device=settings.device)
    log.info("%s fold %s: %d cases to learn from, %d held out.", configuration, fold.name, len(fold.train), len(fold.held_out))
    store, deadline = work.store(configuration), None
    if until is not None:
        seconds = expected_seconds(resolved, configuration, store, fold.held_out, device=settings.device)
        deadline = training_deadline(until, seconds, len(fold.held_out))
    train_fold(
        resolved,
        configuration,
        fold,
        store,
        folder,
        device=settings.device,
        workers=settings.workers,
        deadline=deadline,
        quiet=settings.quiet,
        message=log.info,
    )
    if fold.held_out:
        write_scores(folder.scores, _score_held_out(work, plan, configuration, fold, settings))
    log.info("%s fold %s is done in %s.", configuration, fold.name, clock(time.monotonic() - began))


def _score_held_out(work: Work, plan: Plan, configuration: str, fold: Fold, settings: FoldSettings) -> FoldScores:
    """Predict the cases that the fold held out with its own weights, and compare them with their references."""
    store = work.store(configuration)
    model = load_model(work.path, device=settings.device, folds=[fold.name], configurations=[configuration], trust_code=True)
    with bar(f"{configuration} fold {fold.name}: held-out cases", len(fold.held_out), quiet=settings.quiet) as tick:
        written = predict_stored(model.predictor, store, fold.held_out, work.fold(configuration, fold.name).held_out, tick)
    pairs = [Pair(case, path, work.reference(case), open_case(store, case).origin.content_key) for case, path in written.items()]
    labels, groups = plan.dataset.label_set(), plan.dataset.groups_of_labels
    scores, problems = fold_scores(fold.name, pairs, labels=labels, groups=groups, metrics=plan.evaluation.metrics)
    for problem in problems:
        log.warning("%s", problem_table([problem]))
    return scores


def training_deadline(until: float, held_out: float, count: int) -> float:
    """When training must end so that `count` held-out cases, which take `held_out` seconds, are scored at `until`.

    Raises:
        ResourceError: that leaves less than a fifth of the time for training.
    """
    there = until - time.monotonic()
    if there - held_out < 0.2 * there or there <= 0:
        raise ResourceError(
            f"{clock(max(there, 0))} are left for it, and predicting its {count} held-out cases alone takes about {clock(held_out)}",
            remedy="Give a longer --budget, or fewer folds (--fold)",
        )
    return until - held_out


def join_folds(work: Work, plan: Plan, configuration: str) -> CrossValidation:
    """The cross-validation of all folds that are scored, written to crossval.json and crossval.txt, with pictures beside them."""
    result = cross_validate([read_scores(path) for path in scored_folds(work, configuration)], plan.evaluation)
    write_crossval(work.crossval(configuration), result, crossval_text(result))
    draw_cross_validation(work, configuration, result, plan.dataset.label_set())
    return result


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
    quiet: bool = False,
) -> Predicted:
    """Predict a label map for each image, on its own grid, with the ensemble of the model's folds.

    Raises:
        ModelError: no model, or one that may not be opened.
        DatasetError: no images.
    """
    loaded = load_model(model, device=device, folds=folds, configurations=configurations, trust_code=trust_code)
    for notice in loaded.notices:
        log.warning("%s.", notice)
    log.info("Model: %s, %s, fold(s) %s.", model.name, loaded.configuration, ", ".join(map(str, loaded.folds)))
    with bar("predicting", None, quiet=quiet) as tick:
        results = loaded.predict_files(inputs, output, probabilities=probabilities, on_case=lambda result: tick(result.case))
    cases = {result.case: case_summary(result, loaded.configuration, loaded.folds) for result in results}
    write_json(output / "summary.json", "predictions", {"cases": cases})
    return Predicted(loaded, tuple(results))


def case_summary(result: CaseResult, configuration: str, folds: Sequence[int | str]) -> dict[str, Any]:
    """What summary.json says of one case; `autoseg.evaluation.folders` reads it."""
    return {
        "file": result.output.name if result.output else None,
        "error": result.error.message if result.error else None,
        "content_key": result.content_key,
        "configuration": configuration,
        "folds": list(folds),
        "trained_on": list(result.trained_on),
        "warnings": [warning.message for warning in result.warnings],
        "seconds": round(result.seconds, 2),
    }


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
    lines = [explain(plan)]
    for name in plan.default_configurations:
        lines += [f"{name} fold {fold.name}: {work.fold(name, fold.name).state}" for fold in splitting.read_folds(work.folds)]
    return "\n".join(lines)


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


def scored_folds(work: Work, configuration: str) -> list[Path]:
    """The scores.json of the folds that are done, in order."""
    return sorted(
        folder.scores for folder in (work.fold(configuration, n.name) for n in splitting.read_folds(work.folds)) if folder.scores.is_file()
    )


def _known_configurations(plan: Plan, wanted: Sequence[str] | None) -> list[str]:
    names = list(wanted or plan.default_configurations)
    for name in names:
        if name not in plan.configurations:
            raise PlanError(f"the plan has no configuration {name!r}", remedy=f"Choose among {', '.join(plan.configurations)}")
    return names


def _is_done(work: Work, configuration: str, fold: Fold) -> bool:
    return work.fold(configuration, fold.name).state in (("scored",) if fold.held_out else ("scored", "trained"))
