"""A short probe before the first epoch: real steps with real samples, timed, their memory measured, their weights thrown away.

Nothing of the run that follows is moved by it: weights, optimiser and samples are its own, torch's generators are put back, and samples
are drawn by seed, step and position alone.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoseg.memory import GB, PeakRam
from autoseg.network.precision import StepForm, autocast, machine_supports, memory_format, resolve_compile
from autoseg.planning.folds import Fold
from autoseg.planning.schema import Plan
from autoseg.training.augmentation import in_processes
from autoseg.training.determinism import kernels
from autoseg.training.loop import WORKER_TIMEOUT
from autoseg.training.optimisation import set_learning_rate
from autoseg.training.patches import SampleMaker
from autoseg.training.sampling import Ticket
from autoseg.training.setting import Setting, fresh_state, make_setting
from autoseg.training.state import TrainingState
from autoseg.training.step import Batch, current_rate, make_batch, read, train_step
from autoseg.training.threads import SampleThreads
from autoseg.training.workers import SamplePool

FEWEST_STEPS, LEAST_SECONDS, MOST_SECONDS = 6, 8.0, 60.0  # augmentation is drawn: a few samples take many times what the others do
TRIAL_STEPS, TRIAL_SECONDS = 2, 2.0  # of each form, whose steps differ little among themselves


@dataclass(frozen=True)
class Trial:
    """A form of a step that was tried. seconds: of a step, without waiting for samples."""

    form: StepForm
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {**self.form._asdict(), "seconds": round(self.seconds, 4)}


@dataclass(frozen=True)
class StepTimes:
    """What real steps took.

    steps: that were timed. step: seconds of one, waiting for samples included; waiting: share of that.
    held_out_batch: seconds of a batch that is only looked at.
    start: seconds until the first batch was there.
    peak_gb: memory of the device beyond what was in use before; on a CPU of this process, samples included.
    """

    steps: int
    step: float
    waiting: float
    held_out_batch: float
    start: float
    peak_gb: float


def candidates(plan: Plan, device: str) -> list[StepForm]:
    """What the plan leaves open: every number format that the device has in hardware, with either layout; what is named stays.

    None is compiled unless the plan says so; see `compile_is_open`.
    """
    training = plan.training
    formats = [training.precision]
    if training.precision == "auto":
        shorter = "bfloat16" if machine_supports("bfloat16", device) or torch.device(device).type != "cuda" else "float16"
        formats = ["float32"] + ([shorter] if machine_supports(shorter, device) else [])
    layouts = [training.memory_layout] if training.memory_layout != "auto" else ["contiguous", "channels_last"]
    return [StepForm(*pair, resolve_compile(training.compile)) for pair in itertools.product(formats, layouts)]


def compile_is_open(plan: Plan, device: str) -> bool:
    """Whether the fastest form is worth compiling too: on a GPU, where each operation that is not fused reads and writes all memory."""
    return plan.training.compile == "auto" and torch.device(device).type == "cuda"


def with_form(plan: Plan, form: StepForm) -> Plan:
    """The plan whose steps are computed so."""
    return plan.model_copy(update={"training": plan.training.model_copy(update=form._asdict())})


def try_out(plan: Plan, configuration: str, fold: Fold, store: Path, *, device: str, tried: list[StepForm]) -> list[Trial]:
    """The forms with the time of a step in each, the fastest first; all on the same batch.

    Raises:
        ResourceError: one of them takes more memory than there is, or cannot be compiled.
    """
    with _apart(plan, device):
        setting = make_setting(with_form(plan, tried[0]), configuration, fold, store, device)
        make = SampleMaker(setting.sources)
        samples = [make(Ticket("train", 0, index)) for index in range(setting.configuration.batch_size)]
        trials = []
        for form in tried:
            layout = memory_format(form.memory_layout, setting.configuration.network.dimension)
            own = replace(setting, precision=form.precision, layout=layout, compile=form.compile)
            trials.append(Trial(form, _seconds_of(own, make_batch(own, samples))))
            _clear(device)
    return sorted(trials, key=lambda trial: trial.seconds)


def probe_steps(
    plan: Plan, configuration: str, fold: Fold, store: Path, *, device: str, workers: int, in_use_gb: float | None = None
) -> StepTimes:
    """Time steps as `train_fold` does them; the first few, for which samples were made ahead, are left out.

    Args:
        plan: with everything resolved.
        workers: those that make samples, as in training.
        in_use_gb: resident memory that the peak is counted from on a CPU; None: what it is now.

    Raises:
        PlanError, ResourceError, TrainingError: what would end training too.
    """
    with _apart(plan, device), _Memory(device, in_use_gb) as memory:
        setting = make_setting(plan, configuration, fold, store, device)
        state, size = fresh_state(setting), setting.configuration.batch_size
        wanted = (Ticket("train", step, index) for step in itertools.count() for index in range(size))
        pool = SamplePool if in_processes(setting.training.augmentation) else SampleThreads
        ahead = 2 * size + workers
        began = time.monotonic()
        with pool(SampleMaker(setting.sources), wanted, workers=workers, ahead=ahead, timeout=WORKER_TIMEOUT) as samples:
            start = 0.0
            for _ in range(1 + math.ceil(ahead / size)):
                batch = make_batch(setting, [next(samples) for _ in range(size)])
                start = start or time.monotonic() - began
                _step(setting, state, batch)
            waited, steps, began = 0.0, 0, time.monotonic()
            while not _enough(steps, time.monotonic() - began):
                before = time.monotonic()
                taken = [next(samples) for _ in range(size)]
                waited += time.monotonic() - before
                batch = make_batch(setting, taken)
                _step(setting, state, batch)
                steps += 1
            took = time.monotonic() - began
        held_out = _seconds_of_looking(setting, state, batch)
    _clear(device)
    return StepTimes(steps, took / steps, waited / took, held_out, start, memory.gb)


def _enough(steps: int, seconds: float) -> bool:
    return (steps >= FEWEST_STEPS and seconds >= LEAST_SECONDS) or (steps >= 2 and seconds >= MOST_SECONDS)


def _step(setting: Setting, state: TrainingState, batch: Batch) -> None:
    set_learning_rate(state.optimiser, current_rate(setting, state))
    read([train_step(setting, state, batch, lambda _: None)])
    state.step += 1


def _seconds_of(setting: Setting, batch: Batch) -> float:
    """Seconds of a step, the first one left out, which finds its kernels and memory."""
    state = fresh_state(setting)
    _step(setting, state, batch)
    steps, began = 0, time.monotonic()
    while steps < TRIAL_STEPS or time.monotonic() - began < TRIAL_SECONDS:
        _step(setting, state, batch)
        steps += 1
    return (time.monotonic() - began) / steps


@torch.no_grad()
def _seconds_of_looking(setting: Setting, state: TrainingState, batch: Batch) -> float:
    """Seconds of a batch of held-out patches: forward alone, and its loss."""
    state.network.eval()
    for _ in range(2):
        began = time.monotonic()
        with autocast(setting.precision, setting.device):
            logits = state.network(batch.image)
        float(setting.plain_loss(logits, batch.target, batch.present)[0])
        took = time.monotonic() - began
    return took


@contextlib.contextmanager
def _apart(plan: Plan, device: str) -> Iterator[None]:
    """Torch's generators as they were afterwards; kernels as training chooses them."""
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(cuda), kernels(plan.training.deterministic, device):
        yield


class _Memory:
    """Peak memory of the device while a block runs."""

    def __init__(self, device: str, in_use_gb: float | None) -> None:
        self.gb = 0.0
        self._device, self._ram = torch.device(device), PeakRam(in_use_gb)

    def __enter__(self) -> _Memory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_reserved(self._device)
        self._ram.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ram.__exit__(*exc)
        self.gb = self._ram.gb
        if self._device.type == "cuda":
            self.gb = (torch.cuda.max_memory_reserved(self._device) - self._before) / GB


def _clear(device: str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
