"""Results to files: on the grid that the image came with, in the format that the path's ending names, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.data.case import LabelMap, Volume
from autoseg.data.labels import smallest_unsigned
from autoseg.data.names import PICTURE_ENDINGS, TIFF_ENDINGS, split_ending
from autoseg.data.shearing import sheared_image, sheared_labels
from autoseg.errors import DatasetError
from autoseg.files import appears_whole, write_text
from autoseg.geometry import Grid, Orientation

LOSSY_ENDINGS = (".jpg", ".jpeg")


def on_stored_grid(array: np.ndarray, orientation: Orientation, stored: Grid) -> np.ndarray:
    """An array in the orientation as read, brought back to the file's own axes: to its slices as they lie, where they are sheared.

    Args:
        array: (z, y, x) labels, or (channel, z, y, x) of anything else, which is interpolated linearly where slices are sheared.
        orientation: `Case.orientation`, what was applied to the stored array.
        stored: `Case.stored`, the file's own grid.
    """
    upright = orientation.inverse().apply(array)
    if stored.sheared:
        upright = sheared_labels(upright, stored) if array.ndim == 3 else sheared_image(upright, stored)
    return np.ascontiguousarray(upright)


def write_labels(path: Path, label_map: LabelMap) -> None:
    """A label map, in the smallest unsigned type; a planar one becomes a two-dimensional file; TIFF's spacing goes to a .json beside it.

    Raises:
        DatasetError: a format that cannot hold it (JPEG alters labels, pictures have no third axis).
        ResourceError: the disk is full.
    """
    if split_ending(path.name)[1] in LOSSY_ENDINGS:
        raise DatasetError("JPEG alters labels", file=path, remedy="Write .png or .nii.gz")
    voxels = label_map.voxels
    _write(path, voxels.astype(smallest_unsigned(int(voxels.max(initial=0))), copy=False), label_map.grid)


def write_volume(path: Path, volume: Volume) -> None:
    """An image in its own type, channels as a fourth axis (NIfTI) or as components; planar becomes two-dimensional.

    Raises:
        DatasetError: a format that cannot hold it.
        ResourceError: the disk is full.
    """
    _write(path, volume.voxels[0] if len(volume.voxels) == 1 else volume.voxels, volume.grid)


def _write(path: Path, values: np.ndarray, grid: Grid) -> None:
    ending = split_ending(path.name)[1]
    if ending in ("", ".dcm"):
        raise DatasetError("no format is known by its ending", file=path, remedy="Write .nii.gz, .nrrd or .mha")
    if ending in PICTURE_ENDINGS and not grid.planar and not (ending in TIFF_ENDINGS and values.ndim == 3):
        raise DatasetError(f"a volume does not fit into {ending}", file=path, remedy="Write .nii.gz, .nrrd or .mha")
    if values.shape[-3:] != grid.shape:
        raise ValueError(f"array of shape {values.shape} on a grid of shape {grid.shape}")
    with appears_whole(path) as beside:
        if ending in TIFF_ENDINGS and not grid.planar:
            from autoseg.data.formats.tiff import spacing_text, write_tiff

            write_tiff(beside, values)
            write_text(path.with_name(f"{split_ending(path.name)[0]}.json"), spacing_text(grid))
            return
        if ending in (".nii", ".nii.gz"):
            from autoseg.data.formats.nifti import write_nifti

            write_nifti(beside, values, grid)
            return
        from autoseg.data.formats.itk import write_itk

        if ending not in (".mhd", ".nhdr"):
            write_itk(beside, values, grid)
            return
        # header and data in one file, so that a rename cannot part them; readers go by the header, not by the ending
        whole = beside.with_name(beside.name.removesuffix(path.suffix) + {".mhd": ".mha", ".nhdr": ".nrrd"}[ending])
        try:
            write_itk(whole, values, grid)
            whole.replace(beside)
        finally:
            whole.unlink(missing_ok=True)
