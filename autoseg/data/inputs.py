"""What predict is given: one file, a folder of files, a folder of case folders, or a DICOM series."""

from __future__ import annotations

from pathlib import Path

from autoseg.data.case import CaseFiles
from autoseg.data.names import LABEL_STEMS, Entry, entries, is_series, listing, split_channel, split_ending, visible, without_label_suffix
from autoseg.data.pairing import Found, add_image, image_files
from autoseg.errors import AutosegError, DatasetError, Problem


def find_inputs(path: Path, channels: int) -> tuple[list[CaseFiles], list[Problem]]:
    """The images to predict, with a problem for each case that lacks or exceeds the model's channels.

    Args:
        path: a file (its `_0001` ... neighbours belong to it where the model has several channels), a folder of files with
            `_0000` suffixes or with names of their own, a folder of case folders, or a DICOM series folder.
        channels: the model's.

    Raises:
        DatasetError: nothing is there, or no image is among it.
    """
    path = Path(path)
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
            good.append(CaseFiles(case, image_files(found, channels)))
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(case)))
    return good, problems


def group(images: list[Entry], channels: int) -> dict[str, Found]:
    """Image files by case.

    Four digits at the end are a channel where the model has several channels, or where all files have them and some are
    _0000; else they belong to the name (frame_0001, frame_0002).
    """
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
    cases = group(images, channels)
    if len(cases) <= 1:
        return next(iter(cases.values()), None)
    return Found([e.path for e in images])
