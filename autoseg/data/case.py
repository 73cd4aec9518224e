"""The types that images and label maps travel in, from the reader to every later room."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.data.labels import LabelSet
from autoseg.errors import Problem
from autoseg.geometry import Grid, Orientation


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies.

    images: one file a channel, or one file that holds all channels, or a DICOM series folder.
    label: its label map, if there is one.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class Volume:
    """Intensities, float32 (channel, z, y, x), on their grid."""

    voxels: np.ndarray
    grid: Grid


@dataclass(frozen=True)
class LabelMap:
    """Unsigned file values (z, y, x) on their grid; `LabelSet.encode` makes class indices of them."""

    voxels: np.ndarray
    grid: Grid


@dataclass(frozen=True)
class Case:
    """One case as read: checked, in the dataset's orientation.

    labels: in file values, or None where there is no label map.
    stored: the image file's own grid.
    orientation: what was applied to the stored array; its inverse brings results back.
    content_key: of the image's voxels in LPS order, so that the same image is known in any file format.
    notices: warnings that the reader has about it.
    """

    name: str
    image: Volume
    labels: LabelMap | None
    stored: Grid
    orientation: Orientation
    content_key: str
    notices: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Images to learn from, as a layout described them; nothing is read yet.

    channels: the channels' names, in order.
    labels: None until `fingerprint` has found the values in the files, where no dataset.json declares them.
    groups: case -> patient or scanner that ties cases together.
    intensity_kinds: case -> channel name -> kind, where the user overrides what the values say.
    given_folds: folds that the dataset brings (splits_final.json), as (train, held-out) lists.
    """

    name: str
    folder: Path
    layout: str
    cases: tuple[CaseFiles, ...]
    channels: tuple[str, ...]
    labels: LabelSet | None
    groups: dict[str, str] = field(default_factory=dict)
    intensity_kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    label_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    given_folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] | None = None
    problems: tuple[Problem, ...] = ()
