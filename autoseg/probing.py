"""What `train --probe` does before a configuration's first fold: the probe of real steps joined with the time of held-out prediction.

It is printed, and kept in WORK/forecast.json beside the plan's own forecast, which knows no times.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.errors import ResourceError
from autoseg.files import Work
from autoseg.forecast_file import describe, keep
from autoseg.inference.held_out import expected_seconds
from autoseg.network.device import free_memory_gb
from autoseg.planning.folds import Fold
from autoseg.planning.forecast import Task, training_step_gb
from autoseg.planning.schema import Plan
from autoseg.training.probe import StepTimes, Trial, candidates, compile_is_open, probe_steps, try_out, with_form

log = logging.getLogger("autoseg")


@dataclass(frozen=True)
class Probe:
    """What was measured of one configuration on this machine, and what follows from it.

    epochs: at most; None where a budget bounds the run. fold: the one whose cases were used. held_out: cases that it holds out.
    folds: that this command runs. Times are seconds, memory GB of 2^30 bytes. trials: where the plan left the form of a step open.
    seconds_of_training: for the maximum of epochs, or for what the budget leaves; seconds_of_held_out: of one fold.
    forecast_memory_gb: the plan's forecast for what was measured as peak_memory_gb.
    """

    device: str
    threads: int
    workers: int
    fold: int | str
    folds: int
    precision: str
    memory_layout: str
    compile: bool
    trials: tuple[Trial, ...]
    steps: int
    seconds_per_step: float
    waiting: float
    seconds_per_held_out_batch: float
    seconds_to_start: float
    seconds_per_epoch: float
    epochs: int | None
    seconds_of_training: float | None
    held_out: int
    seconds_of_held_out: float
    peak_memory_gb: float
    forecast_memory_gb: float

    @property
    def seconds_per_fold(self) -> float | None:
        """Training for the maximum of epochs and the fold's held-out cases."""
        return None if self.seconds_of_training is None else self.seconds_of_training + self.seconds_of_held_out

    def as_json(self) -> dict[str, Any]:
        """As forecast.json holds it, rounded."""
        content = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        trials, whole = [trial.as_json() for trial in self.trials], self.seconds_per_fold
        return {**content, "trials": trials, "seconds_per_fold": None if whole is None else round(whole, 1)}


def fastest(plan: Plan, configuration: str, fold: Fold, store: Path, *, device: str) -> tuple[Trial, ...]:
    """Where the plan leaves a step's form to `auto`: all forms that fit on the machine, the fastest first; else nothing.

    Compiling takes a minute, so that only the fastest of the others is tried compiled.
    """
    tried = [form for form in candidates(plan, device) if _fits(with_form(plan, form), configuration, device)]
    compiling = compile_is_open(plan, device)
    if not tried or (len(tried) == 1 and not compiling):
        return ()
    trials = try_out(plan, configuration, fold, store, device=device, tried=tried)
    if compiling:
        try:
            trials += try_out(plan, configuration, fold, store, device=device, tried=[trials[0].form._replace(compile=True)])
        except ResourceError as error:
            log.warning("Compiled steps were not tried: %s", error)
    return tuple(sorted(trials, key=lambda trial: trial.seconds))


def _fits(plan: Plan, configuration: str, device: str) -> bool:
    """Whether a step is forecast to fit in what is free on the device."""
    part, task, kind = plan.configurations[configuration], Task.of(plan, configuration), torch.device(device).type
    return training_step_gb(part, plan.training, task, kind) <= free_memory_gb(device)


def probe(
    work: Work,
    plan: Plan,
    configuration: str,
    fold: Fold,
    *,
    device: str,
    workers: int,
    folds: int,
    trials: tuple[Trial, ...],
    in_use_gb: float,
) -> Probe:
    """Measure real steps of a fold, and what follows for the whole of it; printed, and written to WORK/forecast.json.

    Args:
        plan: with everything resolved for this fold.
        folds: how many this command runs of the configuration.
        trials: what `fastest` found.
        in_use_gb: resident memory before any of it.
    """
    store, training = work.store(configuration), plan.training
    times = probe_steps(plan, configuration, fold, store, device=device, workers=workers, in_use_gb=in_use_gb)
    held_out = expected_seconds(plan, configuration, store, fold.held_out, device=device)
    by_time = training.budget_seconds is not None and training.schedule.name != "plateau"
    epoch = seconds_per_epoch(plan, times, held_out=bool(fold.held_out))
    kind = torch.device(device).type
    result = Probe(
        device=device,
        threads=torch.get_num_threads(),
        workers=workers,
        fold=fold.name,
        folds=folds,
        precision=training.precision,
        memory_layout=training.memory_layout,
        compile=training.compile,
        trials=trials,
        steps=times.steps,
        seconds_per_step=times.step,
        waiting=times.waiting,
        seconds_per_held_out_batch=times.held_out_batch,
        seconds_to_start=times.start,
        seconds_per_epoch=epoch,
        epochs=None if by_time else training.epochs,
        seconds_of_training=None if by_time else times.start + training.epochs * epoch,
        held_out=len(fold.held_out),
        seconds_of_held_out=held_out,
        peak_memory_gb=times.peak_gb,
        forecast_memory_gb=training_step_gb(plan.configurations[configuration], training, Task.of(plan, configuration), kind),
    )
    keep(work, configuration, result.as_json())
    log.info("%s", describe(configuration, result.as_json()))
    return result


def seconds_per_epoch(plan: Plan, times: StepTimes, *, held_out: bool) -> float:
    """Its training steps, then its look at patches of held-out cases."""
    looks = plan.training.validation.batches if held_out else 0
    return plan.training.steps_per_epoch * times.step + looks * times.held_out_batch
