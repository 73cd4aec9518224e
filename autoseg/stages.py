"""A cascade's stages, one after the other: which folds come first, and what the first stage hands to the second.

The second stage learns from what the first one finds. On a case that it was trained on the first would find too much, and the second
learn to trust it; so the input of every case comes from the fold of the first stage that held it out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError, TrainingError
from autoseg.files import Work, digest
from autoseg.inference.first_stage import first_stage_change, note_first_stage
from autoseg.inference.held_out import predict_held_out
from autoseg.network.weights import read_about
from autoseg.parallel import map_cases, worker_count
from autoseg.planning.folds import Fold, choose_folds, read_folds
from autoseg.planning.schema import Plan
from autoseg.preprocessing.previous_stage import MadeBy, has_previous, store_found
from autoseg.preprocessing.store import open_case
from autoseg.progress import bar

log = logging.getLogger("autoseg")

_WORKER_GB = 3.0  # imports, and a label map of 1000 slices as it is read, turned and brought to another grid
_FEW = 16  # cases that are sooner done than a process is started


def runs_in_order(plan: Plan, configurations: Iterable[str], folds: Sequence[Fold], wanted: Sequence[int | str]) -> list[tuple[str, Fold]]:
    """(configuration, fold) of all that must be trained for the folds that are asked for.

    Any fold of a cascade's second stage needs the whole cross-validation of the first, since every case's input is an out-of-fold
    prediction; its `full` model needs that for its training, and the first stage's `full` model to predict with.

    Args:
        folds: the cross-validation.
        wanted: numbers, "all" or "full".

    Raises:
        PlanError: there is no such fold.
    """
    own = choose_folds(folds, wanted)
    first = choose_folds(folds, ["all", *(["full"] if "full" in wanted else [])])
    runs = [(stage, fold) for name in configurations for stage in plan.stages(name) for fold in (own if stage == name else first)]
    return list(dict.fromkeys(runs))


def hand_over(work: Work, plan: Plan, configuration: str, fold: Fold, *, device: str, quiet: bool) -> None:
    """Give the second stage's store what the first stage found of each case, by the fold that held it out, before `fold` trains on it.

    What is there already, made by the first stage's folds as they are now, is not made again.

    Raises:
        TrainingError: a fold of the first stage is not trained, or trained on a case that it should have held out.
        PlanError: `fold` was begun or trained on what the first stage found before it was trained anew.
    """
    first, store = plan.configurations[configuration].previous_stage, work.store(configuration)
    require_same_first_stage(work, configuration, fold)
    weights, waiting = {}, []
    for earlier in read_folds(work.folds):
        weights[earlier.name] = _out_of_fold(work, first, earlier)
        found = _label_maps(work, first, earlier, device=device, quiet=quiet)
        for case, path in found.items():
            made_by = MadeBy(first, earlier.name, weights[earlier.name], digest(path.read_bytes()))
            if not has_previous(open_case(store, case), made_by):
                waiting.append(_Handed(store, case, path, made_by, plan.dataset.label_set()))
    if waiting:
        log.info("%s gets what %s found of %d cases, each by the fold that held it out.", configuration, first, len(waiting))
        with bar(f"{first} to {configuration}", len(waiting), quiet=quiet) as tick:
            _hand_over_all(waiting, tick)
    note_first_stage(work.fold(configuration, fold.name), first, weights)


def require_same_first_stage(work: Work, configuration: str, fold: Fold) -> None:
    """Refuse to go on with, or to skip as done, a fold of a second stage whose first stage has been trained anew since.

    Raises:
        PlanError: it has.
    """
    folder = work.fold(configuration, fold.name)
    if folder.state != "not begun" and (change := first_stage_change(work, configuration, fold.name)):
        raise PlanError(change, file=folder.previous_stage, remedy=f"Delete {folder.path.name} of {configuration} to train it anew")


@dataclass(frozen=True)
class _Handed:
    """One case's label map on its way to the second stage's store."""

    store: Path
    case: str
    label_map: Path
    made_by: MadeBy
    labels: LabelSet


def _store(handed: _Handed) -> None:
    store_found(handed.store, handed.case, handed.label_map, handed.labels, handed.made_by)


def _hand_over_all(waiting: Sequence[_Handed], tick: Callable[[str], None]) -> None:
    workers = 0 if len(waiting) < _FEW else worker_count(len(waiting), _WORKER_GB)
    for outcome in map_cases(_store, waiting, workers=workers, name=lambda handed: handed.case):
        if outcome.error is not None:
            raise outcome.error.in_case(outcome.item.case)
        tick(outcome.item.case)


def _out_of_fold(work: Work, first: str, fold: Fold) -> str:
    """The key of the weights of a fold of the first stage, once it is known not to have seen what it holds out."""
    file = work.fold(first, fold.name).weights
    if not file.is_file():
        raise TrainingError(
            f"it needs what {first} fold {fold.name} finds, which has not finished training",
            remedy="Give the same command again: folds that are done are skipped",
        )
    about, key = read_about(file)
    if seen := sorted(set(about["trained_on"]) & set(fold.held_out)):
        cases = ", ".join(seen[:3]) + (f" and {len(seen) - 3} more" if len(seen) > 3 else "")
        raise TrainingError(
            f"{first} fold {fold.name} was trained on {cases}, which folds.json has as held out",
            file=file,
            remedy=f"Restore folds.json, or delete {file.parent.name} of {first} to train it anew",
        )
    return key


def _label_maps(work: Work, first: str, fold: Fold, *, device: str, quiet: bool) -> dict[str, Path]:
    """Case -> what the fold found of it; cases that joined the fold after it had finished are predicted now."""
    folder = work.fold(first, fold.name).held_out
    found = {case: folder / f"{case}.nii.gz" for case in fold.held_out}
    missing = [case for case, path in found.items() if not path.is_file()]
    if missing:
        with bar(f"{first} fold {fold.name}: held-out cases", len(missing), quiet=quiet) as tick:
            predict_held_out(work, first, fold.name, missing, device=device, on_case=tick)
    return found
