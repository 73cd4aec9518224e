"""Which reader a file is for."""

from __future__ import annotations

from pathlib import Path

from autoseg.data.names import is_dicom, split_ending
from autoseg.data.pixels import Pixels
from autoseg.errors import UnreadableFileError


def read_pixels(path: Path) -> Pixels:
    """The content of an image file or a DICOM series folder.

    Raises:
        UnreadableFileError: not there, no permission, empty, truncated, damaged, or of an unknown format.
        GridError: a geometry that cannot be right.
        DatasetError: a folder of several DICOM series.
    """
    if path.is_dir():
        from autoseg.data.dicom import read_series

        return read_series(path)
    require_content(path)
    ending = split_ending(path.name)[1]
    if ending in (".nii", ".nii.gz"):
        from autoseg.data.nifti import read_nifti

        return read_nifti(path)
    if ending == ".dcm" or is_dicom(path):
        from autoseg.data.dicom import read_slices

        return read_slices([path], path)
    from autoseg.data.itk import read_itk

    return read_itk(path)


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
