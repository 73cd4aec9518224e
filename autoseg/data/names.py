"""What file names say: endings of images, `_0000` channel suffixes, suffixes of label maps, DICOM folders."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

PICTURE_ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".dcm", *PICTURE_ENDINGS)
LABEL_STEMS = ("segmentation", "seg", "labels", "label", "mask")  # of a label map in a case's own folder

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_LABEL_SUFFIX = re.compile(r"(.+?)[._-](?:seg|segmentation|mask|label|labels|gt)", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """An image file or a DICOM series folder, and its name without ending."""

    path: Path
    stem: str


def split_ending(name: str) -> tuple[str, str]:
    """A file name as (stem, image ending in lower case); the ending is empty if it is none of IMAGE_ENDINGS."""
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], ending
    return name, ""


def split_channel(stem: str) -> tuple[str, int] | None:
    """`case_0001` as (case, 1); None without such a suffix."""
    match = _CHANNEL.fullmatch(stem)
    return (match[1], int(match[2])) if match else None


def without_label_suffix(stem: str) -> str:
    """`case_seg`, `case-mask`, `case.label` as `case`; other stems as they are."""
    match = _LABEL_SUFFIX.fullmatch(stem)
    return match[1] if match else stem


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted, without hidden files."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def entries(folder: Path) -> list[Entry]:
    """The image files and DICOM series folders that lie in `folder`, sorted."""
    found = []
    for path in visible(folder):
        stem, ending = split_ending(path.name)
        if path.is_dir():
            if is_series(path):
                found.append(Entry(path, path.name))
        elif ending:
            found.append(Entry(path, stem))
    return found


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files directly; the first few files that could be are looked into."""
    candidates = (p for p in visible(folder) if p.is_file() and split_ending(p.name)[1] in ("", ".dcm"))
    return any(is_dicom(p) for p in itertools.islice(candidates, 5))


def listing(folder: Path, most: int = 10) -> str:
    """What lies in a folder, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = [p.name + ("/" if p.is_dir() else "") for p in visible(folder)]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more
