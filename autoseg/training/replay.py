"""A run told by its history: how long each epoch was, how far each step, and what changed on the way (DESIGN.md 6.6).

What time decided in the first run (the progress of each step, where an epoch was cut short, when the rate was halved) is read from there,
so that the second run does the same steps, on a CPU with the same number of threads to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.errors import PlanError
from autoseg.files import FoldFolder, write_text
from autoseg.network.weights import read_about
from autoseg.planning.folds import Fold
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


def copy_history(source: Path, folder: FoldFolder, fold: Fold, message: Callable[[str], None]) -> None:
    """Have a fold repeat the one in `source`: its history becomes what `folder` goes by.

    Args:
        message: is told where the repetition may differ in the last bits.

    Raises:
        PlanError: it is the same folder; or that fold has not finished, is another fold, or was trained on other cases.
    """
    from_here = FoldFolder(source)
    if source.resolve() == folder.path.resolve():
        raise PlanError("a fold cannot repeat itself in its own folder", file=source, remedy="Move it away first, or use another WORK")
    if not from_here.weights.is_file():
        raise PlanError("that fold has not finished, or is no fold's folder", file=source, remedy="Name the folder of a finished fold")
    about, _ = read_about(from_here.weights)
    if about["fold"] != str(fold.name) or about["cases"] != list(fold.train):
        raise PlanError(
            f"that is fold {about['fold']} of {len(about['cases'])} cases, this is fold {fold.name} of {len(fold.train)}, or of others",
            file=source,
            remedy="Use a WORK with the same cases and folds",
        )
    if folder.checkpoint.is_file() and not folder.replayed.is_file():
        raise PlanError("this fold was begun already, not as a repetition", file=folder.path, remedy="Delete its folder to train it anew")
    if about["threads"] != torch.get_num_threads():
        message(
            f"It was trained with {about['threads']} threads, this process has {torch.get_num_threads()}: sums are rounded otherwise, and "
            f"the weights will differ a little. OMP_NUM_THREADS={about['threads']} makes them equal."
        )
    if not folder.replayed.is_file():
        write_text(folder.replayed, from_here.history.read_text(encoding="utf-8"))


def replayed_fold(source: Path) -> tuple[list[str], list[int | str]]:
    """The configuration and the fold that were trained in this folder, as `train` names them.

    Raises:
        PlanError: it is no folder of a finished fold.
    """
    weights = FoldFolder(source).weights
    if not weights.is_file():
        raise PlanError("it is no folder of a finished fold", file=source, remedy="Name one, such as WORK/models/3d_fullres/fold_0")
    about, _ = read_about(weights)
    return [about["configuration"]], [int(about["fold"]) if about["fold"].isdigit() else about["fold"]]
