"""DICOM files to voxels: one image, its slices placed by their positions, never by file name or slice thickness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.case import SeriesChoice
from autoseg.data.formats.dicom.headers import INSTALL, Headers, Slice, dicom_files, every_dicom_file, read_headers
from autoseg.data.formats.dicom.series import DicomImage, chosen, image_of, images_of, steps_of
from autoseg.data.formats.itk import reason
from autoseg.data.formats.pixels import Pixels
from autoseg.data.formats.placing import place
from autoseg.errors import AutosegError, DatasetError, GridError, IntensityError, UnreadableFileError

_PHYSICAL = ("CT", "PT")  # modalities whose rescaled values are a physical quantity, however they are to be shown
_BITS, _SIGNED, _SHOWN, _SLOPE, _SHIFT = "0028|0101", "0028|0103", "0028|0004", "0028|1053", "0028|1052"


def read_series(folder: Path, choice: SeriesChoice) -> Pixels:
    """The DICOM image in a folder, or beneath it if no DICOM file lies in it directly.

    Raises:
        UnreadableFileError: no image is in it, or one that cannot be read.
        DatasetError: several images, and the choice does not leave one.
        GridError: missing or doubled slices, slices of different direction or beside each other.
    """
    if choice.planes:
        return read_files(list(dict.fromkeys(path for path, _ in choice.planes)), folder, choice)
    files = dicom_files(folder)
    headers = read_headers(files)
    if not (headers.slices or headers.damaged or headers.frames_unread):  # reports lie above the series that they are about
        files = every_dicom_file(folder)
        headers = read_headers(files)
    if not files:
        raise UnreadableFileError("no DICOM file lies in the folder", file=folder, remedy="Give a folder with one series of slices")
    return _meant(headers, len(files), folder, choice)


def read_files(files: Sequence[Path], named: Path, choice: SeriesChoice) -> Pixels:
    """The image that DICOM files make up; see `read_series`."""
    return _meant(read_headers(files), len(files), named, choice)


def _meant(headers: Headers, count: int, named: Path, choice: SeriesChoice) -> Pixels:
    """The image that is meant among those of `count` files."""
    if headers.damaged:
        raise UnreadableFileError(
            f"{len(headers.damaged)} of its {count} files cannot be read as DICOM" if count > 1 else "it is damaged",
            file=headers.damaged[0] if count == 1 else named,
            remedy="Copy or export the series again",
        )
    if headers.frames_unread:
        what = "it is a multi-frame DICOM file" if count == 1 else "a multi-frame DICOM file is in it"
        raise UnreadableFileError(f"{what}, which needs pydicom", file=named, remedy=f"Run {INSTALL}")
    if not headers.slices:
        raise UnreadableFileError("none of its DICOM files holds an image", file=named, remedy="Give a folder with one series of slices")
    if not choice.planes:
        return read_image(chosen(images_of(headers.slices), choice.pattern, named=named), named)
    wanted = set(choice.planes)
    planes = [plane for plane in headers.slices if (plane.path, plane.frame) in wanted]
    if len(planes) < len(wanted):
        raise DatasetError("some of its files have gone since the series was chosen", file=named, remedy="Run the command again")
    return read_image(image_of(planes), named)


def read_image(image: DicomImage, named: Path) -> Pixels:
    """The voxels of planes that belong together."""
    planes, values, doubts = _values(image)
    if len(planes) < len(image.slices):
        image = replace(image, slices=tuple(planes))
    steps, origin = steps_of(image, named=named)
    if image.copies:
        doubts.append(
            DatasetError(f"{image.copies} of its files are copies of others and left out", file=named, remedy="Nothing need be done")
        )
    grid, sheared = place(steps, origin, values.shape[1:], planar=not image.placed, file=named)
    return Pixels(values, grid, (*doubts, *sheared), placed=image.placed)


def _values(image: DicomImage) -> tuple[list[Slice], np.ndarray, list[AutosegError]]:
    """The planes that are left, their values (channel, z, y, x), and doubts; a plane that repeats another at its position is left out."""
    kept: list[Slice] = []
    values = np.empty(0, np.float32)
    repeated, turned = 0, False
    opened: dict[Path, Any] = {}
    for plane in image.slices:
        found, turn = _one_frame(plane, opened) if plane.frame is not None else _one_file(plane)
        turned |= turn
        if not kept:
            values = np.empty((len(found), len(image.slices), *plane.size), np.float32)
        elif plane.position is not None and plane.position == kept[-1].position and np.array_equal(found, values[:, len(kept) - 1]):
            repeated += 1
            continue
        values[:, len(kept)] = found
        kept.append(plane)
    doubts: list[AutosegError] = []
    if repeated:
        message = f"{repeated} of its slices are repeated, at the same position with the same values, and left out"
        doubts.append(GridError(message, file=image.first.path.parent, remedy="Nothing need be done"))
    if turned:
        message = "its pixels are stored with low values bright (MONOCHROME1); they were turned over, so that high values are bright"
        doubts.append(IntensityError(message, file=image.first.path.parent, remedy="Nothing need be done"))
    return kept, values[:, : len(kept)], doubts


def _one_file(plane: Slice) -> tuple[np.ndarray, bool]:
    """Float32 (channel, y, x) of a file of one frame, with its own rescale slope and intercept, and whether it was turned over."""
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(plane.path), imageIO="GDCMImageIO")
    except RuntimeError as error:
        message = f"its pixels cannot be read ({reason(error, plane.path)})"
        raise UnreadableFileError(message, file=plane.path, remedy="Export the series again, uncompressed") from error
    values = np.asarray(sitk.GetArrayFromImage(image), np.float32).reshape(*plane.size, -1)
    turned = False
    tags = {tag: image.GetMetaData(tag).strip() for tag in (_BITS, _SIGNED, _SHOWN, _SLOPE, _SHIFT) if image.HasMetaDataKey(tag)}
    if tags.get(_SHOWN) == "MONOCHROME1" and not (turned := _is_turned("MONOCHROME1", plane)):  # GDCM has turned them over
        values = _turned(values, int(tags[_BITS]), tags.get(_SIGNED) == "1", float(tags.get(_SLOPE, 1)), float(tags.get(_SHIFT, 0)))
    return np.moveaxis(values, -1, 0), turned


def _is_turned(shown: str | None, plane: Slice) -> bool:
    """Whether low values are bright. Those of CT and PET are a quantity, which no way of showing them changes."""
    return shown == "MONOCHROME1" and plane.modality not in _PHYSICAL


def _turned(values: np.ndarray, bits: int, signed: bool, slope: float, shift: float) -> np.ndarray:
    """Rescaled values with the stored ones turned over in their range: low + high - stored, then rescaled."""
    ends = -1 if signed else 2**bits - 1
    return np.float32(slope * ends + 2 * shift) - values


def _one_frame(plane: Slice, opened: dict[Path, Any]) -> tuple[np.ndarray, bool]:
    """Float32 (channel, y, x) of one frame, with the frame's own rescale slope and intercept; its file is kept open in `opened`."""
    import pydicom

    if plane.path not in opened:
        opened.clear()
        file = pydicom.dcmread(plane.path)
        opened[plane.path] = file, _stored(file, plane.path)
    file, stored = opened[plane.path]
    slope, shift = _rescale(file, plane.frame)
    values = np.asarray(stored[plane.frame], np.float64).reshape(*plane.size, -1) * slope + shift
    turned = _is_turned(file.get("PhotometricInterpretation"), plane)
    if turned:
        values = _turned(values, int(file.BitsStored), int(file.PixelRepresentation) == 1, slope, shift)
    return np.moveaxis(values.astype(np.float32), -1, 0), turned


def _stored(file: Any, path: Path) -> np.ndarray:
    """Every frame of a file as stored, (frame, y, x) or with samples last."""
    try:
        values = file.pixel_array
    except Exception as error:  # whatever a decoder raises
        syntax = getattr(getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", None), "name", "an unknown form")
        raise UnreadableFileError(
            f"its pixels, stored as {syntax}, cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            file=path,
            remedy="Run pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export it uncompressed",
        ) from error
    return values if int(file.get("NumberOfFrames", 1) or 1) > 1 else values[None]


def _rescale(file: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame: its own, else shared, else the file's, else none."""
    groups = [*(file.get("PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1], *(file.get("SharedFunctionalGroupsSequence") or ())]
    for group in groups:
        for item in group.get("PixelValueTransformationSequence") or ():
            return float(item.RescaleSlope), float(item.RescaleIntercept)
    return float(file.get("RescaleSlope", 1) or 1), float(file.get("RescaleIntercept", 0) or 0)
