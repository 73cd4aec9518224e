"""Where a fold's weights come from: fresh ones, or given ones as far as they fit, some of them frozen at first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoseg.errors import PlanError
from autoseg.network.transfer import GivenWeights, take_over
from autoseg.planning.schema import TransferPlan
from autoseg.preprocessing.store import open_case
from autoseg.training.setting import Setting, input_names, output_names
from autoseg.training.state import TrainingState

SHOWN = 8  # tensors that a message names


def start_from(setting: Setting, state: TrainingState, given: GivenWeights | None, message: Callable[[str], None]) -> Setting:
    """Take over given weights into the fresh network; the setting with what became of them in its plan.

    Raises:
        PlanError: the plan names given weights that are missing or others; a held-out case was among those they were trained on; or
            nothing would be left to train while what was taken is frozen.
        ModelError: nothing of them fits.
    """
    start = setting.training.start
    if given is None:
        if start.weights is not None or start.freeze_epochs:
            raise PlanError(
                "training.start asks for given weights" if start.weights else "training.start.freeze_epochs freezes given weights",
                remedy="Give them with --weights, or plan with training.start.weights null and freeze_epochs 0",
            )
        return setting
    if start.weights not in (None, given.key):
        raise PlanError(f"training.start.weights is {start.weights}, {given.source} has {given.key}", remedy="Give the planned weights")
    _require_unseen(setting, given, message)
    transfer = take_over(
        state.network, given, inputs=input_names(setting), outputs=output_names(setting.labels), regions=setting.labels.regions
    )
    if state.average is not None:
        state.average.restart(state.network)
    if start.freeze_epochs and not {name for name, _ in state.network.named_parameters()} - set(transfer.taken):
        raise PlanError(
            f"every weight was taken from {given.source}, so that nothing is left to train in the {start.freeze_epochs} frozen epochs",
            remedy="Plan with --set training.start.freeze_epochs=0",
        )
    for line in told(transfer, start.freeze_epochs):
        message(f"{setting.title}: {line}")
    start = start.model_copy(update={"weights": given.key, "transfer": transfer})
    return replace(setting, plan=setting.plan.model_copy(update={"training": setting.training.model_copy(update={"start": start})}))


def frozen_now(setting: Setting, epochs: int) -> frozenset[str]:
    """The tensors that stay as they are in the epoch after so many: all that was taken whole, for `freeze_epochs`."""
    start = setting.training.start
    return frozenset(start.transfer.taken) if start.transfer and epochs < start.freeze_epochs else frozenset()


def _require_unseen(setting: Setting, given: GivenWeights, message: Callable[[str], None]) -> None:
    """Held-out cases steer nothing, also not by way of given weights."""
    if not setting.fold.held_out:
        return
    if given.trained_on is None:
        message(
            f"{setting.title}: it is not known which cases {given.source} was trained on; if this fold's held-out cases are among them, "
            "its scores are too good."
        )
        return
    store = setting.sources["train"].store
    seen = [case for case in setting.fold.held_out if open_case(store, case).origin.content_key in given.trained_on]
    if seen:
        raise PlanError(
            f"{given.source} was trained on {len(seen)} of the {len(setting.fold.held_out)} cases that this fold holds out: {seen[0]} ...",
            remedy="Give weights of a fold that held them out too, or train --fold full",
        )


def told(transfer: TransferPlan, freeze_epochs: int) -> list[str]:
    """What was taken and what was left, in a few lines; the fold's plan.json has every name."""
    count = len(transfer.taken) + len(transfer.partly) + len(transfer.left)
    lines = [
        f"starts from {transfer.source}: {len(transfer.taken)} of {count} tensors taken whole, {len(transfer.partly)} in part, "
        f"{len(transfer.left)} left fresh; {len(transfer.unused)} of the given ones are not used."
    ]
    lines += _shortened([f"{name}: {what}" for name, what in transfer.partly.items()])
    lines += _shortened([f"{name} is fresh: {why}" for name, why in transfer.left.items()])
    if freeze_epochs:
        lines.append(
            f"what was taken whole is frozen for {freeze_epochs} epochs, its norms' running statistics included; the rest is trained."
        )
    return lines


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]
