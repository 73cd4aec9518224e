"""How a WORK stands: what came since its plan was made, what a new plan would move, and how far its folds are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoseg.errors import AutosegError, Problem
from autoseg.files import Work
from autoseg.fingerprint.checks.copies import suggested_groups
from autoseg.fingerprint.measure import Measurement
from autoseg.forecast_file import describe as describe_probe
from autoseg.forecast_file import kept as kept_probes
from autoseg.planning.extents import Extent, extents
from autoseg.planning.folds import read_folds
from autoseg.planning.keeping import CaseChanges, case_changes
from autoseg.planning.moves import Move, moves, moves_text, new_plan
from autoseg.planning.schema import Plan


@dataclass(frozen=True)
class Comparison:
    """A dataset against the WORK that was made from it.

    changes: cases that are new, changed or gone.
    moves: what a new plan would have otherwise; None if none can be made, which `obstacle` then says.
    extents: folds that have begun.
    """

    changes: CaseChanges
    moves: tuple[Move, ...] | None
    obstacle: str | None
    extents: tuple[Extent, ...]

    def as_json(self) -> dict[str, Any]:
        """For `doctor --json`."""
        return {
            "cases": {key: list(names) for key, names in asdict(self.changes).items()},
            "moves": None if self.moves is None else [move.as_json() for move in self.moves],
            "obstacle": self.obstacle,
            "folds": [asdict(extent) | {"behind": extent.is_behind} for extent in self.extents],
        }

    def __str__(self) -> str:
        lines = [f"Since WORK was prepared: {str(self.changes) or 'no case has changed'}."]
        lines += [f"{extent}." for extent in self.extents if extent.is_behind]
        lines.append(moves_text(self.moves) if self.moves is not None else f"No new plan can be made to compare with: {self.obstacle}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Diagnosis:
    """What doctor finds. comparison: with WORK, where one was given."""

    measured: Measurement
    comparison: Comparison | None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of single cases, and of the dataset as a whole."""
        return self.measured.problems

    @property
    def groups(self) -> dict[str, str]:
        """Case -> patient, where ids look so and the dataset says nothing of groups."""
        return {} if self.measured.dataset.groups else suggested_groups(self.measured.fingerprint.cases)

    def as_json(self) -> dict[str, Any]:
        """What `doctor --json` prints."""
        return {
            "cases": sorted(self.measured.fingerprint.cases),
            "problems": [asdict(problem) for problem in self.problems],
            "suggested_groups": self.groups,
            "work": None if self.comparison is None else self.comparison.as_json(),
        }


def compare(work: Work, kept: Plan, measured: Measurement) -> Comparison:
    """A measured dataset against the WORK that was made from it."""
    found, obstacle = None, None
    try:
        found = tuple(moves(kept, new_plan(work, kept, measured)))
    except AutosegError as error:
        obstacle = str(error)
    folds = read_folds(work.folds) if work.folds.is_file() else []
    return Comparison(case_changes(work, measured), found, obstacle, tuple(extents(work, kept.configurations, folds)))


def kept_note(work: Work, kept: Plan, measured: Measurement) -> str:
    """One line on a plan that is kept: whether cases changed since, and what a new plan would move."""
    changes = str(case_changes(work, measured))
    if not changes:
        return "No case has changed since"
    found = compare(work, kept, measured).moves or ()
    deep = sum(move.matters for move in found)
    return f"Cases changed since: {changes}. A new plan would change {len(found)} values, {deep} of which images or networks depend on"


def folds_text(work: Work, plan: Plan) -> str:
    """How far each fold of the configurations that are trained unasked is, what it was trained on, and what probes measured."""
    folds = read_folds(work.folds)
    names = plan.every_stage(plan.default_configurations)
    behind = {(e.configuration, e.fold): e for e in extents(work, names, folds)}
    lines = [_fold_line(work, name, fold.name, behind.get((name, fold.name))) for name in names for fold in folds]
    lines += [_fold_line(work, name, "full", extent) for (name, fold), extent in behind.items() if fold == "full"]
    lines += [describe_probe(name, probed) for name, probed in kept_probes(work).items()]
    return "\n".join([*lines, *_advice([extent for extent in behind.values() if extent.is_behind])])


def _fold_line(work: Work, configuration: str, fold: int | str, extent: Extent | None) -> str:
    state = work.fold(configuration, fold).state
    return f"{configuration} fold {fold}: {state}" + (f", {str(extent).split(': ', 1)[1]}" if extent else "")


def _advice(behind: Sequence[Extent]) -> list[str]:
    if not behind:
        return []
    return [
        "Cases have joined since these folds began. `autoseg train WORK --validate-only` scores the new held-out ones; to learn from the "
        "new ones, delete a fold's folder and train it again."
    ]
