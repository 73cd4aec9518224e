"""The loop that trains one fold. `train_fold` is the whole of it; what it calls follows in the order of use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import PlanError, TrainingError
from autoseg.files import FoldFolder, digest, locked
from autoseg.network.precision import autocast
from autoseg.network.weights import save_weights
from autoseg.planning.folds import Fold
from autoseg.planning.plan_file import read_plan, write_plan
from autoseg.planning.schema import Plan
from autoseg.training import history
from autoseg.training.clock import Clock
from autoseg.training.interruption import Interruption, Stopped
from autoseg.training.optimisation import clip_gradients, learning_rate, set_learning_rate
from autoseg.training.patches import Sample, SampleMaker
from autoseg.training.sampling import tickets
from autoseg.training.setting import Setting, about, fresh_state, make_setting
from autoseg.training.state import TrainingState, copy_weights, load_checkpoint, save_checkpoint
from autoseg.training.targets import dice, overlap_counts
from autoseg.training.workers import SamplePool

BACK_OFFS = 3  # how often a run may go back to its last checkpoint with half the rate
WORKER_TIMEOUT = 600.0  # seconds; a sample takes seconds at most, a sleeping network disk perhaps a minute
NORM_SETTLED = 4.0  # steps x momentum after which less than 2 % of running statistics stem from before the first step
PICTURE_EVERY = 60.0  # seconds; drawing takes about half of one


@dataclass(frozen=True)
class FoldRun:
    """What became of one fold's training. epochs counts history rows, a last one cut short included."""

    folder: FoldFolder
    epochs: int
    steps: int
    seconds: float
    finished: bool


@dataclass(frozen=True)
class Batch:
    """image: (B, C, *patch) on the device. target: as the loss takes it. cases: one a sample.

    present: (B, outputs), what the cases annotate; None: everything.
    """

    image: Tensor
    target: Tensor
    cases: tuple[str, ...]
    present: Tensor | None = None


class NotFinite(Exception):
    """A loss that is no number; the argument is the cases of its batch."""


@dataclass(frozen=True)
class _Tools:
    """What the steps of a session share."""

    setting: Setting
    state: TrainingState
    clock: Clock
    folder: FoldFolder
    interruption: Interruption
    line: history.StepLine
    picture: history.ProgressPicture
    message: Callable[[str], None]


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
) -> FoldRun:
    """Train one fold of one configuration, going on from its checkpoint if there is one.

    The same plan, seed and epochs give the same weights on a CPU, whatever the number of workers and however often the run was
    interrupted. Held-out cases are looked at each epoch and steer nothing. Ctrl-C and SIGTERM write a checkpoint between two steps.

    A loss that is not finite sends the run back to its last checkpoint with half the learning rate, three times at most.

    Args:
        plan: with everything resolved; it is written to `folder.plan` before the first step.
        store: folder of the configuration's prepared cases.
        device: a torch device that is there.
        workers: processes that make samples; 0 makes them in this one.
        deadline: time.monotonic() at which training must have ended, its weights written; the schedule is fitted to it. None: by epochs.
        quiet: no progress line on stderr.
        message: takes what the user should know.

    Raises:
        BusyError: another process trains this fold.
        PlanError: the fold was begun by another plan, or the plan asks for what training does not know.
        ResourceError: the device lacks the planned precision; the disk is full.
        TrainingError: a worker failed or hung; the loss stayed not finite, with the last batch's cases; no checkpoint can be read.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with locked(folder.lock, f"{configuration} fold {fold.name}"), torch.random.fork_rng(cuda), Interruption() as interruption:
        setting = make_setting(plan, configuration, fold, store, device)
        state = fresh_state(setting)
        _resume_or_begin(setting, state, folder, message)
        clock = Clock(plan.training, reached=state.progress, trained=state.seconds, deadline=deadline)
        line = history.StepLine(setting.title, quiet=quiet)
        picture = history.ProgressPicture(folder.history, folder.progress, every=PICTURE_EVERY)
        tools = _Tools(setting, state, clock, folder, interruption, line, picture, message)
        try:
            if not (state.finished and folder.weights.is_file()):
                _checkpoint(tools)
                while not state.finished:
                    try:
                        _train(tools, workers)
                    except NotFinite as failure:
                        _back_off(tools, failure)
                _finish(tools)
            interruption.stop_here_if_asked()
        except Stopped:
            if state.is_finite:
                save_checkpoint(folder, state)
            message(f"{setting.title} was interrupted after {state.step} steps; the same command goes on from there.")
            raise KeyboardInterrupt from None
        finally:
            tools.line.end()
    return FoldRun(folder, state.epochs, state.step, state.seconds, state.finished)


def _resume_or_begin(setting: Setting, state: TrainingState, folder: FoldFolder, message: Callable[[str], None]) -> None:
    """Take up the fold where its checkpoint left it, or clear the folder and write its plan."""
    content = load_checkpoint(folder, message)
    if content is None:
        folder.weights.unlink(missing_ok=True)
        history.keep_rows(folder.history, 0)
        write_plan(folder.plan, setting.plan)
        return
    difference = first_difference(read_plan(folder.plan), setting.plan)
    if difference:
        raise PlanError(
            f"{setting.title} was begun by another plan: {difference}",
            file=folder.plan,
            remedy="Give the settings that it was begun with, or delete the fold's folder to train it anew",
        )
    state.load_state_dict(content)
    history.keep_rows(folder.history, state.epochs)
    if not state.finished:
        message(f"{setting.title} goes on after {state.epochs} epochs and {state.sums.steps} steps.")


def first_difference(before: Plan, now: Plan) -> str | None:
    """The first key, by name, at which two plans disagree on how a fold is trained, with both values."""

    def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for name in sorted(value):
                yield from flat(value[name], f"{key}.{name}" if key else name)
        else:
            yield key, value

    # what says why or for how long, but not how
    apart = {
        "reasons",
        "forecast",
        "autoseg_version",
        "created_from",
        "made_for",
        "recipe",
        "recipe_options",
        "default_configurations",
        "prediction",
        "postprocessing",
        "evaluation",
        "folds",
    }
    old, new = (dict(flat(p.model_dump(mode="json", exclude=apart))) for p in (before, now))
    for key in sorted({*old, *new} - {"training.budget_seconds"}):
        if old.get(key) != new.get(key):
            return f"{key} was {old.get(key)!r} and is {new.get(key)!r}"
    return None


def _train(tools: _Tools, workers: int) -> None:
    """Epoch after epoch, until the planned number, the deadline or the early stop."""
    setting, state, clock = tools.setting, tools.state, tools.clock
    batch_size, steps = setting.configuration.batch_size, setting.training.steps_per_epoch
    wanted = tickets(state.epochs, state.sums.steps, steps, clock.last_epoch, batch_size, setting.held_out_batches)
    make = SampleMaker(setting.sources)
    with SamplePool(make, wanted, workers=workers, ahead=2 * batch_size + workers, timeout=WORKER_TIMEOUT) as samples:
        while not state.finished:
            tools.line.begin(state.epochs, clock.last_epoch, state.sums.steps, steps)
            while state.sums.steps < steps and (state.step == 0 or clock.has_time_for(1)):
                _one_step(tools, samples)
            cut = state.sums.steps < steps
            over = cut or not clock.has_time_for(setting.held_out_batches)
            held_out = None if over else _look_at_held_out(tools, samples)
            if state.sums.steps:
                _close_epoch(tools, held_out, cut)
            state.finished = over or state.epochs == clock.last_epoch or state.early_stop.stop


def _one_step(tools: _Tools, samples: SamplePool) -> None:
    """Wait for a batch, train on it, note it; then a checkpoint if one is due, and the end if it was asked for."""
    setting, state, clock = tools.setting, tools.state, tools.clock
    began = time.monotonic()
    batch = _next_batch(tools, samples)
    waited = time.monotonic() - began
    state.progress = clock.progress(state.step, state.progress)
    set_learning_rate(state.optimiser, current_rate(setting, state))
    loss, parts, counts = train_step(setting, state, batch)
    state.step += 1
    state.sums.add(loss, parts, counts)
    if clock.by_time:
        state.sums.progress.append(state.progress)
    state.sums.waited += waited
    clock.note_step(time.monotonic() - began)
    _note_time(tools)
    tools.line.step(state.sums, history.mean_of(dice(state.sums.counts)))
    if clock.checkpoint_is_due():
        _checkpoint(tools)
    tools.interruption.stop_here_if_asked()


def _note_time(tools: _Tools) -> None:
    seconds = tools.clock.lap()
    tools.state.seconds += seconds
    tools.state.sums.seconds += seconds


def current_rate(setting: Setting, state: TrainingState) -> float:
    """The learning rate of the step that begins now."""
    base = state.plateau.rate if setting.training.schedule.name == "plateau" else setting.training.optimiser.lr
    return learning_rate(setting.training.schedule, base, state.progress) * state.rate_factor


def train_step(setting: Setting, state: TrainingState, batch: Batch) -> tuple[float, dict[str, float], list[list[int]]]:
    """One step of the optimiser.

    Returns:
        The loss, its scalar parts, and TP, FP, FN of each foreground output.

    Raises:
        NotFinite: the loss is no number; nothing has changed.
    """
    state.network.train()
    state.optimiser.zero_grad(set_to_none=True)
    with autocast(setting.precision, setting.device):
        outputs = state.network(batch.image)
    loss, parts = setting.loss(outputs, batch.target, batch.present)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NotFinite(batch.cases)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimiser)
    clip_gradients(state.network.parameters(), setting.training.gradient_clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.network)
    logits = outputs if isinstance(outputs, Tensor) else outputs[0]
    return value, _scalars(parts), overlap_counts(logits, batch.target, setting.labels.ignore_index, batch.present).tolist()


@torch.no_grad()
def _look_at_held_out(tools: _Tools, samples: SamplePool) -> history.EpochSums | None:
    """Loss and counts on patches of held-out cases, in evaluation mode: nothing of the training changes by it."""
    setting, state, sums = tools.setting, tools.state, history.EpochSums()
    state.network.eval()
    for _ in range(setting.held_out_batches):
        batch = _next_batch(tools, samples)
        with autocast(setting.precision, setting.device):
            logits = state.network(batch.image)
        loss, parts = setting.plain_loss(logits, batch.target, batch.present)
        sums.add(float(loss), _scalars(parts), overlap_counts(logits, batch.target, setting.labels.ignore_index, batch.present).tolist())
    return sums if sums.steps else None


def _close_epoch(tools: _Tools, held_out: history.EpochSums | None, cut: bool) -> None:
    """What an epoch's mean training loss decides, and its row in the history.

    An epoch that the deadline cut decides only if at least half of its steps were done: few steps are noise.
    """
    setting, state, sums = tools.setting, tools.state, tools.state.sums
    rate = current_rate(setting, state)
    if not state.is_finite:
        raise NotFinite(())
    if not cut or 2 * sums.steps >= setting.training.steps_per_epoch:
        if state.early_stop.step(sums.mean_loss) and setting.training.predict_with == "best_training_loss":
            state.best = copy_weights(state.network)
        if setting.training.schedule.name == "plateau":
            state.plateau.step(sums.mean_loss, setting.training.schedule)
    _note_time(tools)
    history.append_row(tools.folder.history, _row(setting, state, held_out, rate))
    state.epochs += 1
    state.sums = history.EpochSums()
    tools.picture.update()


def _row(setting: Setting, state: TrainingState, held_out: history.EpochSums | None, rate: float) -> dict[str, Any]:
    sums, names = state.sums, setting.labels.names

    def named(of: history.EpochSums) -> dict[str, float | None]:
        return dict(zip(names, dice(of.counts), strict=True))

    row = {
        "epoch": state.epochs + 1,
        "step": state.step,
        "steps": sums.steps,
        "loss": sums.mean_loss,
        **sums.mean_parts(),
        "dice": named(sums),
        "mean_dice": history.mean_of(dice(sums.counts)),
        "val_loss": None if held_out is None else _finite(held_out.mean_loss),
        "val_dice": None if held_out is None else named(held_out),
        "lr": rate,
        "progress": state.progress,
        "seconds": round(state.seconds, 3),
        "epoch_seconds": round(sums.seconds, 3),
        "data_wait": round(sums.waited / sums.seconds, 4) if sums.seconds else 0.0,
    }
    return {**row, "step_progress": sums.progress} if sums.progress else row


def _back_off(tools: _Tools, failure: NotFinite) -> None:
    """Return to the last checkpoint with half the learning rate.

    Raises:
        TrainingError: it was done three times already.
    """
    state, cases = tools.state, ", ".join(failure.args[0]) or "unknown"
    factor, times = state.rate_factor / 2, state.back_offs + 1
    at = state.step
    if times > BACK_OFFS:
        raise TrainingError(
            f"{tools.setting.title}: the loss is not finite at step {at + 1}, also after {BACK_OFFS} returns to a checkpoint with half "
            f"the learning rate; the last batch's cases: {cases}",
            remedy="Look at these cases with doctor; if they are sound, plan with a lower training.optimiser.lr or a gradient_clip",
        )
    state.load_state_dict(load_checkpoint(tools.folder, tools.message))
    state.rate_factor, state.back_offs = factor, times
    history.keep_rows(tools.folder.history, state.epochs)
    tools.message(
        f"{tools.setting.title}: the loss is not finite at step {at + 1} (cases {cases}); "
        f"back at step {state.step} with the rate x {factor:g}."
    )


def _checkpoint(tools: _Tools) -> None:
    """Write the checkpoint, unless a weight is no number: then the last one is worth more."""
    if not tools.state.is_finite:
        raise NotFinite(())
    began = time.monotonic()
    save_checkpoint(tools.folder, tools.state)
    tools.clock.note_checkpoint(time.monotonic() - began)


def _finish(tools: _Tools) -> None:
    """The last checkpoint, then the weights that predict: their file says that training is done."""
    setting, state, folder = tools.setting, tools.state, tools.folder
    save_checkpoint(folder, state)
    norm = setting.configuration.network.norm
    if norm.name == "batch" and state.step * norm.momentum < NORM_SETTLED:
        tools.message(
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
    tools.picture.update(at_last=True)


def _next_batch(tools: _Tools, samples: SamplePool) -> Batch:
    setting = tools.setting
    with tools.interruption.waiting():
        taken: list[Sample] = [next(samples) for _ in range(setting.configuration.batch_size)]
    image = torch.from_numpy(np.stack([s.image for s in taken]))
    exchanged = [s.exchanged for s in taken]
    target = setting.form.targets(np.stack([s.labels for s in taken]), exchanged)
    present = setting.form.present([s.annotated for s in taken], exchanged)
    image = image.to(setting.device, non_blocking=True).contiguous(memory_format=setting.layout)
    present = None if present is None else present.to(setting.device, non_blocking=True)
    return Batch(image, target.to(setting.device, non_blocking=True), tuple(s.case for s in taken), present)


def _scalars(parts: dict[str, Any]) -> dict[str, float]:
    """The loss's parts that are one number."""
    return {name: float(value) for name, value in parts.items() if not isinstance(value, Tensor) or value.ndim == 0}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
