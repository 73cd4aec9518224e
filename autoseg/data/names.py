"""What file names say: endings of images, `_0000` channel suffixes, suffixes of label maps, DICOM folders."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

PICTURE_ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
TIFF_ENDINGS = (".tif", ".tiff")
SLICER_ENDINGS = (".seg.nrrd", ".seg.nhdr")  # of segments as 3D Slicer saves them
IMAGE_ENDINGS = (*SLICER_ENDINGS, ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".dcm", *PICTURE_ENDINGS)
OUTLINES = {  # SOP classes of DICOM files that outline what other files show
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}
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


def outline_kind(path: Path) -> str | None:
    """`SEG` or `RTSTRUCT` if a file is one, as its first bytes say; else None."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1024)
    except OSError:
        return None
    place = head.find(b"\x02\x00\x02\x00UI", 132) if head[128:132] == b"DICM" else -1  # (0002,0002), always explicit little endian
    if place < 0:
        return None
    length = int.from_bytes(head[place + 6 : place + 8], "little")
    return OUTLINES.get(head[place + 8 : place + 8 + length].rstrip(b"\0 ").decode("ascii", "replace"))


def outlines_in(folder: Path) -> dict[Path, str]:
    """The DICOM-SEG and RTSTRUCT files that lie in a folder, each with its kind."""
    files = (p for p in visible(folder) if p.is_file() and split_ending(p.name)[1] in ("", ".dcm"))
    return {path: kind for path in files if (kind := outline_kind(path))}


def only_outlines(folder: Path) -> bool:
    """Whether DICOM files lie in a folder and all of them are DICOM-SEG or RTSTRUCT; looking ends with the first that is neither."""
    files = [p for p in visible(folder) if p.is_file() and split_ending(p.name)[1] in ("", ".dcm")]
    kinds = (outline_kind(p) for p in files if is_dicom(p))
    first = next(kinds, None)
    return first is not None and all(kinds)


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
