"""How a fold's training begins or goes on, is saved on the way, goes back when it went wrong, is extended, and ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace

from autoseg.errors import PlanError, TrainingError
from autoseg.files import FoldFolder, digest
from autoseg.network.transfer import GivenWeights
from autoseg.network.weights import save_weights
from autoseg.planning.plan_file import read_plan, write_plan
from autoseg.training import history
from autoseg.training.rescue import Collapsed, NotFinite, WentWrong
from autoseg.training.resolving import first_difference
from autoseg.training.session import Session
from autoseg.training.setting import Setting, about
from autoseg.training.start import start_from
from autoseg.training.state import TrainingState, load_checkpoint, save_checkpoint

NORM_SETTLED = 4.0  # steps x momentum after which less than 2 % of running statistics stem from before the first step


def begin_or_resume(
    setting: Setting,
    state: TrainingState,
    folder: FoldFolder,
    given: GivenWeights | None,
    message: Callable[[str], None],
    *,
    extending: bool,
) -> Setting:
    """Take up the fold where its checkpoint left it, or clear the folder, take over given weights and write the fold's plan.

    Args:
        extending: whether a finished run may have another number of epochs than before.

    Returns:
        The setting, whose plan says what became of given weights.

    Raises:
        PlanError: the fold was begun by another plan; or given weights are missing, or others than planned.
    """
    _clear_leftovers(folder)
    content = load_checkpoint(folder, message)
    if content is None:
        folder.weights.unlink(missing_ok=True)
        folder.scores.unlink(missing_ok=True)
        history.keep_rows(folder.history, 0)
        setting = start_from(setting, state, given, message)
        write_plan(folder.plan, setting.plan)
        return setting
    begun = read_plan(folder.plan)
    if difference := first_difference(begun, setting.plan, but_for_epochs=extending and content["values"]["finished"]):
        raise PlanError(
            f"{setting.title} was begun by another plan: {difference}",
            file=folder.plan,
            remedy="Give the settings that it was begun with, delete the fold's folder to train it anew, or, if it has finished, "
            "train it on with --extend",
        )
    state.load_state_dict(content)
    history.keep_rows(folder.history, state.epochs)
    if not state.finished:
        message(f"{setting.title} goes on after {state.epochs} epochs and {state.sums.steps} steps.")
    start = setting.training.start.model_copy(update={"transfer": begun.training.start.transfer})
    return replace(setting, plan=setting.plan.model_copy(update={"training": setting.training.model_copy(update={"start": start})}))


def _clear_leftovers(folder: FoldFolder) -> None:
    """Remove what a killed process was writing: files that appear whole are written under a name that begins with a dot."""
    for path in folder.path.glob(".????????.*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def extend(setting: Setting, state: TrainingState, folder: FoldFolder, deadline: float | None, message: Callable[[str], None]) -> None:
    """Open a finished run again, for more epochs or more time.

    The rule: from here on the learning rate is what the schedule of the longer run has at this point. So it rises again to that value
    and falls to its end once more; `plateau` keeps the rate it had come to. An early stop counts anew. The weights that predict stay
    until those of the longer run replace them; its scores go at once.

    Raises:
        PlanError: there is nothing to extend it by.
    """
    by_time = deadline is not None and setting.training.schedule.name != "plateau"
    if not by_time and setting.training.epochs <= state.epochs:
        raise PlanError(
            f"{setting.title} has finished {state.epochs} epochs, and {setting.training.epochs} are no more",
            remedy=f"Extend it with --epochs {state.epochs + 1} or more",
        )
    folder.scores.unlink(missing_ok=True)
    write_plan(folder.plan, setting.plan)
    steps = setting.training.epochs * setting.training.steps_per_epoch
    left = deadline - time.monotonic() if by_time else 0.0
    state.progress = state.seconds / (state.seconds + max(left, 1.0)) if by_time else min(state.step / steps, 1.0)
    state.early_stop.bad_epochs = 0
    state.finished = False
    save_checkpoint(folder, state)
    message(
        f"{setting.title} had finished after {state.epochs} epochs and is extended: it goes on {state.progress:.0%} of the way through the "
        "schedule of the longer run."
    )


def checkpoint(session: Session) -> None:
    """Write the checkpoint, unless a loss or a weight is no number: then the last one is worth more.

    Raises:
        NotFinite: one is.
    """
    session.read_outcomes()
    if not session.state.is_finite:
        raise NotFinite(session.state.step, session.unread.cases)
    began = time.monotonic()
    save_checkpoint(session.folder, session.state)
    session.clock.note_checkpoint(time.monotonic() - began)


def go_back(session: Session, failure: WentWrong) -> None:
    """Undo what went wrong, with a lower learning rate: the plan's `training.rescue`.

    Raises:
        TrainingError: that was done as often as planned already; it names the last batch's cases.
    """
    setting, state, rule = session.setting, session.state, session.setting.training.rescue
    cases = ", ".join(failure.cases) or "unknown"
    factor, times = state.rate_factor * rule.rate_factor, state.returns + 1
    if times > rule.returns:
        before = f", also after {rule.returns} returns with a lower learning rate" if rule.returns else ""
        raise TrainingError(f"{setting.title}: {failure.what}{before}; the last batch's cases: {cases}", remedy=failure.remedy)
    session.unread.take()
    if isinstance(failure, Collapsed):
        state.go_back_to_sound_weights()
        where = "the weights go back to the best epoch that found it"
    else:
        state.load_state_dict(load_checkpoint(session.folder, session.message))
        history.keep_rows(session.folder.history, state.epochs)
        where = f"back at step {state.step}"
    state.returns = times
    state.change(rate_factor=factor)
    checkpoint(session)
    session.message(f"{setting.title}: {failure.what} (the last batch's cases: {cases}); {where} with the rate x {factor:g}.")


def finish(session: Session) -> None:
    """The last checkpoint, then the weights that predict: their file says that training is done."""
    setting, state, folder = session.setting, session.state, session.folder
    save_checkpoint(folder, state)
    norm = setting.configuration.network.norm
    if norm.name == "batch" and state.step * norm.momentum < NORM_SETTLED:
        session.message(
            f"{setting.title}: batch norm's running statistics with momentum {norm.momentum:g} need some "
            f"{NORM_SETTLED / norm.momentum:.0f} steps and saw {state.step}; expect poor predictions. Train longer, or plan with "
            "--set network.norm.momentum=0.1."
        )
    weights = {
        "best_training_loss": state.best,
        "average": state.average.weights() if state.average else None,
        "last": None,
    }[setting.training.predict_with]
    plan_digest = digest(setting.plan.model_dump(mode="json"))
    save_weights(folder.weights, weights or state.network.state_dict(), about(setting, state, plan_digest))
    session.picture.update(at_last=True)
