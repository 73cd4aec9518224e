"""A raw folder to a Dataset, by its content: four layouts. Nothing is read but names and dataset.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoseg.data.case import Dataset
from autoseg.data.description import Description, describe, read_folds, read_groups
from autoseg.data.inputs import find_inputs
from autoseg.data.names import LABEL_STEMS, entries, is_dicom, is_series, listing, split_channel, split_ending, visible
from autoseg.data.pairing import Found, add_image, pair, settle, usual_channels
from autoseg.errors import DatasetError, Problem

__all__ = ["find_inputs", "open_dataset"]

NNUNET, DECATHLON, CASE_FOLDERS, TWO_FOLDERS = "nnU-Net", "Decathlon", "case folders", "two folders"
IMAGE_FOLDERS = ("images", "image", "imgs")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations")
IMAGE_STEMS = ("imaging", "image", "img")
LOOKED_FOR = (
    "imagesTr/ and labelsTr/; dataset.json with `training` or `dataset`; images/ and labels/ or masks/;"
    " folders CASE/ with imaging.EXT or a DICOM series, and segmentation.EXT"
)


def open_dataset(folder: Path) -> Dataset:
    """The dataset in a folder, its layout recognised by content.

    1. nnU-Net: imagesTr/ and labelsTr/, or dataset.json with a `dataset` mapping of paths;
    2. Medical Segmentation Decathlon: dataset.json with `training: [{image, label}]`;
    3. one folder a case: imaging.EXT or a DICOM series, and segmentation.EXT;
    4. images/ and labels/ or masks/, paired by name.

    Returns:
        Cases sorted by id. A case without image or label, with duplicates, or with missing or surplus channel files is left out
        and stands in `problems`. Without dataset.json channels are named by number and labels are None.

    Raises:
        DatasetError: no such folder, no layout fits, no usable case, or a description that is not understood or names cases that are not
            there.
        LabelError: labels or `labels_present` in dataset.json that contradict themselves or each other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError("there is no such folder", file=folder, remedy="Give the folder of the dataset")
    about = describe(folder)
    layout, found = _recognise(folder, about.content)
    channels = about.channels or tuple(str(n) for n in range(usual_channels(found.values())))
    cases, problems = settle(found, len(channels))
    if not cases:
        why = f"first of {len(problems)} problems: {problems[0].case}: {problems[0].message}" if problems else f"it holds {listing(folder)}"
        raise DatasetError(
            f"its layout is that of {layout}, but no case has both image and label map ({why})",
            file=folder,
            remedy="Put an image and a label map of the same name into the folders",
        )
    _require_known_cases(about, found, folder)
    groups, unknown = read_groups(folder, about.content, (c.case for c in cases))
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
    )


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
        return TWO_FOLDERS, pair(entries(images), entries(labels))
    found = {path.name: _case_folder(path) for path in sorted(inside.values())}
    if any((f.whole or f.numbered) and f.labels for f in found.values()):
        return CASE_FOLDERS, {case: f for case, f in found.items() if f.whole or f.numbered or f.labels}
    raise DatasetError(
        f"no layout of a dataset fits. Looked for: {LOOKED_FOR}. It holds: {listing(folder)}",
        file=folder,
        remedy="Arrange the files in one of these ways",
    )


def _case_folder(folder: Path) -> Found:
    """imaging.EXT (or imaging_0000.EXT, ...) or a DICOM series, in a folder of its own or beside the label map."""
    found = Found()
    if is_series(folder):
        found.whole.append(folder)
    series = []
    for entry in entries(folder):
        stem, channel = split_channel(entry.stem) or (entry.stem, None)
        if entry.path.is_dir():
            series.append(entry.path)
        elif stem.lower() in LABEL_STEMS:
            found.labels.append(entry.path)
        elif stem.lower() in IMAGE_STEMS:
            add_image(found, entry.path, channel)
    if not found.numbered:
        found.whole += series
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
    """Refuse `labels_present` of a case that is not there: of a case whose name is mistyped, what nobody annotated would become background."""
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
