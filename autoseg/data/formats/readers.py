"""Which reader a file is for."""

from __future__ import annotations

from pathlib import Path

from autoseg.data.case import SeriesChoice
from autoseg.data.formats.pixels import Pixels
from autoseg.data.names import PICTURE_ENDINGS, TIFF_ENDINGS, is_dicom, split_ending
from autoseg.errors import AutosegError, UnreadableFileError


def read_pixels(path: Path, series: SeriesChoice | None = None, *, labels: bool = False) -> Pixels:
    """The content of an image file, or of a folder with a DICOM series.

    Args:
        series: which of the DICOM images in a folder is meant, where it holds several.
        labels: it is to be a label map: a palette's indices are its values.

    Raises:
        UnreadableFileError: not there, no permission, empty, truncated, damaged, or of an unknown format.
        GridError: a geometry that cannot be right.
        DatasetError: a folder of several DICOM images, and no choice that leaves one.
    """
    if path.is_dir():
        from autoseg.data.formats.dicom.voxels import read_series

        return read_series(path, series or SeriesChoice())
    require_content(path)
    ending = split_ending(path.name)[1]
    if ending in (".nii", ".nii.gz"):
        from autoseg.data.formats.nifti import read_nifti

        return read_nifti(path)
    if ending == ".dcm" or is_dicom(path):
        from autoseg.data.formats.dicom.voxels import read_files

        return read_files([path], path, series or SeriesChoice())
    if ending in TIFF_ENDINGS:
        from autoseg.data.formats.tiff import read_tiff

        return read_tiff(path)
    if ending in PICTURE_ENDINGS:
        from autoseg.data.formats.pictures import read_picture

        return read_picture(path, labels=labels)
    from autoseg.data.formats.itk import read_itk

    return read_itk(path)


def channels_in(path: Path) -> int:
    """How many channels an image file holds, transparency not counted; 1 where it cannot be read, which the reader will name."""
    try:
        pixels = read_pixels(path)
    except AutosegError:
        return 1
    return len(pixels.values) - pixels.alpha


def require_content(path: Path) -> None:
    """Raises UnreadableFileError, with the cause, unless `path` is a file that can be opened and holds something."""
    try:
        with path.open("rb") as handle:
            first = handle.read(1)
    except FileNotFoundError as error:
        raise UnreadableFileError("there is no such file", file=path, remedy="Correct the name, or restore the file") from error
    except PermissionError as error:
        raise UnreadableFileError("no permission to read it", file=path, remedy="Give yourself the right to read it") from error
    except OSError as error:
        message = f"it cannot be read ({error.strerror})"
        raise UnreadableFileError(message, file=path, remedy="Check the disk, copy the file again") from error
    if not first:
        raise UnreadableFileError("the file is empty (0 bytes)", file=path, remedy="Copy or export it again")
