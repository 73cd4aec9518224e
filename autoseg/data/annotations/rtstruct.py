"""DICOM RTSTRUCT: contours in the patient, filled on the image's own slices.

No library that reads them is kept up and light (docs/decisions.md); pydicom gives the points, `polygons.fill` the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np

from autoseg.data.annotations.polygons import fill
from autoseg.data.annotations.segments import Canvas, tidy
from autoseg.errors import AutosegError, GridError, LabelError, UnreadableFileError

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
IN_PLANE = 0.5  # slices that a contour may leave its own by, measured from the middle of it
ONE_PLANE = 0.1  # slices: contours that lie no farther apart are of one plane
FURTHEST_MM = 10.0  # contours farther apart are of different places, not of slices that follow each other
_CONTOUR_DATA = 0x30060050


@dataclass(frozen=True)
class Outline:
    """One named structure: its closed contours, each (n, 3) in LPS mm."""

    name: str
    contours: tuple[np.ndarray, ...]


def paint_rtstruct(content, canvas: Canvas, path: Path) -> list[AutosegError]:
    """Fill the structures of a file on the slices of a canvas; contours of one structure in one plane make holes in each other.

    A contour stands for the slices that are nearer to it than to the next one, as far as half the usual distance of contours.

    Args:
        content: the file as pydicom reads it.

    Returns:
        What was left out, as warnings.

    Raises:
        UnreadableFileError: tags that cannot be read.
        LabelError: no closed contour in it.
        GridError: contours that do not lie in the image's slices, or none within it.
    """
    outlines, doubts = _outlines(content, path)
    points = {o.name: [canvas.grid.indices(contour) for contour in o.contours] for o in outlines}
    axis = _slice_axis([c for contours in points.values() for c in contours], path)
    planes = {name: _planes(contours, axis) for name, contours in points.items()}
    usual = _usual_distance(planes.values(), canvas.grid.spacing[axis])
    inside = False
    for name, found in planes.items():
        for slice_number, contours in _slices(found, usual, canvas.grid.shape[axis]):
            where: list[slice | int] = [slice(None)] * 3
            where[axis] = slice_number
            shape = tuple(n for a, n in enumerate(canvas.grid.shape) if a != axis)
            canvas.add(name, fill([np.delete(contour, axis, axis=1) for contour in contours], shape), tuple(where))
            inside = True
    if not inside:
        raise GridError("none of its contours lies within the image", file=path, remedy="Pair it with the series that it was drawn on")
    return doubts + _gaps(planes, usual, path)


def _outlines(content, path: Path) -> tuple[list[Outline], list[AutosegError]]:
    """The structures that have closed contours, and a warning that names the others."""
    try:
        names = {int(item.ROINumber): tidy(item.get("ROIName"), int(item.ROINumber)) for item in content.StructureSetROISequence}
        found: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
        for item in content.get("ROIContourSequence") or ():
            contours = [c for c in item.get("ContourSequence") or () if str(c.get("ContourGeometricType", "")).strip() in CLOSED]
            found[names[int(item.ReferencedROINumber)]] += [_points(contour) for contour in contours]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"it cannot be read as an RTSTRUCT ({error})"
        raise UnreadableFileError(message, file=path, remedy="Export it again from the planning system") from error
    outlines = [Outline(name, tuple(kept)) for name, all_of in found.items() if (kept := [c for c in all_of if len(c) > 2])]
    if not outlines:
        raise LabelError("no structure in it has a closed contour", file=path, remedy="Draw contours, or leave the case out")
    if left_out := [name for name in found if name not in {outline.name for outline in outlines}]:
        message = f"{len(left_out)} structures without closed contours are left out ({', '.join(left_out[:6])})"
        return outlines, [LabelError(message, file=path, remedy="Nothing need be done if they are points or empty")]
    return outlines, []


def _points(contour) -> np.ndarray:
    """(n, 3) LPS mm; of the raw text where it is there, since pydicom makes an object of every number."""
    raw = contour.get_item(_CONTOUR_DATA)
    if isinstance(raw.value, bytes):
        values = np.array(raw.value.decode("ascii").strip("\0 ").split("\\"), dtype=float)
    else:
        values = np.array(raw.value, dtype=float)
    return values.reshape(-1, 3)


def _slice_axis(contours: list[np.ndarray], path: Path) -> int:
    """The array axis that is constant along each contour."""
    spans = np.max([np.ptp(contour, axis=0) for contour in contours], axis=0)
    axis = int(np.argmin(spans))
    if spans[axis] > 2 * IN_PLANE:
        raise GridError(
            f"its contours do not lie in slices of the image: they run through {spans[axis] + 1:.1f} of them",
            file=path,
            remedy="Give the image that they were drawn on, in its own slices",
        )
    return axis


def _planes(contours: list[np.ndarray], axis: int) -> list[tuple[float, list[np.ndarray]]]:
    """Contours by plane: (its slice, which need not be whole; the contours), in order."""
    placed = sorted(((float(contour[:, axis].mean()), contour) for contour in contours), key=lambda pair: pair[0])
    planes: list[tuple[float, list[np.ndarray]]] = []
    for at, contour in placed:
        if planes and at - planes[-1][0] <= ONE_PLANE:
            planes[-1][1].append(contour)
        else:
            planes.append((at, [contour]))
    return planes


def _distance(planes: list[tuple[float, list[np.ndarray]]]) -> float | None:
    """The usual distance of a structure's planes, in slices; None for a single one."""
    steps = np.diff([at for at, _ in planes])
    return float(median_low(steps.tolist())) if steps.size else None


def _usual_distance(structures, spacing: float) -> float:
    """How far apart, in slices, contours follow each other: as in the structure that is drawn most densely."""
    distances = [found for planes in structures if (found := _distance(planes)) is not None and found * spacing <= FURTHEST_MM]
    return min(distances, default=1.0)


def _slices(planes: list[tuple[float, list[np.ndarray]]], usual: float, count: int):
    """Each slice that a plane of contours is the nearest to, with its contours."""
    reach = max(usual, 1.0) / 2
    at = np.array([place for place, _ in planes])
    for number in range(max(0, int(np.floor(at[0] - reach))), min(count, int(np.ceil(at[-1] + reach)) + 1)):
        nearest = int(np.abs(at - number).argmin())
        if -reach < round(number - float(at[nearest]), 3) <= reach:  # half-open: a slice midway is no slice of both
            yield number, planes[nearest][1]


def _gaps(planes, usual: float, path: Path) -> list[AutosegError]:
    """A warning for structures that are drawn on every second or third slice only."""
    sparse = [name for name, found in planes.items() if (step := _distance(found)) is not None and 1.5 * usual < step <= 5 * usual]
    if not sparse:
        return []
    message = f"{', '.join(sparse[:6])}: drawn on some slices only; those between stay empty"
    return [LabelError(message, file=path, remedy="Interpolate the contours in the program that drew them")]
