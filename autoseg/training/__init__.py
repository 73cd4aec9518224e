"""Sampling, augmentation, loss, optimisation and the loop that trains one fold."""

from __future__ import annotations

from typing import Any

__all__ = ["train_fold", "tversky_cross_entropy"]

_HOMES = {"tversky_cross_entropy": "autoseg.training.loss", "train_fold": "autoseg.training.loop"}


def __getattr__(name: str) -> Any:
    # Lazily, since a spawned data worker imports its modules of this room without paying for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
