"""DICOM segmentations: each frame is laid where it says it lies, so that frames may be missing, and in any order and orientation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autoseg.data.annotations.segments import Canvas, tidy
from autoseg.data.formats.placing import NEAR_VOXELS, REGRID, place
from autoseg.errors import GridError, LabelError, UnreadableFileError
from autoseg.geometry import Grid

REMEDY = "Export it again as a DICOM segmentation of binary segments"


def paint_seg(content, canvas: Canvas, path: Path) -> None:
    """Lay the segments of a file over a canvas whose voxels its pixels are.

    Args:
        content: the file as pydicom reads it.

    Raises:
        UnreadableFileError: pixels or tags that cannot be read.
        GridError: pixels that are no voxels of the canvas's grid, or none of them within it.
    """
    try:
        names = _names(content, path)
        frames = zip(content.PerFrameFunctionalGroupsSequence, _frames(content), strict=True)
        threshold = _threshold(content)
        inside = 0
        for own, pixels in frames:
            steps, origin = _place_of(own, content)
            for number in names.keys() & np.flatnonzero(np.bincount(pixels.ravel())) if threshold is None else [_segment_of(own, content)]:
                mask = pixels == number if threshold is None else pixels >= threshold
                inside += _lay(canvas, names[number], mask, steps, origin, path)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise UnreadableFileError(f"it cannot be read as a DICOM segmentation ({error})", file=path, remedy=REMEDY) from error
    if not inside:
        raise GridError("none of its frames lies within the image", file=path, remedy="Pair it with the series that it was drawn on")


def lattice(content, path: Path) -> Grid:
    """A grid of its own for a segmentation whose pixels are no voxels of the image: the frames' planes, evenly spaced.

    Raises:
        GridError: frames that lie on no such grid.
    """
    try:
        places = [_place_of(own, content) for own in content.PerFrameFunctionalGroupsSequence]
        shape = (int(content.Rows), int(content.Columns))
        apart = _shared(content.PerFrameFunctionalGroupsSequence[0], content, "PixelMeasuresSequence")
        thickness = float(apart.get("SpacingBetweenSlices") or apart.get("SliceThickness") or 1)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UnreadableFileError(f"it cannot be read as a DICOM segmentation ({error})", file=path, remedy=REMEDY) from error
    steps = places[0][0]
    normal = np.cross(steps[:, 1], steps[:, 0])
    normal /= np.linalg.norm(normal)
    heights = np.array([origin @ normal for _, origin in places])
    order = np.unique(np.round(heights, 3))
    step = float(np.diff(order).min()) if len(order) > 1 else thickness
    count = round(float(order[-1] - order[0]) / step) + 1
    off = np.abs((heights - order[0]) / step - np.round((heights - order[0]) / step)).max()
    turned = max(float(np.abs(other - steps).max() / np.abs(steps).max()) for other, _ in places)
    if off > NEAR_VOXELS or turned > 1e-3:
        raise GridError("its frames lie on no evenly spaced grid", file=path, remedy="Export it again on the image's grid")
    first = places[int(np.argmin(heights))][1]
    columns_rows_normal = np.column_stack([steps[:, 1], steps[:, 0], normal * step])
    return place(columns_rows_normal, first, (count, *shape), file=path)[0]


def _frames(content) -> Iterator[np.ndarray]:
    """Each frame's pixels (rows, columns); of single bits, which pydicom gives only for frames that end with a byte, unpacked here."""
    if int(content.BitsAllocated) != 1 or content.file_meta.TransferSyntaxUID.is_compressed:
        from pydicom.pixels import iter_pixels

        yield from iter_pixels(content)
        return
    shape = (int(content.Rows), int(content.Columns))
    size = shape[0] * shape[1]
    for number in range(int(content.NumberOfFrames)):
        start, skipped = divmod(number * size, 8)
        packed = np.frombuffer(content.PixelData, np.uint8, -(-(size + skipped) // 8), start)
        yield np.unpackbits(packed, bitorder="little")[skipped : skipped + size].reshape(shape)


def _names(content, path: Path) -> dict[int, str]:
    """Segment number -> its label."""
    found = {int(item.SegmentNumber): tidy(item.get("SegmentLabel"), int(item.SegmentNumber)) for item in content.SegmentSequence}
    if not found:
        raise LabelError("it holds no segment", file=path, remedy=REMEDY)
    return {number: name for number, name in found.items() if number}  # of a label map, 0 is the background


def _threshold(content) -> float | None:
    """From which value on a pixel belongs to its frame's segment; None: the value says which segment it is."""
    kind = str(content.get("SegmentationType", "BINARY")).upper()
    if kind == "LABELMAP":
        return None
    return 0.5 * float(content.MaximumFractionalValue) if kind == "FRACTIONAL" else 1


def _segment_of(own, content) -> int:
    return int(_shared(own, content, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _place_of(own, content) -> tuple[np.ndarray, np.ndarray]:
    """A frame's steps in LPS mm along its rows' and its columns' index, 3 x 2, and its first pixel's centre."""
    cosines = np.array(_shared(own, content, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float).reshape(2, 3)
    spacing = np.array(_shared(own, content, "PixelMeasuresSequence").PixelSpacing, dtype=float)
    origin = np.array(_shared(own, content, "PlanePositionSequence").ImagePositionPatient, dtype=float)
    return np.column_stack([cosines[1] * spacing[0], cosines[0] * spacing[1]]), origin


def _shared(own, content, keyword: str):
    """A functional group of a frame: its own, else the one that all frames share."""
    group = own if keyword in own else content.SharedFunctionalGroupsSequence[0]
    return group[keyword].value[0]


def _lay(canvas: Canvas, name: str, mask: np.ndarray, steps: np.ndarray, origin: np.ndarray, path: Path) -> bool:
    """Lay one frame's mask over the voxels that its pixels are; whether any of them lie within the grid.

    Raises:
        GridError: its pixels lie beside the voxels.
    """
    grid = canvas.grid
    inverse = np.linalg.inv(grid.axes)
    first, moves = inverse @ (origin - np.array(grid.origin)), inverse @ steps
    whole, axes = np.round(moves), np.abs(moves).argmax(axis=0)
    far = np.array(mask.shape) - 1
    off = np.abs(first - np.round(first)).max() + np.abs((moves - whole) * far).sum(axis=1).max()
    one_a_voxel = np.abs(whole).sum(axis=0).tolist() == [1, 1] and axes[0] != axes[1]
    if off > NEAR_VOXELS or not one_a_voxel:
        raise GridError(
            f"its pixels are no voxels of the image: frames lie {off:.2g} voxels beside them, or are of another spacing",
            file=path,
            remedy=f"Pair it with the series that it was drawn on, or {REGRID}",
        )
    third = 3 - int(axes.sum())
    where: list[slice | int] = [0, 0, 0]
    where[third] = round(float(first[third]))
    if not 0 <= where[third] < grid.shape[third]:
        return False
    for side, axis in enumerate(axes):
        at, sign = round(float(first[axis])), int(whole[axis, side])
        if sign < 0:
            mask, at = np.flip(mask, side), at - mask.shape[side] + 1
        low, high = max(at, 0), min(at + mask.shape[side], grid.shape[axis])
        if low >= high:
            return False
        mask = mask.take(range(low - at, high - at), side) if (low, high) != (at, at + mask.shape[side]) else mask
        where[axis] = slice(low, high)
    canvas.add(name, mask if axes[0] < axes[1] else mask.T, tuple(where))
    return True
