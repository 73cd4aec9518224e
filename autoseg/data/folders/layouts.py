"""A raw folder to a Dataset, by its content: four layouts, and an export of DICOM studies.

Nothing is read but names and dataset.json; of an export, and of the first case where nothing tells the channels, headers too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.data.case import Dataset
from autoseg.data.choices import Choices
from autoseg.data.folders.description import Description, describe, read_folds, read_groups
from autoseg.data.folders.export import export_cases, look_through
from autoseg.data.folders.inputs import find_inputs, with_series
from autoseg.data.folders.pairing import Found, add_image, pair, settle, usual_channels
from autoseg.data.formats.dicom.headers import dicom_beneath
from autoseg.data.formats.readers import channels_in
from autoseg.data.key import Key
from autoseg.data.names import (
    LABEL_STEMS,
    SLICER_ENDINGS,
    Entry,
    entries,
    is_dicom,
    is_series,
    listing,
    only_outlines,
    outlines_in,
    split_channel,
    split_ending,
    visible,
)
from autoseg.errors import DatasetError, Problem

__all__ = ["find_inputs", "open_dataset"]

NNUNET, DECATHLON, CASE_FOLDERS, TWO_FOLDERS, EXPORT = "nnU-Net", "Decathlon", "case folders", "two folders", "DICOM export"
IMAGE_FOLDERS = ("images", "image", "imgs")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations")
IMAGE_STEMS = ("imaging", "image", "img")
LOOKED_FOR = (
    "imagesTr/ and labelsTr/; dataset.json with `training` or `dataset`; images/ and labels/ or masks/;"
    " folders CASE/ with imaging.EXT or a DICOM series, and segmentation.EXT; a tree of DICOM files with label maps in or beside it"
)


def open_dataset(folder: Path, *, choices: Choices | None = None, key: Key | None = None, workers: int | None = None) -> Dataset:
    """The dataset in a folder, its layout recognised by content.

    1. nnU-Net: imagesTr/ and labelsTr/, or dataset.json with a `dataset` mapping of paths;
    2. Medical Segmentation Decathlon: dataset.json with `training: [{image, label}]`;
    3. one folder a case: imaging.EXT or DICOM files, and segmentation.EXT;
    4. images/ and labels/ or masks/, paired by name;
    else an export: DICOM studies in any order of folders, with their label maps (`autoseg.data.folders.export`).

    Args:
        choices: what the user chose about reading; of a folder with several DICOM images, `series` says which are the channels.
        key: the numbers that cases of an export were given before.
        workers: processes that read the headers of an export.

    Returns:
        Cases sorted by id. A case without image or label, with duplicates, or with missing or surplus channel files is left out
        and stands in `problems`. Without dataset.json channels are named by number and labels are None.

    Raises:
        DatasetError: no such folder, no layout fits, no usable case, or a description that is not understood or names cases that are not
            there.
        LabelError: labels or `labels_present` in dataset.json that contradict themselves or each other.
    """
    choices = choices or Choices()
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError("there is no such folder", file=folder, remedy="Give the folder of the dataset")
    about = describe(folder)
    layout, found = _recognise(folder, about.content)
    groups: dict[str, str] = {}
    if layout == EXPORT:
        export = export_cases(look_through(folder, workers=workers), choices, key or Key(), labels=True)
        cases, problems, groups, key = export.cases, export.problems, export.groups, export.key
        found = {files.case: Found() for files in cases}
        channels = about.channels or tuple(str(n) for n in range(max(len(choices.series), 1)))
    else:
        channels = about.channels or _channels_by_number(found, choices)
        cases, problems = settle(found, len(channels))
        cases, key = [with_series(files, choices) for files in cases], None
    if not cases:
        raise _no_case(folder, layout, problems)
    _require_known_cases(about, found, folder)
    if choices.series and not any(files.series for files in cases):
        message = "--series chooses among DICOM series, and no case has any"
        problems = [*problems, Problem("warning", "DatasetError", message, "Leave it out")]
    declared, unknown = read_groups(folder, about.content, (c.case for c in cases))
    groups = {files.case: groups[files.case] for files in cases if files.case in groups} | declared
    return Dataset(
        about.name,
        folder,
        layout,
        tuple(cases),
        channels,
        about.labels,
        groups,
        about.intensity_kinds,
        about.label_groups,
        about.labels_present,
        read_folds(folder),
        (*problems, *unknown, *_unknown_kinds(about, found)),
        choices,
        key,
    )


def _no_case(folder: Path, layout: str, problems: Sequence[Problem]) -> DatasetError:
    why = f"first of {len(problems)} problems: {problems[0].case}: {problems[0].message}" if problems else f"it holds {listing(folder)}"
    return DatasetError(
        f"its layout is that of {layout}, but no case has both image and label map ({why})",
        file=folder,
        remedy="Put an image and a label map of the same name into the folders",
    )


def _channels_by_number(found: dict[str, Found], choices: Choices) -> tuple[str, ...]:
    """Names of the channels where dataset.json gives none: as many as files, patterns, or what the first case's one file holds."""
    count = usual_channels(found.values())
    first = next((f.whole[0] for f in found.values() if f.whole and f.labels), None)
    if count == 1 and first is None:  # a colour picture may be called CASE_0000
        first = next((f.numbered[0][0] for f in found.values() if 0 in f.numbered and f.labels), None)
    if count == 1 and first is not None:
        count = max(len(choices.series), 1) if first.is_dir() else channels_in(first)
    return tuple(str(n) for n in range(count))


def is_export(folder: Path) -> bool:
    """Whether a folder is an export of DICOM studies: none of the four layouts fits it, and DICOM files lie in it."""
    try:
        return folder.is_dir() and _recognise(folder, describe(folder).content)[0] == EXPORT
    except DatasetError:
        return False


def _recognise(folder: Path, content: dict[str, Any]) -> tuple[str, dict[str, Found]]:
    if isinstance(content.get("dataset"), dict):
        return NNUNET, _mapped(folder, content["dataset"])
    if isinstance(training := content.get("training"), list) and training and isinstance(training[0], dict):
        return DECATHLON, _listed(folder, training)
    inside = {p.name.lower(): p for p in visible(folder) if p.is_dir()}
    if "imagestr" in inside and "labelstr" in inside:
        return NNUNET, pair(entries(inside["imagestr"]), entries(inside["labelstr"]))
    images = next((inside[name] for name in IMAGE_FOLDERS if name in inside), None)
    labels = next((inside[name] for name in LABEL_FOLDERS if name in inside), None)
    if images and labels:
        found = pair(_images_or_cases(images), entries(labels))
        if any(f.labels and (f.whole or f.numbered) for f in found.values()) or not dicom_beneath(images):
            return TWO_FOLDERS, found
    found = {path.name: _case_folder(path) for path in sorted(inside.values()) if path.name.lower() not in LABEL_FOLDERS}
    if any((f.whole or f.numbered) and f.labels for f in found.values()):
        return CASE_FOLDERS, {case: f for case, f in found.items() if f.whole or f.numbered or f.labels}
    if dicom_beneath(folder):
        return EXPORT, {}
    raise DatasetError(
        f"no layout of a dataset fits. Looked for: {LOOKED_FOR}. It holds: {listing(folder)}",
        file=folder,
        remedy="Arrange the files in one of these ways",
    )


def _images_or_cases(folder: Path) -> list[Entry]:
    """Image files and DICOM series folders, and folders under which DICOM series lie deeper."""
    found = entries(folder)
    known = {entry.path for entry in found}
    deeper = (path for path in visible(folder) if path.is_dir() and path not in known)
    return [*found, *(Entry(path, path.name) for path in deeper if dicom_beneath(path))]


def _case_folder(folder: Path) -> Found:
    """imaging.EXT (or imaging_0000.EXT, ...) or DICOM files, beside the label map or in folders of their own."""
    found = Found()
    if is_series(folder) and not only_outlines(folder):
        found.whole.append(folder)
    series = []
    for entry in entries(folder):
        stem, channel = split_channel(entry.stem) or (entry.stem, None)
        if entry.path.is_dir():
            (found.labels if only_outlines(entry.path) else series).append(entry.path)
        elif stem.lower() in LABEL_STEMS or split_ending(entry.path.name)[1] in SLICER_ENDINGS:
            found.labels.append(entry.path)
        elif stem.lower() in IMAGE_STEMS:
            add_image(found, entry.path, channel)
    if not found.numbered and not found.whole:
        if len(series) == 1:
            found.whole += series
        elif dicom_beneath(folder):
            found.whole.append(folder)  # several series: which is meant is told when headers are read
    if not found.labels:
        found.labels += [path for place in dict.fromkeys([folder, *found.whole]) if place.is_dir() for path in outlines_in(place)]
    if found.whole and found.whole[0].is_dir() and not found.labels:  # beside a DICOM series any one image file is its label map
        found.labels += [e.path for e in entries(folder) if e.path.is_file() and not is_dicom(e.path)]
    return found


def _mapped(folder: Path, mapping: dict[str, Any]) -> dict[str, Found]:
    """nnU-Net's {case: {images: [paths], label: path}}, paths relative to the dataset's folder."""
    found = {}
    for case, files in sorted(mapping.items()):
        try:
            images, label = [folder / p for p in files["images"]], files.get("label")
        except (TypeError, KeyError, AttributeError) as error:
            message = f"`dataset` of {case} is no {{images: [paths], label: path}}"
            raise DatasetError(message, file=folder / "dataset.json", remedy="Correct the entry") from error
        here = found[str(case)] = Found(labels=[folder / label] if label else [])
        for number, image in enumerate(images):
            add_image(here, image, number if len(images) > 1 else None)
    return found


def _listed(folder: Path, training: list[Any]) -> dict[str, Found]:
    """The Decathlon's [{image, label}]; of nnU-Net v1, which lists CASE for files CASE_0000, too."""
    found: dict[str, Found] = {}
    for item in training:
        try:
            images = item["image"] if isinstance(item["image"], list) else [item["image"]]
            images, label = [folder / p for p in images], folder / item["label"]
        except (TypeError, KeyError) as error:
            raise DatasetError(
                f"`training` holds {item!r}, no {{image, label}}", file=folder / "dataset.json", remedy="Correct the entry"
            ) from error
        stem = split_ending(images[0].name)[0]
        name = split_ending(label.name)[0]
        parts = split_channel(stem)
        case = parts[0] if parts and (parts[0] == name or len(images) > 1) else stem
        files = found.setdefault(case, Found())
        files.labels.append(label)
        numbered = {} if len(images) > 1 or images[0].exists() else _channels_of(images[0].parent, stem)
        if numbered:
            files.numbered.update(numbered)
            continue
        for number, path in enumerate(images):
            add_image(files, path, number if len(images) > 1 else None)
    return dict(sorted(found.items()))


def _channels_of(folder: Path, case: str) -> dict[int, list[Path]]:
    """The files CASE_0000, CASE_0001, ... in a folder."""
    found = Found()
    for entry in entries(folder) if folder.is_dir() else []:
        parts = split_channel(entry.stem)
        if parts and parts[0] == case:
            add_image(found, entry.path, parts[1])
    return found.numbered


def _require_known_cases(about: Description, found: dict[str, Found], folder: Path) -> None:
    """Refuse `labels_present` of a case that is not there: of a mistyped case, what nobody annotated would become background."""
    if unknown := sorted(set(about.labels_present) - set(found)):
        raise DatasetError(
            f"`labels_present` names {', '.join(unknown[:4])}{' and more' if len(unknown) > 4 else ''}, which are no cases",
            file=folder / "dataset.json",
            remedy=f"Correct the names; the first cases are {', '.join(sorted(found)[:3])}",
        )


def _unknown_kinds(about: Description, found: dict[str, Found]) -> list[Problem]:
    unknown = sorted(set(about.intensity_kinds) - set(found))
    message = f"`intensity_kind` names {', '.join(unknown)}, which are no cases"
    return [Problem("warning", "DatasetError", message, "Correct the names", file="dataset.json")] if unknown else []
