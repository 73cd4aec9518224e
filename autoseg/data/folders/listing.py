"""The DICOM images under a folder, as `doctor` lists them before anything is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.data.choices import Choices
from autoseg.data.folders.export import SeriesRow, export_cases, is_labelled, look_through, series_table
from autoseg.data.folders.layouts import is_export, open_dataset
from autoseg.data.formats.dicom.headers import dicom_beneath
from autoseg.data.key import Key


@dataclass(frozen=True)
class SeriesListing:
    """The DICOM images under a folder, and whether any label map lies among them."""

    rows: tuple[SeriesRow, ...] = ()
    labelled: bool = False


def look_for_series(dataset: Path, choices: Choices, key: Key, *, workers: int | None = None) -> SeriesListing:
    """Every DICOM image under a folder, with the case that it becomes; nothing is read but headers.

    Raises:
        DatasetError: the folder has another layout than an export's, and no case in it can be used.
    """
    if not dicom_beneath(dataset):
        return SeriesListing()
    export = look_through(dataset, workers=workers)
    if is_export(dataset):
        cases = export_cases(export, choices, key, labels=False).cases
    else:
        cases = open_dataset(dataset, choices=choices).cases
    return SeriesListing(tuple(series_table(export, key, cases)), is_labelled(export))
