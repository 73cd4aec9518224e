"""The folds of a configuration: each trained, its held-out cases predicted and scored, the scores of all joined.

Training and inference do not know each other; a fold's run is where they meet. A cascade's stages meet in `autoseg.stages`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.budgets import revision, training_deadline
from autoseg.errors import AutosegError, DatasetError, PlanError, Problem, TrainingError, problem_table
from autoseg.evaluation.crossval import CrossValidation, cross_validate, write_crossval
from autoseg.evaluation.folders import Pair, fold_scores
from autoseg.evaluation.scores import FoldScores, read_scores, write_scores
from autoseg.evaluation.tables import crossval_text
from autoseg.files import FoldFolder, Work
from autoseg.inference.held_out import expected_seconds, predict_held_out
from autoseg.memory import resident_gb
from autoseg.network.given import read_given
from autoseg.network.weights import read_about
from autoseg.planning.extents import extents, keep_cases
from autoseg.planning.folds import Fold, read_folds
from autoseg.planning.keeping import disagreement
from autoseg.planning.plan_file import read_plan
from autoseg.planning.schema import Plan
from autoseg.preprocessing.store import open_case, stored_cases
from autoseg.probing import Probe, fastest, probe
from autoseg.progress import bar, clock
from autoseg.report.held_out import draw_cross_validation
from autoseg.stages import hand_over, require_same_first_stage
from autoseg.training.loop import train_fold
from autoseg.training.probe import Trial
from autoseg.training.replay import copy_history
from autoseg.training.resolving import replayed_plan, resolved_plan
from autoseg.training.room import require_memory

log = logging.getLogger("autoseg")

FEW_VOXELS = 5e7  # of label maps that are sooner scored here than by processes that have to be started


@dataclass(frozen=True)
class FoldSettings:
    """What a command says about running its folds.

    epochs, seed: instead of the plan's, if given.
    workers: processes that make samples.
    weights: file or folder of weights to start from.
    extend: whether folds that have finished go on, for `epochs` in all or for the budget.
    replay: folder of a fold whose training is repeated step by step.
    track: experiment trackers; see `autoseg.training.tracking`.
    named: the configurations that the command is about; a first stage that they bring along is neither extended nor repeated, and
        starts from fresh weights.
    probe: whether a configuration's first fold is probed before its first epoch; see `autoseg.probing`.
    """

    epochs: int | None
    seed: int | None
    device: str
    workers: int
    quiet: bool
    weights: Path | None = None
    extend: bool = False
    replay: Path | None = None
    track: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    probe: bool = False

    def of(self, configuration: str) -> FoldSettings:
        """What it says about folds of this configuration."""
        return self if configuration in self.named else replace(self, weights=None, extend=False, replay=None)


def require_own_plan(work: Work, plan: Plan, runs: Sequence[tuple[str, Fold]]) -> None:
    """Refuse to skip, go on with or join a fold that was trained by another plan than WORK has now."""
    for name, fold in runs:
        file = work.fold(name, fold.name).plan
        if file.is_file() and (key := disagreement(read_plan(file), plan, name)):
            raise PlanError(
                f"{name} fold {fold.name} was trained by another plan than WORK has now: {key} differs",
                file=file,
                remedy=f"Delete {file.parent.name} to train it anew, or use another WORK",
            )


def require_prepared(work: Work, runs: Sequence[tuple[str, Fold]]) -> None:
    """Refuse to train where a case is not in the store, before hours are spent on the folds that come first.

    Raises:
        DatasetError: one is not.
    """
    waiting = [run for run in runs if not is_done(work, *run)]
    for name in dict.fromkeys(name for name, _ in waiting):
        cases = {case for other, fold in waiting if other == name for case in (*fold.train, *fold.held_out)}
        if missing := sorted(cases - set(stored_cases(work.store(name)))):
            some = ", ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
            raise DatasetError(
                f"{len(missing)} of {len(cases)} cases are not prepared for {name} ({some})",
                file=work.store(name),
                remedy=f"Run autoseg plan-and-preprocess DATASET {work.path.name} --config {name}",
            )


def run_folds(work: Work, plan: Plan, runs: Sequence[tuple[str, Fold]], settings: FoldSettings, end: float | None) -> list[Problem]:
    """Run the folds that are not done, each until its share of the time that is left to `end`; what failed, as problems."""
    left = [run for run in runs if not is_done(work, *run) or _is_extended(work.fold(run[0], run[1].name), settings.of(run[0]))]
    problems: list[Problem] = []
    probes: dict[str, Probe] = {}
    for name, fold in runs:
        now = time.monotonic()
        share = None if end is None else (end - now) / max(len(left), 1)
        try:
            if (name, fold) not in left:
                require_same_first_stage(work, name, fold)
                log.info("%s fold %s is done and skipped.", name, fold.name)
                continue
            if share is not None:
                log.info("%s fold %s has %s of the budget.", name, fold.name, clock(share))
            folds = sum(other == name for other, _ in left)
            left.remove((name, fold))
            until = None if share is None else now + share
            run_fold(work, plan, name, fold, settings.of(name), until=until, probes=probes, folds=folds)
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(f"{name} fold {fold.name}")))
            log.error("%s", problem_table(problems[-1:]))
            log.debug("Its traceback:", exc_info=error, extra={"file_only": True})
    return problems


def run_fold(
    work: Work,
    plan: Plan,
    configuration: str,
    fold: Fold,
    settings: FoldSettings,
    *,
    until: float | None,
    probes: dict[str, Probe],
    folds: int,
) -> None:
    """One fold: train it, predict its held-out cases at full size, score them.

    Args:
        until: time.monotonic() at which the last score must be there; None: by epochs.
        probes: what was measured of each configuration; its first fold adds to them, its others follow them.
        folds: how many of this configuration are still to be run, this one included.

    Raises:
        AutosegError: what kept it from its scores; run again, it goes on from there.
    """
    began = time.monotonic()
    folder = work.fold(configuration, fold.name)
    if plan.configurations[configuration].previous_stage:
        hand_over(work, plan, configuration, fold, device=settings.device, quiet=settings.quiet)
    given = read_given(settings.weights, configuration, fold.name) if settings.weights else None
    seconds = None if until is None else max(until - began, 1.0)
    already, trials = resident_gb(), _trials(work, plan, configuration, fold, settings, probes)
    key = given.key if given else None
    resolved = _fold_plan(plan, folder, configuration, fold, settings, seconds=seconds, weights=key, trials=trials)
    log.info("%s fold %s: %d cases to learn from, %d held out.", configuration, fold.name, len(fold.train), len(fold.held_out))
    if warning := require_memory(resolved, configuration, device=settings.device, workers=settings.workers):
        log.warning("%s", warning)
    if settings.probe and configuration not in probes:
        how = {"device": settings.device, "workers": settings.workers, "folds": folds, "trials": trials, "in_use_gb": already}
        probes[configuration] = probe(work, resolved, configuration, fold, **how)
    store, deadline, revise = work.store(configuration), None, None
    if until is not None:
        seconds = expected_seconds(resolved, configuration, store, fold.held_out, device=settings.device)
        deadline = training_deadline(until, seconds, len(fold.held_out))
        revise = revision(work, resolved, configuration, fold, until=until, expected=seconds, device=settings.device)
    keep_cases(folder, fold)
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
        revise=revise,
        given=given,
        extend=settings.extend,
        track=settings.track,
    )
    if fold.held_out:
        write_scores(folder.scores, _score_held_out(work, plan, configuration, fold, settings))
    log.info("%s fold %s is done in %s.", configuration, fold.name, clock(time.monotonic() - began))


def _trials(
    work: Work, plan: Plan, configuration: str, fold: Fold, settings: FoldSettings, probes: Mapping[str, Probe]
) -> tuple[Trial, ...]:
    """Forms of a step that were timed, the fastest first: for this configuration's first fold, or now. Without a probe: none."""
    if configuration in probes:
        return probes[configuration].trials
    if not settings.probe or settings.replay or work.fold(configuration, fold.name).checkpoint.is_file():
        return ()
    return fastest(plan, configuration, fold, work.store(configuration), device=settings.device)


def _fold_plan(
    plan: Plan,
    folder: FoldFolder,
    configuration: str,
    fold: Fold,
    settings: FoldSettings,
    *,
    seconds: float | None,
    weights: str | None,
    trials: Sequence[Trial],
) -> Plan:
    """The plan that the fold is trained by: WORK's with switches and `auto` values resolved, or that of the run it repeats."""
    if settings.replay:
        copy_history(settings.replay, folder, fold, log.warning)
    if folder.replayed.is_file():
        return replayed_plan(plan, configuration, settings.replay or folder.path)
    chosen = trials[0].form if trials else None
    how = {"epochs": settings.epochs, "seconds": seconds, "seed": settings.seed, "device": settings.device}
    return resolved_plan(plan, folder, **how, weights=weights, fastest=chosen)


def validate_folds(work: Work, plan: Plan, runs: Sequence[tuple[str, Fold]], settings: FoldSettings) -> list[Problem]:
    """Predict and score anew what each finished fold held out; nothing is trained. What failed, as problems."""
    problems = []
    for name, fold in runs:
        folder = work.fold(name, fold.name)
        try:
            if not folder.weights.is_file():
                raise TrainingError("it has not finished training", remedy="Train it first: autoseg train")
            if not fold.held_out:
                log.info("%s fold %s holds out no case.", name, fold.name)
                continue
            write_scores(folder.scores, _score_held_out(work, plan, name, fold, settings))
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(f"{name} fold {fold.name}")))
            log.error("%s", problem_table(problems[-1:]))
    return problems


def _score_held_out(work: Work, plan: Plan, configuration: str, fold: Fold, settings: FoldSettings) -> FoldScores:
    """Predict the cases that the fold held out with its own weights, and compare them with their references."""
    store = work.store(configuration)
    with bar(f"{configuration} fold {fold.name}: held-out cases", len(fold.held_out), quiet=settings.quiet) as tick:
        written = predict_held_out(work, configuration, fold.name, fold.held_out, device=settings.device, on_case=tick)
    stored = {case: open_case(store, case) for case in written}
    pairs = [Pair(c, path, work.reference(c), stored[c].origin.content_key, stored[c].annotated) for c, path in written.items()]
    labels, groups = plan.dataset.label_set(), plan.dataset.groups_of_labels
    voxels = sum(math.prod(case.origin.stored.shape) for case in stored.values())
    workers = 0 if voxels < FEW_VOXELS else None
    scores, problems = fold_scores(fold.name, pairs, labels=labels, groups=groups, metrics=plan.evaluation.metrics, workers=workers)
    for problem in problems:
        log.warning("%s", problem_table([problem]))
    return scores


def join_folds(work: Work, plan: Plan, configuration: str) -> CrossValidation:
    """The cross-validation of all folds that are scored, written to crossval.json and crossval.txt, with pictures beside them."""
    behind = [str(extent) for extent in extents(work, [configuration], read_folds(work.folds)) if extent.is_behind and extent.scored]
    result = cross_validate([read_scores(path) for path in scored_folds(work, configuration)], plan.evaluation, behind)
    write_crossval(work.crossval(configuration), result, crossval_text(result))
    draw_cross_validation(work, configuration, result, plan.dataset.label_set())
    return result


def scored_folds(work: Work, configuration: str) -> list[Path]:
    """The scores.json of the folds that are done, in order."""
    return sorted(folder.scores for folder in (work.fold(configuration, n.name) for n in read_folds(work.folds)) if folder.scores.is_file())


def _is_extended(folder: FoldFolder, settings: FoldSettings) -> bool:
    """Whether a fold that is done goes on all the same."""
    if not settings.extend:
        return False
    return settings.epochs is None or read_about(folder.weights)[0]["epochs"] < settings.epochs


def is_done(work: Work, configuration: str, fold: Fold) -> bool:
    return work.fold(configuration, fold.name).state in (("scored",) if fold.held_out else ("scored", "trained"))
