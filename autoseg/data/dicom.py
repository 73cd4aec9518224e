"""DICOM series to voxels: one series, slices placed by their positions, never by file name or slice thickness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.data.itk import reason
from autoseg.data.names import is_dicom, visible
from autoseg.data.pixels import Pixels
from autoseg.data.placing import NEAR_VOXELS, place
from autoseg.errors import DatasetError, GridError, UnreadableFileError

_SERIES_UID = "0020|000e"


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    size: tuple[int, ...]
    spacing: np.ndarray  # x, y, z
    origin: np.ndarray  # LPS
    direction: np.ndarray  # 3 x 3, columns x, y, normal


def read_series(folder: Path) -> Pixels:
    """The one image series in a folder.

    Raises:
        UnreadableFileError: no image is in it, or one that cannot be read.
        DatasetError: several series.
        GridError: missing or doubled slices, slices of different size or direction, a tilted gantry.
    """
    files = [p for p in visible(folder) if p.is_file() and is_dicom(p)]
    if not files:
        raise UnreadableFileError("no DICOM file lies in the folder", file=folder, remedy="Give a folder with one series of slices")
    return read_slices(files, folder)


def read_slices(files: Sequence[Path], place_named: Path) -> Pixels:
    """The volume that DICOM slices make up; see `read_series`."""
    slices = [found for path in files if (found := _look(path)) is not None]
    if not slices:
        raise UnreadableFileError(
            "none of its DICOM files holds an image", file=place_named, remedy="Give a folder with one series of slices"
        )
    series = sorted({s.series for s in slices})
    if len(series) > 1:
        counts = ", ".join(f"{sum(s.series == uid for s in slices)} files" for uid in series)
        raise DatasetError(
            f"{len(series)} DICOM series lie together ({counts})", file=place_named, remedy="Put each series into a folder of its own"
        )
    slices = _in_order(slices, place_named)
    values = np.stack([_values(s) for s in slices])[None]
    first = slices[0]
    if len(slices) > 1:
        step = (slices[-1].origin - first.origin) / (len(slices) - 1)
    else:
        step = first.direction[:, 2] * first.spacing[2]
    steps = np.column_stack([first.direction[:, 0] * first.spacing[0], first.direction[:, 1] * first.spacing[1], step])
    grid, doubts = place(steps, first.origin, values.shape[1:], file=place_named)
    return Pixels(values, grid, doubts)


def _look(path: Path) -> _Slice | None:
    """The header of one file; None if it holds no image, as reports and plans do."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    size = reader.GetSize()
    if len(size) > 2 and size[2] > 1:
        raise UnreadableFileError("it is a multi-frame DICOM file", file=path, remedy="Convert it to NIfTI, for example with dcm2niix")
    if reader.GetNumberOfComponents() > 1:
        raise UnreadableFileError("it is a colour image", file=path, remedy="Leave it out, or convert it to single channels")
    uid = reader.GetMetaData(_SERIES_UID).strip() if reader.HasMetaDataKey(_SERIES_UID) else ""
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    return _Slice(path, uid, size[:2], np.array(reader.GetSpacing()), np.array(reader.GetOrigin()), direction)


def _in_order(slices: list[_Slice], named: Path) -> list[_Slice]:
    """Sorted along the normal; evenly spaced, of one size and direction, or GridError."""
    first = slices[0]
    for other in slices[1:]:
        same = other.size == first.size and np.allclose(other.spacing[:2], first.spacing[:2], rtol=1e-3)
        if not (same and np.allclose(other.direction, first.direction, atol=1e-3)):
            raise GridError(
                f"its slices differ in size, spacing or direction ({first.path.name} and {other.path.name})",
                file=named,
                remedy="Leave out the slices that do not belong to the volume",
            )
    if len(slices) == 1:
        return slices
    heights = {id(s): float(s.origin @ first.direction[:, 2]) for s in slices}
    ordered = sorted(slices, key=lambda s: heights[id(s)])
    steps = np.diff([heights[id(s)] for s in ordered])
    usual = float(np.median(steps))
    if (steps <= 1e-3).any():
        raise GridError(
            f"{int((steps <= 1e-3).sum())} of its {len(slices)} slices lie at the position of another",
            file=named,
            remedy="Leave out doubled slices; put each time point into a folder of its own",
        )
    if (wide := np.abs(steps - usual) > NEAR_VOXELS * usual).any():
        at = int(np.argmax(wide))
        raise GridError(
            f"its slices are not evenly spaced: usually {usual:.4g} mm apart, {steps[at]:.4g} mm after slice {at + 1} of {len(slices)}"
            f" ({int(wide.sum())} such steps)",
            file=named,
            remedy="Add the missing slices, or leave the series out",
        )
    return ordered


def _values(found: _Slice) -> np.ndarray:
    """One slice, float32 (y, x), with its own rescale slope and intercept."""
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(found.path), sitk.sitkFloat32, "GDCMImageIO")
    except RuntimeError as error:
        message = f"its pixels cannot be read ({reason(error, found.path)})"
        raise UnreadableFileError(message, file=found.path, remedy="Export the series again, uncompressed") from error
    return sitk.GetArrayFromImage(image).reshape(found.size[::-1])
