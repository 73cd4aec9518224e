"""What predicting gives: of an image in memory, and of a case in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.data.case import LabelMap
from autoseg.errors import Problem
from autoseg.inference.loading import FoldName


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image.

    labels: the label map in file values, on the image's own grid.
    probabilities: float32 (output, z, y, x) on the same grid, if asked for; outputs are background and classes, or regions.
    trained_on: the folds that were trained on this image.
    warnings: what the user should know about it.
    """

    labels: LabelMap
    probabilities: np.ndarray | None
    content_key: str
    trained_on: tuple[FoldName, ...]
    warnings: tuple[Problem, ...]


@dataclass(frozen=True)
class CaseResult:
    """What became of one case: its label map at `output`, or the error that kept it from one."""

    case: str
    output: Path | None
    error: Problem | None
    seconds: float
    content_key: str | None = None
    trained_on: tuple[FoldName, ...] = ()
    warnings: tuple[Problem, ...] = ()
