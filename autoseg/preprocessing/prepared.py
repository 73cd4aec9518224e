"""A case as a network sees it, and what brings results back to where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.geometry import Box, Grid, Orientation


@dataclass(frozen=True)
class Origin:
    """Where a prepared array came from.

    stored: the image file's own grid.
    orientation: stored array -> oriented array (see autoseg.geometry.Orientation).
    oriented: the grid after that, on which labels are decided.
    box: the crop of the oriented grid that was prepared.
    transpose: axis order inside, applied after the crop; None: as it is.
    content_key: of the image's voxels.
    """

    stored: Grid
    orientation: Orientation
    oriented: Grid
    box: Box
    transpose: tuple[int, int, int] | None
    content_key: str


@dataclass(frozen=True)
class PreparedCase:
    """One case at one configuration's spacing, in the axis order that the network sees.

    image: float32 (channel, z, y, x).
    labels: class indices (z, y, x), or None.
    spacing: mm of the prepared grid, (z, y, x).
    """

    name: str
    image: np.ndarray
    labels: np.ndarray | None
    spacing: tuple[float, float, float]
    origin: Origin
