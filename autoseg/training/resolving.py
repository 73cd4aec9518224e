"""What train's switches and the plan's `auto` values come to for one fold, written into its own plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import FoldFolder
from autoseg.network.precision import StepForm, resolve_compile, resolve_memory_layout, resolve_precision
from autoseg.planning.keeping import disagreement
from autoseg.planning.plan_file import read_plan
from autoseg.planning.schema import Plan, TrainingPlan

# what a fold keeps from its beginning, unless a switch says otherwise
_KEPT = ("epochs", "budget_seconds", "seed", "precision", "memory_layout", "compile", "start")
# what says why or for how long, but not how a fold is trained
_APART = {
    *("reasons", "forecast", "autoseg_version", "created_from", "made_for", "recipe", "recipe_options", "default_configurations"),
    *("prediction", "postprocessing", "evaluation", "folds"),
}
_FREE = ("training.budget_seconds", "training.start.transfer", "training.checkpoint_minutes", "training.compile")


def resolved_plan(
    plan: Plan,
    folder: FoldFolder,
    *,
    epochs: int | None,
    seconds: float | None,
    seed: int | None,
    device: str,
    weights: str | None = None,
    fastest: StepForm | None = None,
) -> Plan:
    """The plan that a fold is trained by. A fold that was begun keeps what was resolved for it, unless a switch says otherwise.

    Args:
        epochs, seed: instead of the plan's.
        seconds: the fold's share of a budget, held-out cases included; it takes the place of the epochs.
        device: the torch device that trains; precision, layout and compiling are resolved for it.
        weights: content key of given weights to start from.
        fastest: the form of a step that a probe found to be the fastest; None: by rule where the plan says `auto`.

    Raises:
        ResourceError: the device lacks the planned precision.
    """
    training = plan.training
    if folder.checkpoint.is_file() and folder.plan.is_file():
        begun = read_plan(folder.plan).training
        resolved: dict[str, Any] = {key: getattr(begun, key) for key in _KEPT}
        if training.compile != "auto":  # it changes no result but for rounding, and a machine may lack the compiler
            resolved |= {"compile": training.compile}
    else:
        resolved = _step_form(training, device)._asdict() if fastest is None else fastest._asdict()
    if epochs is not None:
        resolved |= {"epochs": epochs, "budget_seconds": None}
    if seconds is not None:
        resolved |= {"budget_seconds": round(seconds, 1)}
    if seed is not None:
        resolved |= {"seed": seed}
    if weights is not None:
        start = resolved.get("start", training.start)
        resolved |= {"start": start.model_copy(update={"weights": weights})}
    return plan.model_copy(update={"training": training.model_copy(update=resolved)})


def _step_form(training: TrainingPlan, device: str) -> StepForm:
    """By rule; nothing is timed."""
    precision, layout = resolve_precision(training.precision, device), resolve_memory_layout(training.memory_layout, device)
    return StepForm(precision, layout, resolve_compile(training.compile))


def replayed_plan(plan: Plan, configuration: str, source: Path) -> Plan:
    """The plan by which a fold was trained that is to be repeated, for a WORK with this plan.

    Args:
        source: the folder of that fold.

    Raises:
        PlanError: it holds no plan, or one for other networks or other prepared images.
    """
    file = FoldFolder(source).plan
    replayed = read_plan(file)
    if configuration not in replayed.configurations:
        raise PlanError(f"that fold's plan has no {configuration}", file=file, remedy="Name its configuration with --config")
    if key := disagreement(replayed, plan, configuration):
        raise PlanError(f"it was trained by another plan than WORK has: {key} differs", file=file, remedy="Use a WORK with that plan")
    return plan.model_copy(update={"training": replayed.training, "configurations": replayed.configurations})


def first_difference(before: Plan, now: Plan, *, but_for_epochs: bool = False) -> str | None:
    """The first key, by name, at which two plans disagree on how a fold is trained, with both values."""

    def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for name in sorted(value):
                yield from flat(value[name], f"{key}.{name}" if key else name)
        else:
            yield key, value

    old, new = (dict(flat(p.model_dump(mode="json", exclude=_APART))) for p in (before, now))
    free = (*_FREE, "training.epochs") if but_for_epochs else _FREE
    for key in sorted({*old, *new}):
        if not key.startswith(free) and old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r} and is {new.get(key)!r}"
    return None
