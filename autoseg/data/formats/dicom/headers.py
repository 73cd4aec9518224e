"""What the headers of DICOM files say, one entry an image plane: by pydicom (extra `dicom`), or without it by SimpleITK.

pydicom stops before the pixels and reads the tags that are wanted; SimpleITK reads every file whole and knows no multi-frame file.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autoseg.data.names import OUTLINES, is_dicom, split_ending
from autoseg.parallel import map_cases, worker_count

INSTALL = "pip install 'autoseg3d[dicom]'"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_IMAGES = tuple(_STORAGE + part for part in ("9.", "11.", "34.", "66", "67", "68", "78.", "79.", "80.", "88.", "104.", "481.", "200."))
"""Beginnings of SOP classes that hold no image: waveforms, presentation states, registrations, reports, documents, plans."""

DISTINCTIONS = {
    "time point": ("TemporalPositionIdentifier", "0020|0100"),
    "echo time": ("EchoTime", "0018|0081"),
    "image type": ("ImageType", "0008|0008"),
    "b-value": ("DiffusionBValue", "0018|9087"),
    "inversion time": ("InversionTime", "0018|0082"),
    "acquisition": ("AcquisitionNumber", "0020|0012"),
    "trigger time": ("TriggerTime", "0018|1060"),
}
"""What may tell the images of one series apart, in the order of asking: name -> (keyword, tag as SimpleITK writes it)."""

_TYPE = list(DISTINCTIONS).index("image type")
_TAGS = {
    "patient": ("PatientID", "0010|0020"),
    "accession": ("AccessionNumber", "0008|0050"),
    "study": ("StudyInstanceUID", "0020|000d"),
    "series": ("SeriesInstanceUID", "0020|000e"),
    "instance": ("SOPInstanceUID", "0008|0018"),
    "kind": ("SOPClassUID", "0008|0016"),
    "number": ("SeriesNumber", "0020|0011"),
    "description": ("SeriesDescription", "0008|103e"),
    "modality": ("Modality", "0008|0060"),
}
_GEOMETRY = {
    "rows": ("Rows", "0028|0010"),
    "columns": ("Columns", "0028|0011"),
    "samples": ("SamplesPerPixel", "0028|0002"),
    "frames": ("NumberOfFrames", "0028|0008"),
    "spacing": ("PixelSpacing", "0028|0030"),
    "detector": ("ImagerPixelSpacing", "0018|1164"),
    "thickness": ("SliceThickness", "0018|0050"),
    "position": ("ImagePositionPatient", "0020|0032"),
    "orientation": ("ImageOrientationPatient", "0020|0037"),
    "order": ("InstanceNumber", "0020|0013"),
    "time": ("AcquisitionTime", "0008|0032"),
}
_ALL = _TAGS | _GEOMETRY | DISTINCTIONS
_CHUNK, _WORKER_GB = 500, 0.3


@dataclass(frozen=True, slots=True)
class Slice:
    """One image plane, and where it belongs; what the header leaves out is empty, None or 0.

    frame: which frame of a multi-frame file, or None.
    size: rows, columns. spacing: mm between rows and between columns.
    position, orientation: LPS mm and the two unit vectors along a row and down a column.
    samples: values a pixel; 3 is colour.
    distinctions: a value for each of `DISTINCTIONS`.
    order: what sorts images that nothing else tells apart.
    """

    path: Path
    frame: int | None
    patient: str
    accession: str
    study: str
    series: str
    instance: str
    number: int
    description: str
    modality: str
    size: tuple[int, int]
    spacing: tuple[float, float] | None
    thickness: float
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    samples: int
    distinctions: tuple[Any, ...]
    order: tuple[Any, ...]

    @property
    def is_localiser(self) -> bool:
        """Whether its type or its series' description says that it only shows where the others lie."""
        words = (*(str(part).lower() for part in self.distinctions[_TYPE] or ()), *self.description.lower().replace("_", " ").split())
        return any(word.startswith(("localizer", "localiser", "scout", "topogram", "scanogram", "surview", "survey")) for word in words)


@dataclass(frozen=True, slots=True)
class Annotation:
    """A DICOM file that outlines something in other series: a segmentation or an RT structure set."""

    path: Path
    patient: str
    study: str
    of_series: tuple[str, ...]


@dataclass(frozen=True)
class Headers:
    """What DICOM files hold.

    damaged: files that begin as DICOM and cannot be read.
    frames_unread: multi-frame files, where pydicom is not there to read them.
    """

    slices: tuple[Slice, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    damaged: tuple[Path, ...] = ()
    frames_unread: tuple[Path, ...] = ()


def has_pydicom() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pydicom") is not None


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files that lie in a folder itself, sorted."""
    return [path for path in sorted(folder.iterdir()) if _may_be_dicom(path) and is_dicom(path)]


def every_dicom_file(folder: Path) -> list[Path]:
    """The DICOM files anywhere under a folder, sorted, without DICOMDIR."""
    return [path for path in sorted(folder.rglob("*")) if _may_be_dicom(path) and is_dicom(path)]


def dicom_beneath(folder: Path) -> bool:
    """Whether a DICOM file lies anywhere under a folder; looking ends with the first."""
    return any(_may_be_dicom(path) and is_dicom(path) for path in folder.rglob("*"))


def _may_be_dicom(path: Path) -> bool:
    named = split_ending(path.name)[1] in ("", ".dcm") and not path.name.startswith(".") and path.name.upper() != "DICOMDIR"
    return named and path.is_file()


def read_headers(files: Sequence[Path], *, workers: int | None = 1) -> Headers:
    """The planes and annotations that DICOM files hold; files with neither, such as reports, are passed over.

    Args:
        workers: processes; None: as many as cores and memory allow, where there are enough files to be worth it.
    """
    if workers == 1 or len(files) < 4 * _CHUNK:
        return _together([_read_chunk(files)])
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    count = worker_count(len(chunks), _WORKER_GB, workers)
    found: dict[Path, Headers] = {}
    for outcome in map_cases(_read_chunk, chunks, workers=count, name=lambda chunk: chunk[0].name):
        if outcome.error is not None:
            raise outcome.error
        found[outcome.item[0]] = outcome.value
    return _together(found[chunk[0]] for chunk in chunks)


def _together(parts: Iterable[Headers]) -> Headers:
    parts = list(parts)
    return Headers(*(tuple(entry for part in parts for entry in getattr(part, field.name)) for field in fields(Headers)))


def _read_chunk(files: Sequence[Path]) -> Headers:
    look = _by_pydicom if has_pydicom() else _by_simpleitk
    slices, annotations, damaged, frames = [], [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that don't keep to the standard; those that matter are judged here
        for path in files:
            found = look(path)
            if found is None:
                damaged.append(path)
            elif found == _FRAMES:
                frames.append(path)
            else:
                for entry in found:
                    (annotations if isinstance(entry, Annotation) else slices).append(entry)
    return Headers(tuple(slices), tuple(annotations), tuple(damaged), tuple(frames))


_FRAMES = "frames"
_Found = list[Slice | Annotation] | str | None
"""What a file holds; `_FRAMES` if that takes pydicom, None if it is damaged."""


def _by_pydicom(path: Path) -> _Found:
    import pydicom
    from pydicom.errors import InvalidDicomError

    wanted = [keyword for keyword, _ in _ALL.values()]
    frames = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*wanted, *frames])
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, NotImplementedError):
        return None
    values = {name: header.get(keyword) for name, (keyword, _) in _ALL.items()}
    if _text(values["kind"]) in OUTLINES:
        return [Annotation(path, _text(values["patient"]), _text(values["study"]), _referenced_series(path))]
    if not values["rows"] or not values["columns"]:
        return _no_image(path)
    count = _whole(values["frames"])
    if count <= 1 and "PerFrameFunctionalGroupsSequence" not in header:
        return [_slice(path, None, values)]
    return [_slice(path, frame, own) for frame, own in enumerate(_frames(header, values, max(count, 1)))]


def _referenced_series(path: Path) -> tuple[str, ...]:
    """The series that a segmentation or structure set is about."""
    import pydicom

    header = pydicom.dcmread(
        path, stop_before_pixels=True, specific_tags=["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]
    )
    found = [item.get("SeriesInstanceUID") for item in header.get("ReferencedSeriesSequence") or ()]
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            found += [item.get("SeriesInstanceUID") for item in study.get("RTReferencedSeriesSequence") or ()]
    return tuple(dict.fromkeys(str(uid) for uid in found if uid))


def _frames(header: Any, values: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """The values of each frame: of its own functional groups, else of the shared ones, else of the file."""
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), {})
    each = list(header.get("PerFrameFunctionalGroupsSequence") or ())

    def group(frame: Any, *sequences: str) -> Any:
        for sequence in sequences:
            for place in (frame, shared):
                if place and (item := place.get(sequence)):
                    return item[0]
        return {}

    for number in range(count):
        frame = each[number] if number < len(each) else {}
        measures, content = group(frame, "PixelMeasuresSequence"), group(frame, "FrameContentSequence")
        kind = group(frame, "MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
        own = {
            "spacing": measures.get("PixelSpacing"),
            "thickness": measures.get("SliceThickness"),
            "position": group(frame, "PlanePositionSequence").get("ImagePositionPatient"),
            "orientation": group(frame, "PlaneOrientationSequence").get("ImageOrientationPatient"),
            "time point": content.get("TemporalPositionIndex"),
            "acquisition": content.get("FrameAcquisitionNumber"),
            "trigger time": group(frame, "CardiacSynchronizationSequence").get("NominalCardiacTriggerDelayTime"),
            "echo time": group(frame, "MREchoSequence").get("EffectiveEchoTime"),
            "b-value": group(frame, "MRDiffusionSequence").get("DiffusionBValue"),
            "image type": kind.get("FrameType"),
            "order": number,
            "time": content.get("FrameAcquisitionDateTime"),
        }
        yield values | {name: value for name, value in own.items() if value is not None}


def _by_simpleitk(path: Path) -> _Found:
    """As `_by_pydicom`, for files of one frame."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return _no_image(path)
    there = set(reader.GetMetaDataKeys())
    values: dict[str, Any] = {name: reader.GetMetaData(tag).strip() if tag in there else None for name, (_, tag) in _ALL.items()}
    if _text(values["kind"]) in OUTLINES:
        return [Annotation(path, _text(values["patient"]), _text(values["study"]), ())]
    if _whole(values["frames"]) > 1 or (len(reader.GetSize()) > 2 and reader.GetSize()[2] > 1):
        return _FRAMES
    for name in ("spacing", "detector", "position", "orientation", "image type"):
        values[name] = values[name].split("\\") if values[name] else None
    return [_slice(path, None, values)]


def _no_image(path: Path) -> _Found:
    """Nothing, of a file that is of a class without image; None, which is damaged, of any other."""
    with path.open("rb") as handle:
        head = handle.read(1024)
    at = head.find(b"\x02\x00\x02\x00UI")
    kind = head[at + 8 : at + 8 + int.from_bytes(head[at + 6 : at + 8], "little")].decode("ascii", "replace") if at >= 0 else ""
    return [] if kind.startswith(_NO_IMAGES) else None


def _slice(path: Path, frame: int | None, values: dict[str, Any]) -> Slice:
    spacing = _numbers(values["spacing"], 2) or _numbers(values["detector"], 2)
    kind = values["image type"]
    kind = tuple(str(part).upper() for part in ([kind] if isinstance(kind, str) else kind or ()))
    told = {name: _number(values[name]) for name in DISTINCTIONS if name != "image type"} | {"image type": kind or None}
    return Slice(
        path,
        frame,
        *(_text(values[name]) for name in ("patient", "accession", "study", "series", "instance")),
        _whole(values["number"]),
        _text(values["description"]),
        _text(values["modality"]),
        (_whole(values["rows"]), _whole(values["columns"])),
        spacing,
        _number(values["thickness"]) or 0.0,
        _numbers(values["position"], 3),
        _numbers(values["orientation"], 6),
        _whole(values["samples"]) or 1,
        tuple(told[name] for name in DISTINCTIONS),
        (told["acquisition"] or 0, _text(values["time"]), told["trigger time"] or 0, _whole(values["order"]), frame or 0, path.name),
    )


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).replace("\0", "").split())


def _number(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int:
    number = _number(value)
    return 0 if number is None else int(number)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` numbers, or None."""
    try:
        numbers = tuple(float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count else None
