"""How weights follow gradients: optimiser, learning rate, plateau, early stop, clipping, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.planning.schema import OptimiserPlan, SchedulePlan

ONE_CYCLE_START = 25.0  # torch's OneCycleLR: the cycle begins at lr / 25
ONE_CYCLE_END = 25.0e4  # and ends at lr / 250,000


def make_optimiser(
    plan: OptimiserPlan, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], *, fused: bool = False
) -> torch.optim.Optimizer:
    """The planned optimiser over parameters or parameter groups.

    `sgd` has Nesterov's momentum (none at momentum 0); weight decay is added to the gradient, in `adamw` it acts on the weight.

    Args:
        fused: one kernel for the whole step, which with a gradient scaler also waits for nothing: for GPUs.
    """
    common = {"lr": plan.lr, "weight_decay": plan.weight_decay, "fused": fused or None}
    if plan.name == "sgd":
        return torch.optim.SGD(parameters, momentum=plan.momentum, nesterov=plan.momentum > 0, **common)
    kind = torch.optim.AdamW if plan.name == "adamw" else torch.optim.Adam
    return kind(parameters, betas=(plan.momentum, plan.beta2), eps=plan.eps, **common)


def learning_rate(schedule: SchedulePlan, base_lr: float, progress: float) -> float:
    """The rate at a progress between 0 (before the first step) and 1 (after the last).

    It rises linearly from 0 over the share `warmup`; then, with t running from 0 to 1 over the rest:

        poly       base_lr (1 - t)^power                       the peer's, section 4.1
        cosine     base_lr (1 + cos(pi t)) / 2
        one_cycle  as cosine, but from base_lr / 25 up over `warmup` by half a cosine, and down to base_lr / 250,000 (torch's OneCycleLR)
        constant, plateau   base_lr; a plateau's own `rate` is the base
    """
    progress = min(max(progress, 0.0), 1.0)
    rising = progress < schedule.warmup
    t = progress / schedule.warmup if rising else (progress - schedule.warmup) / (1 - schedule.warmup)
    if schedule.name == "one_cycle":
        start, end = (base_lr / ONE_CYCLE_START, base_lr) if rising else (base_lr, base_lr / ONE_CYCLE_END)
        return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
    if rising:
        return base_lr * t
    if schedule.name == "poly":
        return base_lr * (1 - t) ** schedule.power
    if schedule.name == "cosine":
        return base_lr * (1 + math.cos(math.pi * t)) / 2
    return base_lr


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


@dataclass
class Plateau:
    """A learning rate that falls when the training loss stops falling (paper.md item 14).

    An epoch improves if its loss < best - `threshold`. The rate is multiplied by `factor`, not below `min_lr`, once more than
    `patience` epochs in a row did not improve: torch's way of counting (mode min, absolute threshold, no cooldown).
    Keras's ReduceLROnPlateau(patience=15, min_delta=1e-4, cooldown=1) acts at the fifteenth epoch, which is patience 14 here.
    """

    rate: float
    best: float = math.inf
    bad_epochs: int = 0

    def step(self, loss: float, schedule: SchedulePlan) -> float:
        """Take in an epoch's mean training loss; the rate of the next epoch. A NaN does not improve."""
        if loss < self.best - schedule.threshold:
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > schedule.patience:
            self.rate, self.bad_epochs = max(self.rate * schedule.factor, min(schedule.min_lr, self.rate)), 0
        return self.rate

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rate, self.best, self.bad_epochs = state["rate"], state["best"], state["bad_epochs"]


@dataclass
class EarlyStop:
    """Ends training after `patience` epochs in a row without any decrease of the training loss (paper.md item 15).

    best is the lowest loss so far, whether or not there is a patience: the epoch whose weights `best_training_loss` keeps.
    """

    patience: int | None
    best: float = math.inf
    bad_epochs: int = 0

    def step(self, loss: float) -> bool:
        """Take in an epoch's mean training loss; whether it is the lowest so far. A NaN is not."""
        improved = loss < self.best
        self.best, self.bad_epochs = (loss, 0) if improved else (self.best, self.bad_epochs + 1)
        return improved

    @property
    def stop(self) -> bool:
        """Whether to train no further."""
        return self.patience is not None and self.bad_epochs >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.bad_epochs = state["best"], state["bad_epochs"]


def clip_gradients(parameters: Iterable[Tensor], largest: float | None) -> Tensor | None:
    """Scale all gradients so that their common norm is at most `largest`; the norm before, or None where nothing is clipped.

    The norm stays on the device: nothing waits. Gradients must be unscaled already.
    """
    return None if largest is None else nn.utils.clip_grad_norm_(parameters, largest)


class WeightAverage:
    """The exponential moving average of a network's parameters and buffers, in float32.

    At update n (from 0) an average a becomes d a + (1 - d) value with d = min(decay, (1 + n) / (10 + n)), so that the first, random
    weights are soon forgotten. Integer buffers are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: _master(tensor).clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = [], []
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                averages.append(self.average[name])
                values.append(_master(tensor))
            else:
                self.average[name].copy_(tensor)
        torch._foreach_lerp_(averages, values, 1 - decay)
        self.updates += 1

    def restart(self, network: nn.Module) -> None:
        """Forget what was averaged, and begin anew with the network's weights as they are now."""
        self.updates = 0
        for name, tensor in network.state_dict().items():
            self.average[name].copy_(_master(tensor))

    def weights(self) -> dict[str, Tensor]:
        """The averages as a state dict of the network; not copied."""
        return self.average

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]
        for name, average in self.average.items():
            average.copy_(state["average"][name])


def _master(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
