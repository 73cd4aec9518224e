"""The loop that trains one fold. `train_fold` is the whole of it; what it calls follows in the order of use."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoseg.files import FoldFolder, locked
from autoseg.network.precision import autocast
from autoseg.network.transfer import GivenWeights
from autoseg.planning.folds import Fold
from autoseg.planning.schema import Plan
from autoseg.training import checkpoints, history
from autoseg.training.augmentation import in_processes
from autoseg.training.clock import Clock
from autoseg.training.determinism import kernels
from autoseg.training.interruption import Interruption, Stopped
from autoseg.training.optimisation import set_learning_rate
from autoseg.training.patches import SampleMaker
from autoseg.training.replay import read_replay
from autoseg.training.rescue import Collapsed, NotFinite, WentWrong
from autoseg.training.sampling import tickets
from autoseg.training.session import Session, Unread
from autoseg.training.setting import Setting, fresh_state, make_setting
from autoseg.training.start import frozen_now
from autoseg.training.state import TrainingState, copy_weights
from autoseg.training.step import Batch, Outcome, current_rate, make_batch, read, scalars, train_step
from autoseg.training.targets import dice, overlap_counts
from autoseg.training.threads import SampleThreads
from autoseg.training.tracking import make_loggers
from autoseg.training.watching import ProgressPicture, StepLine
from autoseg.training.workers import SamplePool

Revise = Callable[[nn.Module], float]
Samples = SamplePool | SampleThreads

WORKER_TIMEOUT = 600.0  # seconds; a sample takes seconds at most, a sleeping network disk perhaps a minute


@dataclass(frozen=True)
class FoldRun:
    """What became of one fold's training. epochs counts history rows, a last one cut short included."""

    folder: FoldFolder
    epochs: int
    steps: int
    seconds: float
    finished: bool


def train_fold(
    plan: Plan,
    configuration: str,
    fold: Fold,
    store: Path,
    folder: FoldFolder,
    *,
    device: str,
    workers: int,
    deadline: float | None,
    quiet: bool,
    message: Callable[[str], None],
    revise: Revise | None = None,
    given: GivenWeights | None = None,
    extend: bool = False,
    track: Sequence[str] = (),
) -> FoldRun:
    """Train one fold of one configuration, going on from its checkpoint if there is one.

    The same plan, seed and epochs give the same weights on a CPU, whatever the number of workers and however often the run was
    interrupted. Held-out cases are looked at each epoch and steer nothing. Ctrl-C and SIGTERM write a checkpoint between two steps.
    What is done when training goes wrong is the plan's `training.rescue`; see `rescue`.

    Args:
        plan: with everything resolved; it is written to `folder.plan` before the first step.
        store: folder of the configuration's prepared cases.
        folder: a history at `folder.replayed` is repeated step by step, in place of deadline and budget.
        device: a torch device that is there.
        workers: processes that make samples; 0 makes them in this one.
        deadline: time.monotonic() at which training must have ended, its weights written; the schedule is fitted to it. None: by epochs.
        quiet: no progress line on stderr.
        message: takes what the user should know.
        revise: gives the deadline anew, late in training, from the network as it is then.
        given: weights to start from; a fold that was begun needs them no more.
        extend: go on if it has finished, for more epochs or time; see `checkpoints.extend`.
        track: experiment trackers; see `tracking.make_loggers`.

    Raises:
        BusyError: another process trains this fold.
        PlanError: the fold was begun by another plan, or the plan asks for what training does not know.
        ModelError: nothing of the given weights fits.
        ResourceError: the device lacks the planned precision; memory or disk is full.
        TrainingError: a worker failed or hung; training went wrong for good, with the last batch's cases; no checkpoint can be read.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with (
        locked(folder.lock, f"{configuration} fold {fold.name}"),
        torch.random.fork_rng(cuda),
        kernels(plan.training.deterministic, device),
        Interruption() as interruption,
    ):
        setting = make_setting(plan, configuration, fold, store, device)
        state = fresh_state(setting)
        setting = checkpoints.begin_or_resume(setting, state, folder, given, message, extending=extend)
        if extend and state.finished:
            checkpoints.extend(setting, state, folder, deadline, message)
        session = _session(setting, state, folder, interruption, deadline=deadline, quiet=quiet, track=track, message=message)
        try:
            if not (state.finished and folder.weights.is_file()):
                _train(session, workers, revise)
            interruption.stop_here_if_asked()
        except Stopped:
            with contextlib.suppress(NotFinite):  # then the last checkpoint stands
                checkpoints.checkpoint(session)
            message(f"{setting.title} was interrupted after {state.step} steps; the same command goes on from there.")
            raise KeyboardInterrupt from None
        finally:
            session.line.end()
    return FoldRun(folder, state.epochs, state.step, state.seconds, state.finished)


def _session(
    setting: Setting,
    state: TrainingState,
    folder: FoldFolder,
    interruption: Interruption,
    *,
    deadline: float | None,
    quiet: bool,
    track: Sequence[str],
    message: Callable[[str], None],
) -> Session:
    replay = read_replay(folder.replayed) if folder.replayed.is_file() else None
    return Session(
        setting,
        state,
        Clock(setting.training, reached=state.progress, trained=state.seconds, deadline=deadline, replay=replay),
        folder,
        interruption,
        StepLine(setting.title, quiet=quiet),
        ProgressPicture(folder.history, folder.progress),
        make_loggers(track, folder.path, epochs=state.epochs, message=message),
        message,
        Unread(setting.device),
    )


def _train(session: Session, workers: int, revise: Revise | None) -> None:
    """Train to the end, going back where something went wrong; then write the weights."""
    checkpoints.checkpoint(session)
    while not session.state.finished:
        try:
            _run_epochs(session, workers, revise)
        except WentWrong as failure:
            checkpoints.go_back(session, failure)
    checkpoints.finish(session)


def _run_epochs(session: Session, workers: int, revise: Revise | None) -> None:
    """Epoch after epoch, until the planned number, the deadline or the early stop; of a replay, until an epoch that was cut short."""
    setting, state, clock = session.setting, session.state, session.clock
    size, planned = setting.configuration.batch_size, setting.training.steps_per_epoch
    if clock.is_over(state.epochs):
        state.finished = True
        return
    wanted = tickets(state.epochs, state.sums.steps, planned, clock.last_epoch, size, setting.held_out_batches)
    make = SampleMaker(setting.sources)
    pool = SamplePool if in_processes(setting.training.augmentation) else SampleThreads
    with pool(make, wanted, workers=workers, ahead=2 * size + workers, timeout=WORKER_TIMEOUT) as samples:
        over = False
        while not over:
            steps = clock.steps_in(state.epochs)
            state.freeze(frozen_now(setting, state.epochs))
            session.line.begin(state.epochs, clock.last_epoch, state.sums.steps, steps)
            while session.steps_of_epoch < steps and (state.step == 0 or clock.has_time_for(1)):
                _one_step(session, samples)
                if revise and clock.revision_is_due():
                    clock.move_deadline(revise(state.network))
            session.read_outcomes()
            cut = state.sums.steps < planned
            over = cut or not clock.has_time_for(setting.held_out_batches)
            held_out = None if over else _look_at_held_out(session, samples)
            if state.sums.steps:
                _close_epoch(session, held_out, cut)
            state.finished = clock.is_over(state.epochs) or (not clock.repeats and (over or state.early_stop.stop))
            over = over or state.finished


def _one_step(session: Session, samples: Samples) -> None:
    """Wait for a batch, train on it, note it; then a checkpoint if one is due, and the end if it was asked for."""
    setting, state, clock = session.setting, session.state, session.clock
    began = time.monotonic()
    batch = _next_batch(session, samples)
    waited = time.monotonic() - began
    for change in clock.changes_at(state.step):
        state.change(rate_factor=change["rate_factor"], parts=change["parts"])
    state.progress = clock.progress(state.step, state.progress)
    set_learning_rate(state.optimiser, current_rate(setting, state))
    session.unread.add(train_step(setting, state, batch, session.message))
    state.step += 1
    if clock.planned_steps is None:
        state.sums.progress.append(state.progress)
    state.sums.waited += waited
    if session.unread.is_due:
        session.read_outcomes()
    session.note_step(time.monotonic() - began)
    session.note_time()
    session.line.step(state.sums, _by_name(session, state.sums), clock.seconds_left(state.step))
    if clock.checkpoint_is_due():
        checkpoints.checkpoint(session)
    session.interruption.stop_here_if_asked()


def _next_batch(session: Session, samples: Samples) -> Batch:
    with session.interruption.waiting():
        taken = [next(samples) for _ in range(session.setting.configuration.batch_size)]
    return make_batch(session.setting, taken)


@torch.no_grad()
def _look_at_held_out(session: Session, samples: Samples) -> history.EpochSums | None:
    """Loss and counts on patches of held-out cases, in evaluation mode: nothing of the training changes by it."""
    setting, state, sums = session.setting, session.state, history.EpochSums()
    state.network.eval()
    outcomes = []
    for _ in range(setting.held_out_batches):
        batch = _next_batch(session, samples)
        with autocast(setting.precision, setting.device):
            logits = state.network(batch.image)
        loss, parts = setting.plain_loss(logits, batch.target, batch.present)
        counts = overlap_counts(logits, batch.target, setting.labels.ignore_index, batch.present)
        outcomes.append(Outcome(state.step, loss, scalars(parts), counts, batch.cases))
    for loss, parts, counts in read(outcomes):
        sums.add(loss, parts, counts)
    return sums if sums.steps else None


def _close_epoch(session: Session, held_out: history.EpochSums | None, cut: bool) -> None:
    """What an epoch's training patches decide, and its row in the history.

    An epoch that was cut short decides only if at least half of its steps were done: few steps are noise.

    Raises:
        NotFinite: a weight is no number.
        Collapsed: the network has lost the foreground for good; the epoch is closed.
    """
    setting, state, sums = session.setting, session.state, session.state.sums
    rate = current_rate(setting, state)
    if not state.is_finite:
        raise NotFinite(state.step, session.unread.cases)
    verdict = "sound" if cut and 2 * sums.steps < setting.training.steps_per_epoch else _judge(session)
    session.note_time()
    row = _row(session, held_out, rate)
    history.append_row(session.folder.history, row)
    state.epochs += 1
    state.sums = history.EpochSums()
    for logger in session.loggers:
        logger(row)
    session.picture.update()
    if verdict == "slow":
        session.message(
            f"{setting.title}: no foreground has been found in {state.epochs} epochs. Training goes on; if it stays so, plan with "
            "--set training.oversampling.foreground=0.33 or a lower training.optimiser.lr."
        )
    if verdict == "collapsed":
        raise Collapsed(state.epochs, setting.training.rescue.collapse_epochs, session.unread.cases)


def _judge(session: Session) -> str:
    """What the epoch's mean training loss and counts decide: which weights are best, the next rate, the stop, and whether all is well."""
    state, sums, training = session.state, session.state.sums, session.setting.training
    verdict = state.watch.step(sums.counts, history.mean_of(dice(sums.counts)), training.rescue)
    improved = state.early_stop.step(sums.mean_loss)
    copy = None
    if training.rescue.collapse_epochs is not None and state.watch.finds and sums.mean_loss < state.sound_loss:
        copy = state.sound = copy_weights(state.network)
        state.sound_loss = sums.mean_loss
    if improved and training.predict_with == "best_training_loss":
        state.best = copy or copy_weights(state.network)
    if training.schedule.name == "plateau":
        state.plateau.step(sums.mean_loss, training.schedule)
    return verdict


def _row(session: Session, held_out: history.EpochSums | None, rate: float) -> dict[str, Any]:
    state, sums = session.state, session.state.sums
    row = {
        "epoch": state.epochs + 1,
        "step": state.step,
        "steps": sums.steps,
        "loss": sums.mean_loss,
        **sums.mean_parts(),
        "dice": _by_name(session, sums),
        "mean_dice": history.mean_of(dice(sums.counts)),
        "val_loss": None if held_out is None or not math.isfinite(held_out.mean_loss) else held_out.mean_loss,
        "val_dice": None if held_out is None else _by_name(session, held_out),
        "lr": rate,
        "progress": state.progress,
        "seconds": round(state.seconds, 3),
        "epoch_seconds": round(sums.seconds, 3),
        "data_wait": round(sums.waited / sums.seconds, 4) if sums.seconds else 0.0,
    }
    pace = {"step_progress": sums.progress} if session.clock.planned_steps is None else {"planned_steps": session.clock.planned_steps}
    return row | pace | ({"changes": state.changes} if state.changes else {})


def _by_name(session: Session, sums: history.EpochSums) -> dict[str, float | None]:
    """Dice of each output."""
    names = session.setting.labels.names
    return dict(zip(names, dice(sums.counts) or [None] * len(names), strict=True))
