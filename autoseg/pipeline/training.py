"""train: stored cases -> fold runs, each with its held-out cases' predictions and scores -> the cross-validation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import Problem
from autoseg.evaluation.crossval import CrossValidation
from autoseg.files import Work, sweep
from autoseg.fold_runs import FoldSettings, is_done, join_folds, require_own_plan, require_prepared, run_folds, scored_folds, validate_folds
from autoseg.network.device import resolve_device
from autoseg.network.factory import require_trust
from autoseg.planning.extents import with_own_cases
from autoseg.planning.folds import read_folds
from autoseg.planning.plan_file import read_plan
from autoseg.planning.planner import chosen_configurations
from autoseg.planning.schema import Plan
from autoseg.stages import runs_in_order
from autoseg.training.replay import replayed_fold


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
    sweep(work)
    plan = read_plan(folder.plan)
    require_trust(plan, trust_code=trust_code)
    if replay:
        configurations, folds = replayed_fold(replay)
    names = chosen_configurations(plan, configurations)
    processes = 1 if workers is None else workers
    settings = FoldSettings(
        epochs, seed, resolve_device(device), processes, quiet, weights, extend, replay, tuple(track), tuple(names), probe
    )
    every = read_folds(folder.folds)
    runs = with_own_cases(folder, runs_in_order(plan, names, every, folds))

    require_own_plan(folder, plan, runs)
    require_prepared(folder, runs)
    problems = validate_folds(folder, plan, runs, settings) if validate_only else run_folds(folder, plan, runs, settings, end)
    crossvals = {name: join_folds(folder, plan, name) for name in plan.every_stage(names) if scored_folds(folder, name)}
    done = tuple((name, fold.name) for name, fold in runs if is_done(folder, name, fold))
    whole = all(folder.fold(name, fold.name).state == "scored" for name in names for fold in every)
    return Trained(folder, plan, done, tuple(problems), crossvals, whole)
