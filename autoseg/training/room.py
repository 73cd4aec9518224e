"""Whether a fold's training fits in the memory that is free, before it begins."""

from __future__ import annotations

import torch

from autoseg.memory import free_ram_gb
from autoseg.network.device import free_memory_gb
from autoseg.planning.fitting import TRAINING_AT_LEAST, require
from autoseg.planning.forecast import IMPORTS_GB, Task, training_ram_gb, training_step_gb
from autoseg.planning.schema import Plan


def require_memory(plan: Plan, configuration: str, *, device: str, workers: int) -> str | None:
    """Refuse a training that surely does not fit; a warning about one that may not, else None. A network of one's own is not judged.

    On a GPU, where the forecast is unverified and a batch that does not fit is split, only a single sample that does not fit is refused.

    Args:
        plan: with everything resolved.
        workers: those that make samples.

    Raises:
        ResourceError: it does not fit.
    """
    part, task, kind = plan.configurations[configuration], Task.of(plan, configuration), torch.device(device).type
    if part.network.factory is not None:
        return None
    patch = " x ".join(map(str, part.patch_size))
    step = training_step_gb(part, plan.training, task, kind)
    beside = training_ram_gb(part, plan.training, task, workers=workers) - IMPORTS_GB  # those are there already
    what = f"Training {configuration} with batches of {part.batch_size} patches of {patch} voxels"
    if kind == "cpu":
        return require(what, step + beside, free_ram_gb(), at_least=TRAINING_AT_LEAST, where="RAM", remedy=_remedy(free_ram_gb()))
    free = free_memory_gb(device)
    one = training_step_gb(part.model_copy(update={"batch_size": 1}), plan.training, task, kind)
    remedy = _remedy(free)
    require(
        f"Training {configuration} with a single patch of {patch} voxels",
        one,
        free,
        at_least=TRAINING_AT_LEAST,
        where=device,
        remedy=remedy,
    )
    if step > free:
        return f"{what} is forecast to take {step:.1f} GB of {device}, {free:.1f} GB are free: batches may have to be split. {remedy}"
    return None


def _remedy(free_gb: float) -> str:
    return (
        f"Free memory, or plan for what there is: plan-and-preprocess DATASET WORK --replan --memory {max(free_gb, 0.1):.1f} (prepared "
        "cases are kept), or with a smaller --set patch_size or batch_size"
    )
