"""A run told by its history: how long each epoch was, how far each step, and what changed on the way (DESIGN.md 6.6).

What time decided in the first run (the progress of each step, where an epoch was cut short, when the rate was halved) is read from there,
so that the second run does the same steps, on a CPU with the same number of threads to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.training.history import read_rows


@dataclass(frozen=True)
class Replay:
    """The pace of a run that has been.

    steps: of each epoch. progress: of each step.
    changes: as in TrainingState, those that lasted.
    """

    steps: tuple[int, ...]
    progress: tuple[float, ...]
    changes: tuple[dict[str, Any], ...]

    def changes_at(self, step: int) -> list[dict[str, Any]]:
        """What changed before this step."""
        return [change for change in self.changes if change["step"] == step]


def read_replay(path: Path) -> Replay:
    """The pace of the run that wrote this history.

    Raises:
        PlanError: it is empty, or does not say enough.
    """
    rows = read_rows(path)
    if not rows:
        raise PlanError("it holds no epoch to repeat", file=path, remedy="Name the folder of a fold that was trained")
    progress: list[float] = []
    for row in rows:
        progress += _progress(row, len(progress), path)
    return Replay(tuple(row["steps"] for row in rows), tuple(progress), tuple(rows[-1].get("changes", ())))


def _progress(row: Mapping[str, Any], done: int, path: Path) -> Sequence[float]:
    """Of each step of an epoch: as it stands there, or the share of the planned steps."""
    if "step_progress" in row:
        return row["step_progress"]
    if "planned_steps" not in row:
        raise PlanError(f"its epoch {row['epoch']} does not say how far its steps were", file=path, remedy="Train the fold anew")
    return [(done + step) / row["planned_steps"] for step in range(row["steps"])]
