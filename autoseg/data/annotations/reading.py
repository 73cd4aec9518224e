"""Annotations that name what they outline (3D Slicer's segmentations, DICOM-SEG, RTSTRUCT), on the grid of the image they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.data.annotations.segments import Canvas, Segments
from autoseg.data.annotations.slicer import is_slicer, read_slicer
from autoseg.data.formats.dicom.headers import INSTALL, has_pydicom
from autoseg.data.formats.placing import NEAR_VOXELS, REGRID, SAME_VOXELS, onto
from autoseg.data.names import is_dicom, outline_kind, outlines_in
from autoseg.data.regridding import regridded_labels
from autoseg.errors import AutosegError, DatasetError, GridError, UnreadableFileError
from autoseg.geometry import Grid

OTHER_GRID = f"Pair it with the image that it was drawn on, or {REGRID}"


def names_segments(path: Path) -> bool:
    """Whether a label file, or a folder with DICOM files, names what it outlines."""
    if path.is_dir():
        return bool(outlines_in(path))
    return is_slicer(path) or outline_kind(path) is not None


def read_annotation(path: Path, grid: Grid, *, image: Path | None = None, regrid: bool = False) -> Segments:
    """The segments of a file, or of the DICOM-SEG and RTSTRUCT files in a folder, on the image's stored grid.

    What covers a part of the image only is padded with nothing. Segments of one name are joined.

    Args:
        image: the image's file or series folder; if it is DICOM its frame of reference and series are compared.
        regrid: bring voxels that are not the image's onto its grid, each taking the nearest, instead of refusing them.

    Raises:
        UnreadableFileError: damaged, or the extra [dicom] is not installed.
        GridError: another grid than the image's, or nothing within the image.
        LabelError: nothing that can be a label in it.
        DatasetError: a folder that holds both DICOM-SEG and RTSTRUCT.
    """
    if not path.is_dir() and is_slicer(path):
        return _placed(read_slicer(path), grid, path, regrid)
    kinds = outlines_in(path) if path.is_dir() else {path: outline_kind(path)}
    if len(set(kinds.values())) > 1:
        names = ", ".join(file.name for file in kinds)
        raise DatasetError(f"both DICOM-SEG and RTSTRUCT lie in it ({names})", file=path, remedy="Keep the one that is meant")
    canvas, doubts = Canvas(grid), []
    for file, kind in kinds.items():
        content = _dicom(file)
        doubts += _references(content, image, file)
        doubts += _paint(content, kind, canvas, file, regrid)
    return canvas.finished(doubts)


def _dicom(path: Path):
    """The file as pydicom reads it.

    Raises:
        UnreadableFileError: damaged, or the extra [dicom] is not installed.
    """
    if not has_pydicom():
        raise UnreadableFileError("DICOM-SEG and RTSTRUCT need pydicom, which is not installed", file=path, remedy=f"Install it: {INSTALL}")
    import pydicom

    try:
        return pydicom.dcmread(path)
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, KeyError, NotImplementedError) as error:
        raise UnreadableFileError(f"it cannot be read as DICOM ({error})", file=path, remedy="Copy or export it again") from error


def _references(content, image: Path | None, file: Path) -> list[AutosegError]:
    """A warning if the annotation says that it is of another frame of reference or series than the image."""
    shown = _first_dicom(image)
    if shown is None:
        return []
    for what, of_image, of_annotation in (
        ("frame of reference", {str(shown.get("FrameOfReferenceUID") or "")}, _frames_of(content)),
        ("series", {str(shown.get("SeriesInstanceUID") or "")}, _series_of(content)),
    ):
        if of_image != {""} and of_annotation and not of_image & of_annotation:
            message = f"by its UIDs it belongs to another {what} than the image; its positions in the patient hold"
            return [DatasetError(message, file=file, remedy="Check that the two belong together")]
    return []


def _first_dicom(image: Path | None):
    """The identifiers of the image's first DICOM file; None if it is none."""
    import pydicom

    files = [] if image is None else sorted(image.iterdir()) if image.is_dir() else [image]
    first = next((p for p in files if p.is_file() and is_dicom(p) and outline_kind(p) is None), None)
    return (
        None
        if first is None
        else pydicom.dcmread(first, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID", "SeriesInstanceUID"])
    )


def _frames_of(content) -> set[str]:
    found = [content.get("FrameOfReferenceUID")]
    found += [item.get("FrameOfReferenceUID") for item in content.get("ReferencedFrameOfReferenceSequence") or ()]
    found += [item.get("ReferencedFrameOfReferenceUID") for item in content.get("StructureSetROISequence") or ()]
    return {str(uid) for uid in found if uid}


def _series_of(content) -> set[str]:
    found = [item.get("SeriesInstanceUID") for item in content.get("ReferencedSeriesSequence") or ()]
    for frame in content.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            found += [item.get("SeriesInstanceUID") for item in study.get("RTReferencedSeriesSequence") or ()]
    return {str(uid) for uid in found if uid}


def _paint(content, kind: str | None, canvas: Canvas, file: Path, regrid: bool) -> list[AutosegError]:
    if kind == "RTSTRUCT":
        from autoseg.data.annotations.rtstruct import paint_rtstruct

        return paint_rtstruct(content, canvas, file)
    from autoseg.data.annotations.dicom_seg import lattice, paint_seg

    if not regrid:
        paint_seg(content, canvas, file)
        return []
    try:
        trial = Canvas(canvas.grid)
        paint_seg(content, trial, file)
        _join(canvas, trial.finished())
        return []
    except GridError:
        own = Canvas(lattice(content, file))
        paint_seg(content, own, file)
        placed = _placed(own.finished(), canvas.grid, file, regrid)
        _join(canvas, placed)
        return list(placed.doubts)


def _join(canvas: Canvas, segments: Segments) -> None:
    for number, names in enumerate(segments.combinations):
        for name in names:
            canvas.add(name, segments.voxels == number)


def _placed(segments: Segments, grid: Grid, path: Path, regrid: bool) -> Segments:
    """Segments on a lattice of their own, on the image's grid: cut out of the same lattice, or, if wanted, the nearest voxels."""
    change = onto(grid, segments.grid)
    voxels, moved = change.apply(segments.voxels), segments.grid.oriented(change)
    first = grid.indices(moved.points(np.zeros((1, 3))))[0]
    corners = moved.corners()
    apart = float(np.abs(grid.indices(corners) - moved.indices(corners) - np.round(first)).max())
    doubts = list(segments.doubts)
    if apart > NEAR_VOXELS:
        if not regrid:
            raise GridError(
                f"its voxels lie {apart:.2g} voxels beside those of the image, or are of another spacing", file=path, remedy=OTHER_GRID
            )
        placed, notices = regridded_labels(segments.voxels, segments.grid, grid, background=0, file=path)
        return Segments(placed, grid, segments.combinations, (*doubts, *notices))
    if apart > SAME_VOXELS:
        doubts.append(
            GridError(
                f"its voxels lie {apart:.2g} voxels beside those of the image; taken as the same", file=path, remedy="Nothing need be done"
            )
        )
    start = np.round(first).astype(int)
    out = np.zeros(grid.shape, voxels.dtype)
    inside = [(max(s, 0), min(s + n, whole)) for s, n, whole in zip(start, voxels.shape, grid.shape, strict=True)]
    if any(low >= high for low, high in inside):
        raise GridError("none of its voxels lies within the image", file=path, remedy="Pair it with the image that it was drawn on")
    part = voxels[tuple(slice(low - s, high - s) for (low, high), s in zip(inside, start, strict=True))]
    out[tuple(slice(low, high) for low, high in inside)] = part
    if lost := int(np.count_nonzero(voxels)) - int(np.count_nonzero(part)):
        doubts.append(
            GridError(
                f"{lost} of its voxels lie outside of the image and are left out", file=path, remedy="Check that the two belong together"
            )
        )
    return Segments(out, grid, segments.combinations, tuple(doubts))
