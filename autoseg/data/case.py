"""The types that images and label maps travel in, from the reader to every later room."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.data.choices import Choices
from autoseg.data.key import Key
from autoseg.data.labels import LabelSet
from autoseg.errors import Problem
from autoseg.geometry import Grid, Orientation


@dataclass(frozen=True)
class SeriesChoice:
    """Which of the DICOM images under a folder is meant.

    pattern: see `autoseg.data.formats.dicom.series.matching`; empty: the only one that is no localiser.
    planes: its files, each with the frame in it or None, where somebody has looked already.
    """

    pattern: str = ""
    planes: tuple[tuple[Path, int | None], ...] = ()


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies.

    images: one file a channel, or one file that holds all channels, or a folder with a DICOM series.
    label: its label map, if there is one.
    series: for each of `images` that is a folder of DICOM files, which image in it is meant; empty: the only one.
    private: whether the files' names may tell who the patient is; then no message names a file.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None = None
    series: tuple[SeriesChoice, ...] = ()
    private: bool = False

    def choice(self, number: int) -> SeriesChoice:
        """What is meant by `images[number]`, if it is a folder of DICOM files."""
        return self.series[number] if self.series else SeriesChoice()

    def files(self) -> list[Path]:
        """Every file that reading the case opens, as far as names tell; a folder of DICOM files stands for all that lie under it."""
        found = [] if self.label is None else [self.label]
        for number, image in enumerate(self.images):
            named = [path for path, _ in self.choice(number).planes]
            found += named or (sorted(p for p in image.rglob("*") if p.is_file()) if image.is_dir() else [image])
        return list(dict.fromkeys(found))


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
    stored: the image file's own grid; where it is sheared, the image lies on its `straight` grid.
    orientation: what was applied to the stored (and straightened) array; `autoseg.data.writing.on_stored_grid` brings results back.
    content_key: of the image's voxels as stored, in LPS order, so that the same image is known in any file format.
    notices: warnings that the reader has about it.
    combinations: what each value of `labels` stands for, as names, where the label file names its segments and no labels were given.
    """

    name: str
    image: Volume
    labels: LabelMap | None
    stored: Grid
    orientation: Orientation
    content_key: str
    notices: tuple[Problem, ...] = ()
    combinations: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True)
class Dataset:
    """Images to learn from, as a layout described them; nothing is read yet.

    channels: the channels' names, in order.
    labels: None until `fingerprint` has found the values in the files, where no dataset.json declares them.
    groups: case -> patient or scanner that ties cases together.
    intensity_kinds: case -> channel name -> kind, where the user overrides what the values say.
    labels_present: case -> the classes or regions that somebody annotated in it; a case that is not named annotates all.
    given_folds: folds that the dataset brings (splits_final.json), as (train, held-out) lists.
    choices: what the user chose about reading its files.
    key: whom the numbers of cases from a DICOM export stand for; None for other layouts.
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
    labels_present: dict[str, tuple[str, ...]] = field(default_factory=dict)
    given_folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] | None = None
    problems: tuple[Problem, ...] = ()
    choices: Choices = field(default_factory=Choices)
    key: Key | None = None

    def annotates(self, case: str, name: str) -> bool:
        """Whether somebody annotated a class or region in a case."""
        return case not in self.labels_present or name in self.labels_present[case]
