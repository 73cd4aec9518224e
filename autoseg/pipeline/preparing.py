"""plan-and-preprocess: Dataset -> Fingerprint -> Plan -> stored cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.data.choices import Choices, settled_choices
from autoseg.data.key import read_key
from autoseg.errors import DatasetError, Problem, excluded_cases, problem_table
from autoseg.files import Work, locked, sweep
from autoseg.fingerprint.checks import check
from autoseg.fingerprint.kept import KeptMeasures
from autoseg.fingerprint.measure import Measurement
from autoseg.parallel import require_shared
from autoseg.pipeline.checking import measured_dataset
from autoseg.planning import folds as splitting
from autoseg.planning.keeping import require_agreement, split_cases, write_decisions
from autoseg.planning.machine import machine
from autoseg.planning.overrides import planning_options
from autoseg.planning.plan_file import read_plan
from autoseg.planning.planner import chosen_configurations, reading_orientation
from autoseg.planning.planner import plan as make_plan
from autoseg.planning.recipe import Recipe
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import Plan
from autoseg.preprocessing.preprocess import preprocess
from autoseg.progress import bar
from autoseg.standing import kept_note

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
    if not dry_run:
        sweep(work)
    asked = planning_options(settings, memory_gb, seed, configurations)
    kept = read_plan(folder.plan) if folder.plan.is_file() and not replan else None
    chosen = None if kept else load_recipe(recipe or "auto")
    orientation = kept.dataset.orientation if kept else reading_orientation(chosen, asked)
    reading = settled_choices(choices or Choices(), folder.dataset, replan=replan)
    labels = kept.dataset.label_set() if kept else None
    how = {"labels": labels, "cluster": cluster, "kept": KeptMeasures(folder.measured, writes=not dry_run)}
    measured = measured_dataset(dataset, orientation, reading, read_key(folder.key), workers, quiet, **how)
    if strict and excluded_cases(measured.problems):
        raise DatasetError(
            f"--strict refuses cases with errors:\n{problem_table(measured.problems)}\n", remedy="Mend these, or go on without --strict"
        )

    with ThreadPoolExecutor(1) as aside:
        doubts = aside.submit(check, measured.dataset, measured.fingerprint)  # comparing all cases takes a while, and nothing waits for it
        if kept:
            require_agreement(kept, measured.dataset, recipe=recipe, options=asked, file=folder.plan)
            plan = kept
            log.info("The plan of %s is kept (--replan makes a new one). %s.", folder.path.name, kept_note(folder, kept, measured))
        else:
            made_for = machine(device, card_gb=chosen.reference_machine.memory_gb)
            plan = make_plan(measured.dataset, measured.fingerprint, chosen, made_for=made_for, options=asked)
        stages = plan.every_stage(chosen_configurations(plan, configurations))
        planned = Planned(folder, plan, tuple(stages), measured, measured.problems)
        folds = split_cases(folder, plan, measured, left_out=planned.failed, fresh=kept is None)
        if not dry_run:
            planned = _stored(planned, folds, chosen, workers, cluster, quiet)
    return replace(planned, problems=tuple(dict.fromkeys([*planned.problems, *doubts.result()])))


def _stored(
    planned: Planned, folds: Sequence[splitting.Fold], recipe: Recipe | None, workers: int | None, cluster: str | None, quiet: bool
) -> Planned:
    """What was decided and the cases, written; what failed is among the problems, and in no fold. recipe: None where a plan is kept."""
    folder, plan, measured = planned.work, planned.plan, planned.measured
    with locked(folder.lock, f"the preprocessed cases of {folder.path.name}"):
        write_decisions(folder, plan, measured, folds, recipe=recipe)
        with bar("preprocessing", len(measured.dataset.cases), quiet=quiet) as tick:
            crew = {"workers": workers, "cluster": cluster, "on_case": tick}
            failed = preprocess(measured.dataset, measured.fingerprint, plan, folder, configurations=planned.stages, **crew)
        if failed and len(failed) == len(measured.dataset.cases):
            raise DatasetError(f"no case could be prepared:\n{problem_table(failed)}\n", remedy="Mend these and run the command again")
        if failed:
            planned = replace(planned, problems=(*planned.problems, *failed))
            left = split_cases(folder, plan, measured, left_out=planned.failed, fresh=recipe is not None)
            splitting.write_folds(folder.folds, left)
    return planned
