"""NRRD, MetaImage and GIPL in and out through SimpleITK; pictures out, and in where Pillow would lose bits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from autoseg.data.formats.pixels import Pixels
from autoseg.data.formats.placing import place
from autoseg.data.names import PICTURE_ENDINGS, split_ending
from autoseg.errors import GridError, ResourceError, UnreadableFileError
from autoseg.geometry import Grid

_SPACING_LINE = re.compile(rb"^(?:ElementSpacing|spacings)[ \t]*[:=](.*)$", re.MULTILINE | re.IGNORECASE)
_NOT_POSITIVE = re.compile(rb"(?<!\S)(?:-[\d.]|[0.]+(?!\S))")


def read_itk(path: Path) -> Pixels:
    """A file of any format that SimpleITK knows; a fourth axis or the components of a voxel are channels.

    Raises:
        UnreadableFileError: an unknown format, truncated or damaged, complex values.
        GridError: a geometry that cannot be right.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    if not reader.GetImageIOFromFileName(str(path)):
        raise UnreadableFileError("it is of no image format that is known", file=path, remedy="Convert it to NIfTI, NRRD or MetaImage")
    _require_sound(path)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _require_supported(reader, path)
        image = reader.Execute()
    except RuntimeError as error:
        message = f"it cannot be read ({reason(error, path)})"
        if "spacing" in message:
            raise GridError(message, file=path, remedy="Correct the header") from error
        raise UnreadableFileError(message, file=path, remedy="Copy it again, or export it as NIfTI or NRRD") from error
    values = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(values, -1, 0)
    dimension = image.GetDimension()
    if dimension < 4 and image.GetNumberOfComponentsPerPixel() == 1:
        values = values[None]
    if dimension == 2:
        values = values[:, None]
    spacing, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    space = min(dimension, 3)
    picture = split_ending(path.name)[1] in PICTURE_ENDINGS
    if not picture:  # a picture's dots per inch are no anatomy; its spacing is 1
        spacing[:space], origin[:space] = image.GetSpacing()[:space], image.GetOrigin()[:space]
    direction[:space, :space] = np.array(image.GetDirection()).reshape(dimension, dimension)[:space, :space]
    grid, doubts = place(direction * spacing, origin, values.shape[1:], planar=dimension == 2, file=path)
    return Pixels(values, grid, doubts, placed=not picture, alpha=picture and len(values) == 4)


def _require_sound(path: Path) -> None:
    """What SimpleITK would read without a word: a negative spacing."""
    with path.open("rb") as handle:
        head = handle.read(4096)
    for values in _SPACING_LINE.findall(head) if b"\0" not in head[:8] else ():
        if _NOT_POSITIVE.search(values):
            raise GridError(f"its spacing (x, y, z) is{values.decode('ascii', 'replace').rstrip()}", file=path, remedy="Correct the header")


def _require_supported(reader, path: Path) -> None:
    import SimpleITK as sitk

    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "complex" in name or "label map" in name or not 2 <= reader.GetDimension() <= 4:
        problem = f"its voxels are {name} in {reader.GetDimension()} dimensions"
    elif reader.GetDimension() == 4 and reader.GetNumberOfComponents() > 1:
        problem = "it has both a fourth axis and several components a voxel"
    else:
        return
    raise UnreadableFileError(problem, file=path, remedy="Convert it to NIfTI, NRRD or MetaImage")


def reason(error: RuntimeError, path: Path) -> str:
    """The last line of what ITK says, without the folder."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].replace(str(path), path.name).replace(str(path.parent), "").rstrip(".") if lines else "no reason given"


def write_itk(path: Path, values: np.ndarray, grid: Grid) -> None:
    """A file of (z, y, x) or (channel, z, y, x) values, channels as components, two-dimensional where the grid is planar.

    Raises:
        ResourceError: it could not be written.
    """
    import SimpleITK as sitk

    several = values.ndim == 4
    array = np.moveaxis(values, 0, -1) if several else values
    image = sitk.GetImageFromArray(array[0] if grid.planar else array, isVector=several)
    dimension = 2 if grid.planar else 3
    direction = np.array(grid.direction).reshape(3, 3)[:dimension, :dimension]
    image.SetSpacing(grid.spacing[::-1][:dimension])
    image.SetOrigin(grid.origin[:dimension])
    if abs(np.linalg.det(direction)) > 1e-3:  # a plane seen from its edge has no two-dimensional direction
        image.SetDirection(direction.reshape(-1).tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        message = f"it could not be written ({reason(error, path)})"
        raise ResourceError(message, file=path, remedy="Free disk space, or write .nii.gz") from error
