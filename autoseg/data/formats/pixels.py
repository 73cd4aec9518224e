"""What a reader gives of one file, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.errors import AutosegError
from autoseg.geometry import Grid


@dataclass(frozen=True)
class Pixels:
    """One file's values as stored, rescaled, on their grid.

    values: (channel, z, y, x) in the file's own type, or float32 where the header rescales; may be read-only.
    doubts: what the reader decided that the user should know, as errors that were not raised.
    placed: whether the file says where it lies in the patient; a picture doesn't, and fits any grid of its shape.
    alpha: whether the last channel is transparency.
    """

    values: np.ndarray
    grid: Grid
    doubts: tuple[AutosegError, ...] = ()
    placed: bool = True
    alpha: bool = False
