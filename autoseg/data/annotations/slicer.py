"""3D Slicer's .seg.nrrd: segments named in the header, in a volume that is cropped to what they cover, one layer over the other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from scipy.ndimage import find_objects

from autoseg.data.annotations.segments import Canvas, Segments, tidy
from autoseg.data.formats.itk import read_itk
from autoseg.data.names import SLICER_ENDINGS, split_ending
from autoseg.errors import LabelError, UnreadableFileError

_KEY = re.compile(rb"^Segment(\d+)_(\w+):=(.*)$", re.MULTILINE)
_MOST_HEADER = 1 << 24


@dataclass(frozen=True)
class _Segment:
    name: str
    layer: int
    value: int


def is_slicer(path: Path) -> bool:
    """Whether a file holds named segments as 3D Slicer saves them, by its name, or an .nrrd by its header."""
    ending = split_ending(path.name)[1]
    if ending in SLICER_ENDINGS:
        return True
    return ending in (".nrrd", ".nhdr") and path.is_file() and _KEY.search(_header(path)) is not None


def read_slicer(path: Path) -> Segments:
    """The segments on the file's own grid, which is cropped to them.

    Raises:
        UnreadableFileError, GridError: as for images.
        LabelError: no segments in its header, or one in a layer that is not there.
    """
    pixels = read_itk(path)
    segments = _segments(path, layers=len(pixels.values))
    if pixels.values.dtype.kind not in "iu":
        raise LabelError(f"its voxels are {pixels.values.dtype}, no integers", file=path, remedy="Save it as a binary segmentation")
    canvas, boxes = Canvas(pixels.grid), [find_objects(layer) for layer in pixels.values]
    for segment in segments:
        if segment.layer >= len(pixels.values):
            raise LabelError(
                f"segment {segment.name!r} is in layer {segment.layer}, the file has {len(pixels.values)}",
                file=path,
                remedy="Save it from 3D Slicer again",
            )
        found = boxes[segment.layer]
        if 0 < segment.value <= len(found) and (box := found[segment.value - 1]) is not None:
            canvas.add(segment.name, pixels.values[segment.layer][box] == segment.value, box)
    return canvas.finished(pixels.doubts)


def _segments(path: Path, *, layers: int) -> list[_Segment]:
    """What the header says; before Slicer 4.11 each segment was a layer of its own, with the value 1."""
    fields: dict[int, dict[str, str]] = {}
    for number, key, value in _KEY.findall(_header(path)):
        fields.setdefault(int(number), {})[key.decode()] = value.decode("utf-8", "replace").strip()
    if not fields:
        raise LabelError("its header names no segments", file=path, remedy="Save it from 3D Slicer as a segmentation (.seg.nrrd)")
    own_layers = layers > 1 and not any("Layer" in found for found in fields.values())
    try:
        return [
            _Segment(
                tidy(found.get("Name") or found.get("ID"), number + 1),
                int(found.get("Layer", number if own_layers else 0)),
                int(found.get("LabelValue", 1)),
            )
            for number, found in sorted(fields.items())
        ]
    except ValueError as error:
        raise UnreadableFileError(f"its header is damaged ({error})", file=path, remedy="Save it from 3D Slicer again") from error


def _header(path: Path) -> bytes:
    """The text before the voxels, which ends with an empty line (a detached header is nothing else)."""
    with path.open("rb") as handle:
        text = b""
        while len(text) < _MOST_HEADER and (more := handle.read(1 << 16)):
            if not text and not more.startswith(b"NRRD"):
                return b""
            text += more
            text = text if b"\r" not in text else text.replace(b"\r\n", b"\n")
            if (end := text.find(b"\n\n")) >= 0:
                return text[: end + 1]
    return text
