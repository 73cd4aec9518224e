"""What dataset.json, groups.csv and splits_final.json say about a dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.data.labels import LabelSet
from autoseg.errors import DatasetError, LabelError, Problem

KINDS = ("hu", "windowed", "arbitrary")
KEYS = {
    "name": "The dataset's name; without it the folder's.",
    "channel_names": '`{"0": name, "1": name}`, as nnU-Net has it; `modality` (Decathlon) and a list are understood too. A channel whose '
    "name says CT or HU holds Hounsfield units.",
    "labels": "`{name: value}`, or `{name: [values]}` for regions that may overlap; `background` (0 if not given) and `ignore`, the value "
    "of voxels that nobody annotated, are names with a meaning. The Decathlon's `{value: name}` is understood too.",
    "regions_class_order": "With regions: the value that each one writes into a label map, in the order of `labels`; later ones write over "
    "earlier ones.",
    "labels_present": "`{case: [names]}` for cases in which somebody annotated some classes or regions and not the others; a case that is "
    "not named annotates all.",
    "groups_of_labels": "`{name: [labels]}` that are scored together too.",
    "intensity_kind": "`{case: {channel: kind}}`, where the kind found in the values is wrong: hu, windowed or arbitrary.",
    "groups": "`{case: group}`, `{group: [cases]}` or `[[cases], ...]`: scans of one patient stay in one fold. groups.csv comes first.",
    "dataset": "`{case: {images: [paths], label: path}}`, nnU-Net's mapping.",
    "training": "`[{image: path, label: path}, ...]`, the Decathlon's list.",
}
"""What dataset.json may say, and what it means."""

Folds = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


@dataclass(frozen=True)
class Description:
    """dataset.json, understood; everything is optional.

    content: the file as it is, {} if there is none.
    """

    name: str
    content: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] | None = None
    labels: LabelSet | None = None
    intensity_kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    label_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels_present: dict[str, tuple[str, ...]] = field(default_factory=dict)


def describe(folder: Path) -> Description:
    """The description in `folder`.

    Raises:
        DatasetError: dataset.json is no JSON object, or one of its keys has a form that is not understood.
        LabelError: its labels contradict themselves.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return Description(folder.resolve().name)
    content = _load(path)
    if not isinstance(content, dict):
        raise _wrong(path, "it is no JSON object")
    channels = _channels(content, path)
    labels = _labels(content, path)
    return Description(
        str(content.get("name") or folder.resolve().name),
        content,
        channels,
        labels,
        _intensity_kinds(content, channels, path),
        _label_groups(content, labels, path),
        _labels_present(content, labels, path),
    )


def read_groups(folder: Path, content: dict[str, Any], cases: Iterable[str]) -> tuple[dict[str, str], list[Problem]]:
    """Case -> group, from groups.csv or else the `groups` key ({case: group}, {group: [cases]} or [[cases], ...])."""
    path = folder / "groups.csv"
    found = _groups_csv(path) if path.is_file() else _groups_key(content.get("groups"), folder / "dataset.json")
    known = set(cases)
    source = path.name if path.is_file() else "dataset.json"
    if not (unknown := sorted(set(found) - known)):
        return found, []
    message = f"groups name {_some(unknown)}, which are no usable cases"
    problem = Problem("warning", "DatasetError", message, "Correct the names if they were meant", file=source)
    return {case: group for case, group in found.items() if case in known}, [problem]


def read_folds(folder: Path) -> Folds | None:
    """The folds of splits_final.json, as (train, held-out) lists; None without the file."""
    path = folder / "splits_final.json"
    if not path.is_file():
        return None
    content = _load(path)
    try:
        return tuple((tuple(map(str, fold["train"])), tuple(map(str, fold["val"]))) for fold in content)
    except (TypeError, KeyError) as error:
        raise DatasetError("it is no list of {train: [cases], val: [cases]}", file=path, remedy="Correct or remove it") from error


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"it cannot be read as JSON ({error})", file=path, remedy="Correct the file") from error


def _wrong(path: Path, message: str) -> DatasetError:
    return DatasetError(message, file=path, remedy="Correct the file; docs/reference describes its keys")


def _channels(content: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    names = content.get("channel_names", content.get("modality"))
    if names is None:
        return None
    if isinstance(names, list):
        return tuple(map(str, names))
    try:
        numbers = sorted(names, key=int)
        if [int(n) for n in numbers] != list(range(len(numbers))) or not numbers:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise _wrong(path, f"its channel names are not numbered from 0: {names}") from error
    return tuple(str(names[n]) for n in numbers)


def _labels(content: dict[str, Any], path: Path) -> LabelSet | None:
    labels = content.get("labels")
    if not labels:
        return None
    if not isinstance(labels, dict):
        raise _wrong(path, "`labels` is no mapping of name to value")
    try:
        if all(isinstance(value, str) and not value.isdigit() for value in labels.values()):  # the Decathlon's value -> name
            labels = {name: int(value) for value, name in labels.items()}
        labels = {n: int(v) if isinstance(v, str | float) else v for n, v in labels.items()}
        return LabelSet.declared(labels, content.get("regions_class_order"))
    except LabelError as error:
        raise LabelError(error.message, file=path, remedy=error.remedy) from error
    except (TypeError, ValueError) as error:
        raise _wrong(path, f"`labels` has a value that is no integer ({error})") from error


def _intensity_kinds(content: dict[str, Any], channels: tuple[str, ...] | None, path: Path) -> dict[str, dict[str, str]]:
    given = content.get("intensity_kind", {})
    if not isinstance(given, dict) or not all(isinstance(row, dict) for row in given.values()):
        raise _wrong(path, "`intensity_kind` is no {case: {channel: kind}}")
    for case, row in given.items():
        for channel, kind in row.items():
            if kind not in KINDS:
                raise _wrong(path, f"`intensity_kind` of {case} is {kind!r}, none of {', '.join(KINDS)}")
            if channel not in (channels or (channel,)):
                raise _wrong(path, f"`intensity_kind` of {case} names channel {channel!r}, there are {', '.join(channels)}")
    return {case: dict(row) for case, row in given.items()}


def _label_groups(content: dict[str, Any], labels: LabelSet | None, path: Path) -> dict[str, tuple[str, ...]]:
    given = content.get("groups_of_labels", content.get("label_groups", {}))
    if not isinstance(given, dict) or not all(isinstance(members, list) for members in given.values()):
        raise _wrong(path, "`groups_of_labels` is no {name: [labels]}")
    for name, members in given.items():
        if labels is not None and (unknown := [m for m in members if m not in labels.names]):
            raise _wrong(path, f"`groups_of_labels` {name!r} holds {_some(unknown)}, there are {', '.join(labels.names[:12])}")
        if labels is not None and name in labels.names:
            raise _wrong(path, f"`groups_of_labels` {name!r} has the name of a label")
    return {name: tuple(members) for name, members in given.items()}


def _labels_present(content: dict[str, Any], labels: LabelSet | None, path: Path) -> dict[str, tuple[str, ...]]:
    given = content.get("labels_present", {})
    if not isinstance(given, dict) or not all(isinstance(row, list) for row in given.values()):
        raise _wrong(path, "`labels_present` is no {case: [labels]}")
    present = {str(case): tuple(dict.fromkeys(map(str, row))) for case, row in given.items()}
    if present and labels is None:
        raise LabelError("`labels_present` stands there without `labels`", file=path, remedy="Declare `labels` too")
    if present:
        _require_known_labels(present, labels, path)
    return present


def _require_known_labels(labels_present: Mapping[str, Sequence[str]], labels: LabelSet, file: Path) -> None:
    """Refuse what a case is said to annotate where no class or region has that name, or where it is nothing."""
    remedy = f"List the classes that somebody annotated in it, of {', '.join(labels.names[:12])}; background and ignore go without saying"
    for case, names in labels_present.items():
        if unknown := [name for name in names if name not in labels.names]:
            raise LabelError(f"`labels_present` names {_some(unknown)}, which are no labels", case=case, file=file, remedy=remedy)
        if not names:
            remedy += ". A case without any annotation teaches nothing: leave it out of the dataset"
            raise LabelError("`labels_present` says that nobody annotated anything in it", case=case, file=file, remedy=remedy)


def _groups_csv(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8-sig")
    first = text.splitlines()[0] if text.strip() else ""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=";" if ";" in first else ",") if row]
    case, group = 0, 1
    if rows and "case" in (head := [cell.lower() for cell in rows[0]]):
        case, group = head.index("case"), head.index("group") if "group" in head else 1
        rows = rows[1:]
    if short := [row for row in rows if len(row) <= max(case, group)]:
        raise DatasetError(f"the row {short[0]} has no case and group", file=path, remedy="Write two columns, case and group")
    return {row[case]: row[group] for row in rows}


def _groups_key(given: Any, path: Path) -> dict[str, str]:
    if given is None:
        return {}
    if isinstance(given, list):
        given = {str(number): members for number, members in enumerate(given)}
    if not isinstance(given, dict):
        raise _wrong(path, "`groups` is neither {case: group} nor {group: [cases]}")
    found: dict[str, str] = {}
    for key, value in given.items():
        found.update({str(case): str(key) for case in value} if isinstance(value, list) else {str(key): str(value)})
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
