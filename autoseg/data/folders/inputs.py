"""What predict is given: one file, a folder of files, a folder of case folders, a DICOM series, or an export of DICOM studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from autoseg.data.case import CaseFiles, SeriesChoice
from autoseg.data.choices import Choices
from autoseg.data.folders.export import Export, export_cases, look_through
from autoseg.data.folders.pairing import Found, add_image, image_files
from autoseg.data.formats.dicom.headers import dicom_beneath
from autoseg.data.formats.dicom.series import matching
from autoseg.data.key import Key
from autoseg.data.names import (
    LABEL_STEMS,
    SLICER_ENDINGS,
    Entry,
    entries,
    is_series,
    listing,
    only_outlines,
    split_channel,
    split_ending,
    visible,
    without_label_suffix,
)
from autoseg.errors import AutosegError, DatasetError, Problem


class Inputs(NamedTuple):
    """The images to predict, a problem for each that cannot be, and whom the numbers of cases from a DICOM export stand for."""

    cases: list[CaseFiles]
    problems: list[Problem]
    key: Key = Key()


def find_inputs(path: Path, channels: int, *, choices: Choices | None = None, key: Key | None = None) -> Inputs:
    """The images to predict, with a problem for each case that lacks or exceeds the model's channels.

    Args:
        path: a file (its `_0001` ... neighbours belong to it where the model has several channels), a folder of files with
            `_0000` suffixes or with names of their own, a folder of case folders, a DICOM series folder, or an export of DICOM studies.
        channels: the model's.
        choices: what was chosen about reading the dataset that the model learnt from; of DICOM images, which.
        key: the numbers that cases of a DICOM export were given before; None: the model did not learn from one.

    Raises:
        DatasetError: nothing is there, or no image is among it.
    """
    path, choices = Path(path), choices or Choices()
    if path.is_dir() and (export := _export(path, choices, numbered=key is not None)):
        found = export_cases(export, choices, key or Key(), labels=False)
        if not found.cases and not found.problems:
            raise DatasetError(
                f"no series in it fits --series {' '.join(choices.series)}", file=path, remedy="Look at autoseg doctor FOLDER"
            )
        return Inputs(list(found.cases), list(found.problems), found.key)
    if path.is_file():
        cases = _single(path, channels)
    elif not path.is_dir():
        raise DatasetError("there is no such file or folder", file=path, remedy="Give an image file or a folder of images")
    elif is_series(path):
        cases = {path.resolve().name: Found([path])}
    elif (path / "imagesTs").is_dir() or (path / "imagesTr").is_dir():
        raise DatasetError(
            f"it is a dataset, not a folder of images (it holds {listing(path)})", file=path, remedy="Give its imagesTs folder"
        )
    else:
        cases = group(entries(path), channels)
        for folder in visible(path):
            if folder.is_dir() and not is_series(folder) and (found := _case_folder(folder, channels)):
                cases[folder.name] = found
    if not cases:
        raise DatasetError(
            f"no image is in it (it holds {listing(path)})",
            file=path,
            remedy="Give images as .nii.gz, .nrrd, .mha, .png or DICOM series folders",
        )
    good, problems = [], []
    for case, found in sorted(cases.items()):
        try:
            good.append(with_series(CaseFiles(case, image_files(found, channels)), choices))
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(case)))
    return Inputs(good, problems)


def with_series(files: CaseFiles, choices: Choices) -> CaseFiles:
    """The case with the choice of series, where its image is a folder of DICOM files: one channel a pattern."""
    if not choices.series or not files.images or not all(image.is_dir() for image in files.images):
        return files
    patterns = choices.series
    if len(files.images) == 1:
        images = files.images * len(patterns)
    else:
        images, patterns = files.images, patterns if len(patterns) == len(files.images) else patterns[:1] * len(files.images)
    return replace(files, images=images, series=tuple(SeriesChoice(pattern) for pattern in patterns))


def _export(path: Path, choices: Choices, *, numbered: bool) -> Export | None:
    """The studies of a folder that must be told apart by their headers; None if its folders or files are cases of their own.

    A folder with DICOM files in or under it is one case if they make one image, or if the patterns leave one of them for each channel;
    a folder of such folders is a folder of cases. Anything else, as PACS and DICOMDIR write it, is an export.

    Args:
        numbered: the model learnt from an export, so that a folder of folders is taken for one too.
    """
    if is_series(path):
        folders = [path]
    elif any(entry.path.is_file() for entry in entries(path)):
        return None
    else:
        folders = [folder for folder in visible(path) if folder.is_dir() and dicom_beneath(folder)]
        if not folders or (not numbered and not choices.series and all(map(is_series, folders))):
            return None
    export = look_through(path)
    if numbered and path not in folders:
        return export
    for folder in folders:
        images = [image for images in export.studies.values() for image in images if folder in image.first.path.parents]
        if any(len(matching(images, pattern)) != 1 for pattern in choices.series or ("",)):
            return export
    return None


def group(images: list[Entry], channels: int) -> dict[str, Found]:
    """Image files by case.

    Four digits at the end are a channel where the model has several channels, or where all files have them and some are
    _0000; else they belong to the name (frame_0001, frame_0002).
    """
    images = [entry for entry in images if split_ending(entry.path.name)[1] not in SLICER_ENDINGS]  # Slicer saves segments beside images
    parts = [split_channel(entry.stem) for entry in images]
    numbered = channels > 1 or (all(parts) and any(part[1] == 0 for part in parts))
    cases: dict[str, Found] = {}
    for entry, part in zip(images, parts, strict=True):
        name, channel = part if part and numbered else (entry.stem, None)
        add_image(cases.setdefault(name, Found()), entry.path, channel)
    return cases


def _single(path: Path, channels: int) -> dict[str, Found]:
    stem, _ = split_ending(path.name)
    part = split_channel(stem)
    if part is None or (channels == 1 and part[1] != 0):
        return {stem: Found([path])}
    beside = [Entry(path, stem)] if channels == 1 else [e for e in entries(path.parent) if (split_channel(e.stem) or ("",))[0] == part[0]]
    return group(beside, channels)


def _case_folder(folder: Path, channels: int) -> Found | None:
    """The images in one case's folder, whatever they are called, label maps left out; None if there are none."""
    images = [e for e in entries(folder) if e.stem.lower() not in LABEL_STEMS and without_label_suffix(e.stem) == e.stem]
    images = [e for e in images if not (e.path.is_dir() and only_outlines(e.path))]
    if not any(entry.path.is_file() or split_channel(entry.stem) for entry in images) and dicom_beneath(folder):
        return Found([images[0].path if len(images) == 1 else folder])
    cases = group(images, channels)
    if len(cases) <= 1:
        return next(iter(cases.values()), None)
    return Found([e.path for e in images])
