"""What train's switches and the plan's `auto` values come to for one fold, written into its own plan."""

from __future__ import annotations

from autoseg.files import FoldFolder
from autoseg.network.precision import resolve_memory_layout, resolve_precision
from autoseg.planning.plan_file import read_plan
from autoseg.planning.schema import Plan


def resolved_plan(plan: Plan, folder: FoldFolder, *, epochs: int | None, seconds: float | None, seed: int | None, device: str) -> Plan:
    """The plan that a fold is trained by. A fold that was begun keeps what was resolved for it, unless a switch says otherwise.

    Args:
        epochs, seed: instead of the plan's.
        seconds: the fold's share of a budget, held-out cases included; it takes the place of the epochs.
        device: the torch device that trains; precision and layout are resolved for it.

    Raises:
        ResourceError: the device lacks the planned precision.
    """
    training = plan.training
    if folder.checkpoint.is_file() and folder.plan.is_file():
        begun = read_plan(folder.plan).training
        resolved = {key: getattr(begun, key) for key in ("epochs", "budget_seconds", "seed", "precision", "memory_layout")}
    else:
        resolved = {
            "precision": resolve_precision(training.precision, device),
            "memory_layout": resolve_memory_layout(training.memory_layout, device),
        }
    if epochs is not None:
        resolved |= {"epochs": epochs, "budget_seconds": None}
    if seconds is not None:
        resolved |= {"budget_seconds": round(seconds, 1)}
    if seed is not None:
        resolved |= {"seed": seed}
    return plan.model_copy(update={"training": training.model_copy(update=resolved)})
