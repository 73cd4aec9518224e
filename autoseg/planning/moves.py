"""How far a new plan would move from the one that is kept: key by key, and which of it matters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoseg.files import Work
from autoseg.fingerprint.measure import Measurement
from autoseg.planning.keeping import recipe_of, what_matters
from autoseg.planning.planner import plan as make_plan
from autoseg.planning.schema import Plan

LITTLE = 0.05  # relative change of a number up to which a move is called small: cases differ by more among themselves
_FIGURES = ("median_shape", "original_median")  # they describe the data and decide nothing
_APART = {"autoseg_version", "recipe", "recipe_options", "created_from", "made_for", "forecast", "reasons"}


@dataclass(frozen=True)
class Move:
    """One value of the plan that a new plan would have otherwise.

    before, after: None where the key is in one plan only.
    matters: whether prepared images or networks depend on it, so that folds of both plans cannot be joined.
    change: relative change of the number, or of the number of a list that changes most; None for other values.
    """

    key: str
    before: Any
    after: Any
    matters: bool
    change: float | None

    def as_json(self) -> dict[str, Any]:
        """For `doctor --json`."""
        return asdict(self)


def new_plan(work: Work, kept: Plan, measured: Measurement) -> Plan:
    """What the recipe, settings and machine of WORK's plan would make of the dataset as it is now.

    Raises:
        PlanError: its recipe is not there any more, or its settings are impossible for these data.
    """
    recipe = recipe_of(work, kept)
    return make_plan(measured.dataset, measured.fingerprint, recipe, made_for=kept.made_for, options=kept.recipe_options)


def moves(kept: Plan, new: Plan) -> list[Move]:
    """Every value at which the two plans differ, those that matter first; figures that decide nothing are left out."""
    names = {*kept.configurations, *new.configurations}
    deep = {key for plan in (kept, new) for name in names for key, _ in _flat(what_matters(plan, name))}
    before, after = (dict(_flat(plan.model_dump(mode="json", exclude=_APART))) for plan in (kept, new))
    found = []
    for key in dict.fromkeys((*before, *after)):
        old, now = before.get(key), after.get(key)
        if old != now and not any(part in _FIGURES for part in key.split(".")):
            found.append(Move(key, old, now, key in deep, _change(old, now)))
    return sorted(found, key=lambda move: not move.matters)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; a list of objects by position, any other list as one value."""
    inner: Any = None
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        inner = enumerate(value)
    if not inner:
        yield key, value
        return
    for name, entry in inner:
        yield from _flat(entry, f"{key}.{name}" if key else str(name))


def _change(old: Any, now: Any) -> float | None:
    pairs = list(zip(old, now, strict=True)) if isinstance(old, list) and isinstance(now, list) and len(old) == len(now) else [(old, now)]
    if not pairs or not all(isinstance(n, int | float) and not isinstance(n, bool) for pair in pairs for n in pair):
        return None
    return max(abs(b - a) / max(abs(a), abs(b)) if a != b else 0.0 for a, b in pairs)


def moves_text(found: Sequence[Move]) -> str:
    """What `doctor DATASET WORK` says of them: a judgement, then a line a value."""
    if not found:
        return "A new plan would be the same as the one that is kept."
    lines = [_judgement(found), ""]
    for move in found:
        change = "" if move.change is None else f" ({move.change:.1%})"
        lines.append(f"  {'matters' if move.matters else 'lesser '}  {move.key}: {_short(move.before)} -> {_short(move.after)}{change}")
    return "\n".join(lines)


def _judgement(found: Sequence[Move]) -> str:
    count = f"A new plan would change {len(found)} value{'s' if len(found) != 1 else ''}"
    deep = [move for move in found if move.matters]
    if not deep:
        return f"{count}, none of which prepared images or networks depend on. The plan that is kept goes on to serve."
    if all(move.change is not None and move.change <= LITTLE for move in deep):
        most = max(move.change for move in deep)
        return f"{count}; those that images and networks depend on move by {most:.1%} at most. The plan that is kept goes on to serve."
    return (
        f"{count}, {len(deep)} of which prepared images or networks depend on: with --replan, or better in another WORK, all would be "
        "prepared and trained anew."
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps([float(f"{n:.6g}") if isinstance(n, float) else n for n in value] if isinstance(value, list) else value)
    return text if len(text) <= 60 else text[:57] + "..."
