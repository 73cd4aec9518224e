"""One step: from samples to a batch, from a batch to gradients, from gradients to weights, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import ResourceError
from autoseg.network.device import is_compile_failure, is_out_of_memory
from autoseg.network.precision import autocast
from autoseg.training.optimisation import clip_gradients, learning_rate
from autoseg.training.patches import Sample
from autoseg.training.rescue import NotFinite
from autoseg.training.setting import Setting
from autoseg.training.state import TrainingState
from autoseg.training.targets import overlap_counts


@dataclass(frozen=True)
class Batch:
    """image: (B, C, *patch) on the device. target: as the loss takes it. cases: one a sample.

    present: (B, outputs), what the cases annotate; None: everything.
    """

    image: Tensor
    target: Tensor
    cases: tuple[str, ...]
    present: Tensor | None = None

    def __len__(self) -> int:
        return len(self.cases)

    def split(self, parts: int) -> Iterator[Batch]:
        """The batch in so many parts, as even as can be."""
        if parts == 1:
            yield self
            return
        for indices in np.array_split(np.arange(len(self)), parts):
            here = slice(int(indices[0]), int(indices[-1]) + 1)
            yield Batch(self.image[here], self.target[here], self.cases[here], None if self.present is None else self.present[here])


@dataclass(frozen=True)
class Outcome:
    """What a step gave, still on the device: reading it waits until all is computed (see `read`).

    step: its number, from 1. loss, parts: of the batch. counts: TP, FP, FN of each foreground output.
    """

    step: int
    loss: Tensor
    parts: dict[str, Tensor]
    counts: Tensor
    cases: tuple[str, ...]


def make_batch(setting: Setting, samples: Sequence[Sample]) -> Batch:
    """The batch of these samples, on its way to the device."""
    exchanged = [s.exchanged for s in samples]
    if isinstance(samples[0].image, np.ndarray):
        image = torch.from_numpy(np.stack([s.image for s in samples]))
    else:  # left to the device that trains
        image = torch.stack([sample_image(s, setting.device) for s in samples])
    target = setting.form.targets(np.stack([s.labels for s in samples]), exchanged)
    present = setting.form.present([s.annotated for s in samples], exchanged)
    image = _moved(image, setting.device).contiguous(memory_format=setting.layout)
    present = None if present is None else _moved(present, setting.device)
    return Batch(image, _moved(target, setting.device), tuple(s.case for s in samples), present)


def reads_at_once(device: str) -> bool:
    """Whether a number can be read without waiting: on a CPU. A GPU computes ahead, and is asked now and then."""
    return torch.device(device).type == "cpu"


def sample_image(sample: Sample, device: str) -> Tensor:
    """The image (C, *patch) that a sample left to the device."""
    from autoseg.training.augmentation.tensors import image_on

    image = image_on(sample.image, device)
    image = image if sample.labels.ndim == 3 else image[:, 0]
    more = sample.more_channels
    return image if more is None else torch.cat([image, torch.from_numpy(more).to(device)])


def _moved(tensor: Tensor, device: str) -> Tensor:
    """On the device; to a GPU from pinned memory, so that nothing waits for the copy."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def current_rate(setting: Setting, state: TrainingState) -> float:
    """The learning rate of the step that begins now."""
    base = state.plateau.rate if setting.training.schedule.name == "plateau" else setting.training.optimiser.lr
    return learning_rate(setting.training.schedule, base, state.progress) * state.rate_factor


def train_step(setting: Setting, state: TrainingState, batch: Batch, message: Callable[[str], None]) -> Outcome:
    """One step of the optimiser. On a GPU nothing in it waits for the device, so its loss is judged when it is read.

    Where memory runs out the batch is split into twice as many parts, whose gradients are added up: the same batch for the optimiser.
    That stays so for the rest of the run. Batch norm, a loss pooled over the batch, the hardest voxels of `top_k` and the mean over
    annotated voxels then see a part at a time, not the whole batch.

    Raises:
        NotFinite: on a CPU: the loss is no number; no weight has changed.
        ResourceError: a single sample does not fit in memory; the network cannot be compiled.
    """
    while True:
        try:
            return _step(setting, state, batch)
        except (RuntimeError, MemoryError) as error:
            if setting.compile and is_compile_failure(error):
                raise ResourceError(
                    f"{setting.title}: torch cannot compile the network on this machine ({str(error).splitlines()[0]})",
                    remedy="Install what it asks for (a C++ compiler; for CUDA Triton), or plan with --set training.compile=false",
                ) from error
            if not is_out_of_memory(error):
                raise
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
        # not inside of the handler: its traceback keeps the failed step's tensors
        _split_further(setting, state, len(batch), said, message)


def _step(setting: Setting, state: TrainingState, batch: Batch) -> Outcome:
    state.ready_to_learn()
    state.optimiser.zero_grad(set_to_none=True)
    gathered = [_gradients(setting, state, part, len(part) / len(batch)) for part in batch.split(state.parts)]
    state.scaler.unscale_(state.optimiser)
    clip_gradients(state.network.parameters(), setting.training.gradient_clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.average is not None:
        state.average.update(state.network)
    loss, parts, counts = gathered[0] if len(gathered) == 1 else _joined(gathered)
    return Outcome(state.step + 1, loss, parts, counts, batch.cases)


def _gradients(setting: Setting, state: TrainingState, batch: Batch, share: float) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Add the gradients of a part of the batch; its loss and parts, weighted by its share, and its counts."""
    with autocast(setting.precision, setting.device):
        outputs = state.network(batch.image)
    loss, parts = setting.loss(outputs, batch.target, batch.present)
    if reads_at_once(setting.device) and not math.isfinite(float(loss.detach())):
        raise NotFinite(state.step + 1, batch.cases)
    loss = loss if share == 1 else loss * share
    state.scaler.scale(loss).backward()
    logits = outputs if isinstance(outputs, Tensor) else outputs[0]
    counts = overlap_counts(logits, batch.target, setting.labels.ignore_index, batch.present)
    return loss.detach(), {name: value if share == 1 else value * share for name, value in scalars(parts).items()}, counts


def _joined(gathered: Sequence[tuple[Tensor, dict[str, Tensor], Tensor]]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    losses, parts, counts = zip(*gathered, strict=True)
    return sum(losses), {name: sum(part[name] for part in parts) for name in parts[0]}, sum(counts)


def scalars(parts: dict[str, Any]) -> dict[str, Tensor]:
    """The loss's parts that are one number."""
    tensors = {name: torch.as_tensor(value).detach() for name, value in parts.items()}
    return {name: value for name, value in tensors.items() if value.ndim == 0}


def read(outcomes: Sequence[Outcome]) -> list[tuple[float, dict[str, float], list[list[int]]]]:
    """The numbers of these outcomes: each one's loss, its parts, and its counts; the device is waited for once."""
    if not outcomes:
        return []
    names = list(outcomes[0].parts)
    rows = [torch.stack([o.loss, *(o.parts[name].to(o.loss) for name in names)]) for o in outcomes]
    values, counts = torch.stack(rows).tolist(), torch.stack([o.counts for o in outcomes]).tolist()
    return [(loss, dict(zip(names, parts, strict=True)), count) for (loss, *parts), count in zip(values, counts, strict=True)]


def _split_further(setting: Setting, state: TrainingState, batch_size: int, said: str, message: Callable[[str], None]) -> None:
    if state.parts >= batch_size:
        patch = " x ".join(map(str, setting.configuration.patch_size))
        raise ResourceError(
            f"{setting.title}: one sample of {patch} voxels does not fit in memory ({said})",
            remedy="Free memory, or plan with a smaller patch_size or less --memory",
        )
    state.optimiser.zero_grad(set_to_none=True)
    if torch.device(setting.device).type == "cuda":
        torch.cuda.empty_cache()
    state.change(parts=min(2 * state.parts, batch_size))
    caveats = _what_sees_parts(setting)
    message(
        f"{setting.title}: memory ran out at step {state.step + 1} ({said}); from here on each batch of {batch_size} is split into "
        f"{state.parts} parts whose gradients are added up." + (f" {caveats} now see a part at a time." if caveats else "")
    )


def _what_sees_parts(setting: Setting) -> str:
    """What of this plan depends on how a batch is split."""
    loss = setting.training.loss
    seen = [
        ("batch norm", setting.configuration.network.norm.name == "batch"),
        ("the loss pooled over the batch", setting.configuration.pool_loss_over_batch),
        ("the hardest voxels of top_k", loss.cross_entropy.top_k is not None),
        ("the mean over annotated voxels", setting.labels.ignore_index is not None),
    ]
    return " and ".join(name for name, is_so in seen if is_so).capitalize()
