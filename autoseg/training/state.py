"""All that changes while a fold trains, and its checkpoint: complete, written whole, the previous one kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.errors import TrainingError
from autoseg.files import FoldFolder, appears_whole
from autoseg.training.history import EpochSums
from autoseg.training.optimisation import EarlyStop, Plateau, WeightAverage
from autoseg.training.rescue import ForegroundWatch

FORMAT = "autoseg.checkpoint/1"


@dataclass
class TrainingState:
    """What one fold's training has come to.

    best: weights after the epoch of the lowest training loss, on the CPU; kept only where they predict.
    sound: weights after the epoch of the lowest training loss among those that found the foreground, on the CPU; kept only where a
        collapse is judged. sound_loss: that loss.
    step: training steps done, over all epochs.
    epochs: epochs that are closed, each a row of the history.
    sums: of the epoch that is open; its `steps` say how far it is.
    seconds: spent training, over all sessions.
    progress: of the last step, 0 to 1.
    rate_factor: what the learning rate is multiplied by after returns.
    returns: how often the run went back.
    parts: into how many parts a batch is split, since it does not fit in memory whole.
    changes: each change of rate_factor or parts, with the step from which it holds.
    frozen: names of parameters and buffers that stay as they are for now.
    finished: no further step will be done.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    plateau: Plateau
    early_stop: EarlyStop
    average: WeightAverage | None
    watch: ForegroundWatch = field(default_factory=ForegroundWatch)
    best: dict[str, Tensor] | None = None
    sound: dict[str, Tensor] | None = None
    sound_loss: float = float("inf")
    step: int = 0
    epochs: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    seconds: float = 0.0
    progress: float = 0.0
    rate_factor: float = 1.0
    returns: int = 0
    parts: int = 1
    changes: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    frozen: frozenset[str] = frozenset()

    _PARTS = ("network", "optimiser", "scaler", "plateau", "early_stop", "average", "watch")
    _VALUES = (
        *("best", "sound", "sound_loss", "step", "epochs", "seconds", "progress"),
        *("rate_factor", "returns", "parts", "changes", "finished"),
    )

    def state_dict(self) -> dict[str, Any]:
        """Everything, with torch's generators, as tensors and plain values."""
        parts = {name: getattr(self, name).state_dict() for name in self._PARTS if getattr(self, name) is not None}
        values = {name: getattr(self, name) for name in self._VALUES}
        return {"format": FORMAT, "parts": parts, "values": values, "sums": self.sums.state(), "generators": _generators()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` gave, torch's generators included.

        Raises:
            TrainingError: it does not fit this network.
        """
        try:
            for name, part in state["parts"].items():
                getattr(self, name).load_state_dict(part)
        except (AttributeError, KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"the checkpoint does not fit the plan's network or optimiser ({str(error).splitlines()[0]})",
                remedy="Delete the fold's folder to train it anew",
            ) from error
        for name, value in state["values"].items():
            setattr(self, name, value)
        self.sums = EpochSums(**state["sums"])
        _set_generators(state["generators"])

    @property
    def is_finite(self) -> bool:
        """Whether every weight is a number. Waits for the device."""
        return bool(torch.stack([torch.isfinite(p).all() for p in self.network.parameters()]).all())

    def change(self, *, rate_factor: float | None = None, parts: int | None = None) -> None:
        """Change the rate's factor or the parts of a batch from the next step on, and note it."""
        self.rate_factor = self.rate_factor if rate_factor is None else rate_factor
        self.parts = self.parts if parts is None else parts
        self.changes = [*self.changes, {"step": self.step, "rate_factor": self.rate_factor, "parts": self.parts}]

    def go_back_to_sound_weights(self) -> None:
        """Take the weights that found the foreground; moments and averages of what came after are forgotten."""
        self.network.load_state_dict(self.sound)
        self.optimiser.state.clear()
        if self.average is not None:
            self.average.restart(self.network)
        self.watch = ForegroundWatch(ever=True)

    def freeze(self, names: frozenset[str]) -> None:
        """Hold these parameters and buffers as they are; all others are free."""
        for name, parameter in self.network.named_parameters():
            if name in names ^ self.frozen:  # what a network of one's own has frozen stays so
                parameter.requires_grad_(name not in names)
        self.frozen = names

    def ready_to_learn(self) -> None:
        """Put the network into training mode, except for norms whose running statistics are frozen."""
        self.network.train()
        if self.frozen:
            for name, module in self.network.named_modules():
                if f"{name}.running_mean" in self.frozen:
                    module.eval()


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU, safe from later steps."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


def previous_checkpoint(folder: FoldFolder) -> Path:
    """The checkpoint before the last."""
    return folder.checkpoint.with_name("checkpoint_previous.pt")


def save_checkpoint(folder: FoldFolder, state: TrainingState) -> None:
    """Write the checkpoint whole or not at all; the one before becomes the previous.

    Raises:
        ResourceError: the disk is full; the earlier checkpoints stand.
    """
    with appears_whole(folder.checkpoint) as beside:
        torch.save(state.state_dict(), beside)
        if folder.checkpoint.is_file():
            folder.checkpoint.replace(previous_checkpoint(folder))


def load_checkpoint(folder: FoldFolder, message: Callable[[str], None]) -> dict[str, Any] | None:
    """The last checkpoint's content, or the previous one's if the last is damaged; None if there is none.

    Raises:
        TrainingError: neither can be read.
    """
    there = [path for path in (folder.checkpoint, previous_checkpoint(folder)) if path.is_file()]
    for path in there:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["format"] == FORMAT:
                return content
            problem = f"its format is {content['format']!r}, this autoseg reads {FORMAT!r}"
        except Exception as error:  # what torch raises for a damaged file has no common name
            problem = f"it is damaged ({type(error).__name__})"
            path.replace(path.with_name("checkpoint_damaged.pt"))  # it must not become the previous one
        message(f"{path.name} was passed over: {problem}.")
    if there:
        raise TrainingError("no checkpoint of this fold can be read", file=there[0], remedy="Delete the fold's folder to train it anew")
    return None


def _generators() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
