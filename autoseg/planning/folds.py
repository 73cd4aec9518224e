"""Cross-validation folds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fold:
    """One split.

    name: 0, 1, ... or "full", which trains on every case and holds none out.
    """

    name: int | str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
