"""DICOM planes to images: which planes belong together, in which order they lie, and which of the images is meant."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.formats.dicom.headers import DISTINCTIONS, Slice
from autoseg.data.formats.placing import NEAR_VOXELS
from autoseg.errors import AutosegError, DatasetError, GridError, UnreadableFileError

_TURNED, _SAME_TURN = 1e-2, 1e-3  # direction cosines that differ more make another image; more than the second: a broken one
_SAME_PLACE = 1e-2  # mm between planes that are at one position


@dataclass(frozen=True)
class DicomImage:
    """Planes of one series that make one image.

    slices: along their normal, where they say where they lie.
    part: which image of its series it is, from 1; 0 if it is the only one.
    distinction: what tells it from the others of its series, such as `echo time 4.9`.
    copies: planes that were left out since they are stored twice.
    """

    slices: tuple[Slice, ...]
    part: int = 0
    distinction: str = ""
    copies: int = 0

    @property
    def first(self) -> Slice:
        return self.slices[0]

    @property
    def number(self) -> str:
        """The series' number, and after a point the part."""
        return f"{self.first.number}.{self.part}" if self.part else str(self.first.number)

    @property
    def placed(self) -> bool:
        """Whether its planes say where they lie in the patient."""
        return self.first.position is not None and self.first.orientation is not None

    @property
    def is_localiser(self) -> bool:
        return self.first.is_localiser

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """mm (z, y, x); None if the pixels' is not said, and of localisers."""
        if self.first.spacing is None or self.is_localiser:
            return None
        heights = _heights(self.slices) if self.placed else np.zeros(1)
        between = float(np.median(np.diff(heights))) if len(heights) > 1 else self.first.thickness or 1.0
        return between, *self.first.spacing

    @property
    def matrix(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        return len(self.slices), *self.first.size

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it wherever its files lie."""
        return self.first.series, self.part


def images_of(slices: Iterable[Slice]) -> list[DicomImage]:
    """The images that planes make: by study and series, then by size and direction, then by what tells planes at one position apart.

    Sorted by the series' number."""
    series: dict[tuple[str, str], list[Slice]] = {}
    for plane in slices:
        series.setdefault((plane.study, plane.series), []).append(plane)
    found = []
    for planes in series.values():
        planes, copies = _without_copies(planes)
        parts = [part for group in _alike(planes) for part in _apart(group, "")]
        alone = len(parts) == 1
        for number, (part, distinction) in enumerate(parts, start=1):
            found.append(DicomImage(tuple(_sorted(part)), 0 if alone else number, distinction, copies if number == 1 else 0))
    return sorted(found, key=lambda image: (image.first.number, image.first.series, image.part))


def image_of(planes: Sequence[Slice]) -> DicomImage:
    """The image that planes make of which somebody knows that they belong together."""
    return DicomImage(tuple(_sorted(list(planes))))


def chosen(images: Sequence[DicomImage], pattern: str, *, named: Path) -> DicomImage:
    """The one image that a pattern means; an empty one means the only image that is no localiser.

    Raises:
        DatasetError: none or several; it says how many slices each has, and nothing of a patient.
    """
    fitting = matching(images, pattern)
    if len(fitting) == 1:
        return fitting[0]
    counts = ", ".join(_count(image) for image in images[:8]) + (", ..." if len(images) > 8 else "")
    what = "series" if len({image.first.series for image in images}) == len(images) else "images"
    there = f"{len(images)} DICOM {what} lie together ({counts})" if len(images) > 1 else f"one DICOM series lies in it ({counts})"
    if pattern:
        there += f", of which {len(fitting) or 'none'} fit{'' if fitting else 's'} the pattern {pattern!r}"
    raise DatasetError(there, file=named, remedy="Choose one by --series PATTERN; autoseg doctor FOLDER lists them")


def _count(image: DicomImage) -> str:
    number = len(image.slices)
    return f"{number} slice{'' if number == 1 else 's'}{' of a localiser' if image.is_localiser else ''}"


def matching(images: Iterable[DicomImage], pattern: str) -> list[DicomImage]:
    """The images that a pattern fits; an empty one: all placed images that are no localisers, or whatever there is.

    A pattern is compared with the series' description (alone, and followed by what tells the part), its number (`4`, or `4.2` for a
    part), and its UID, whole and whatever the case: `*` and `?` stand for any letters and one letter, `re:` begins a regular expression.
    """
    images = list(images)
    if pattern:
        fits = _compiled(pattern)
        return [image for image in images if any(map(fits, _texts(image)))]
    scans = [image for image in images if image.placed and not image.is_localiser]
    return scans or [image for image in images if not image.is_localiser] or images


def _compiled(pattern: str) -> Callable[[str], Any]:
    text = pattern.removeprefix("re:") if pattern.startswith("re:") else fnmatch.translate(pattern)
    try:
        return re.compile(text, re.IGNORECASE).fullmatch
    except re.error as error:
        raise DatasetError(f"--series {pattern!r} is no regular expression ({error})", remedy="Correct it, or leave re: out") from error


def _texts(image: DicomImage) -> tuple[str, ...]:
    first = image.first
    return first.description, f"{first.description} {image.distinction}", str(first.number), image.number, first.series


def _without_copies(planes: Sequence[Slice]) -> tuple[list[Slice], int]:
    """Each instance once, the first by path."""
    known: dict[Any, Slice] = {}
    for plane in sorted(planes, key=lambda plane: (plane.path, plane.frame or 0)):
        known.setdefault((plane.instance, plane.frame) if plane.instance else (plane.path, plane.frame), plane)
    return list(known.values()), len(planes) - len(known)


def _alike(planes: Sequence[Slice]) -> list[list[Slice]]:
    """Planes of one size, spacing, direction and kind, in the order of the first of each; what lies nowhere stands alone."""
    groups: list[list[Slice]] = []
    for plane in sorted(planes, key=lambda plane: plane.order):
        if plane.is_localiser:
            same = next((group for group in groups if group[0].is_localiser), None)  # of several directions: it is no volume anyway
        elif plane.position is None or plane.orientation is None:
            same = next((g for g in groups if plane.frame is not None and g[0].path == plane.path), None)
        else:
            same = next((group for group in groups if _one_stack(group[0], plane)), None)
        if same is None:
            groups.append([plane])
        else:
            same.append(plane)
    return groups


def _one_stack(a: Slice, b: Slice) -> bool:
    if a.position is None or a.orientation is None or (a.size, a.samples, a.is_localiser) != (b.size, b.samples, b.is_localiser):
        return False
    spacing = a.spacing == b.spacing or (a.spacing and b.spacing and np.allclose(a.spacing, b.spacing, rtol=1e-2))
    return bool(spacing) and bool(np.abs(np.subtract(a.orientation, b.orientation)).max() < _TURNED)


def _apart(planes: list[Slice], said: str) -> list[tuple[list[Slice], str]]:
    """Planes at one position told apart by the first thing that does, as often as needed, else by their order.

    What differs from plane to plane, such as an acquisition number, tells nothing: a value must be shared by many positions.
    """
    if planes[0].position is None or (most := _most_at_one_place(planes)) == 1:
        return [(planes, said)]
    places = len(_places(planes))
    for index, name in enumerate(DISTINCTIONS):
        parts: dict[Any, list[Slice]] = {}
        for plane in planes:
            parts.setdefault(plane.distinctions[index], []).append(plane)
        if 1 < len(parts) <= most and all(len(_places(part)) > places / 2 for part in parts.values()):
            ordered = sorted(parts.items(), key=lambda item: (item[0] is None, str(type(item[0])), item[0] if item[0] is not None else 0))
            return [done for value, part in ordered for done in _apart(part, _joined(said, name, value))]
    if set(Counter(_places(planes, all_of_them=True)).values()) != {most}:
        return [(planes, said)]  # some positions have more planes than others: not phases, but slices stored twice
    order: dict[int, list[Slice]] = {}
    for place in _by_place(planes):
        for rank, plane in enumerate(sorted(place, key=lambda plane: plane.order)):
            order.setdefault(rank, []).append(plane)
    return [(part, _joined(said, "position in time", rank + 1)) for rank, part in order.items()]


def _joined(said: str, name: str, value: Any) -> str:
    text = "\\".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{said}, {name} {text}" if said else f"{name} {text}"


def _heights(planes: Sequence[Slice]) -> np.ndarray:
    """mm along the first plane's normal."""
    across, down = np.array(planes[0].orientation).reshape(2, 3)
    return np.array([plane.position for plane in planes]) @ np.cross(across, down)


def _places(planes: Sequence[Slice], *, all_of_them: bool = False) -> Any:
    """The positions of planes as whole numbers: a set, or with `all_of_them` a list, one a plane."""
    heights = _heights(planes)
    ordered = np.sort(heights)
    starts = ordered[np.concatenate([[True], np.diff(ordered) > _SAME_PLACE])]
    places = (np.searchsorted(starts, heights + _SAME_PLACE / 2, side="right") - 1).tolist()
    return places if all_of_them else set(places)


def _most_at_one_place(planes: Sequence[Slice]) -> int:
    return max(Counter(_places(planes, all_of_them=True)).values())


def _by_place(planes: Sequence[Slice]) -> list[list[Slice]]:
    found: dict[int, list[Slice]] = {}
    for place, plane in zip(_places(planes, all_of_them=True), planes, strict=True):
        found.setdefault(place, []).append(plane)
    return [found[place] for place in sorted(found)]


def _sorted(planes: list[Slice]) -> list[Slice]:
    if planes[0].position is None or planes[0].orientation is None:
        return planes
    heights = dict(zip(map(id, planes), _heights(planes).tolist(), strict=True))
    return sorted(planes, key=lambda plane: (heights[id(plane)], plane.order))


def steps_of(image: DicomImage, *, named: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxel steps (columns x, y, z in LPS mm) and the first voxel's centre of slices that make a volume.

    Raises:
        UnreadableFileError: several planes of which nothing says where they lie, or in colour.
        GridError: slices that are missing, doubled, turned or beside the line of the others.
    """
    planes, first = image.slices, image.first
    spacing = first.spacing or (1.0, 1.0)
    if not image.placed:
        if len(planes) > 1:
            message = f"its {len(planes)} frames do not say where they lie, as those of a film"
            raise UnreadableFileError(message, file=named, remedy="Leave it out, or export it as a volume")
        return np.diag([spacing[1], spacing[0], 1.0]), np.zeros(3)
    if first.samples > 1 and len(planes) > 1:
        raise UnreadableFileError("it is a volume in colour", file=named, remedy="Leave it out, or export it in gray")
    across, down = np.array(first.orientation).reshape(2, 3)
    normal = np.cross(across, down)
    positions = np.array([plane.position for plane in planes])
    if len(planes) == 1:
        step = normal * (first.thickness or 1.0)
    else:
        _require_alike(planes, named)
        _require_even(_heights(planes), named)
        step = (positions[-1] - positions[0]) / (len(planes) - 1)
        beside = np.abs((positions - positions[0] - np.arange(len(planes))[:, None] * step) @ np.stack([across, down], axis=1))
        if (off := beside / np.array(spacing[::-1])).max() > NEAR_VOXELS * max(1.0, len(planes) / 20):
            at = int(off.max(axis=1).argmax())
            raise GridError(
                f"its slices do not lie on one line: slice {at + 1} of {len(planes)} is {beside[at].max():.3g} mm beside it",
                file=named,
                remedy="Leave out slices that do not belong to the volume, or the series",
            )
    return np.column_stack([across * spacing[1], down * spacing[0], step]), positions[0]


def problem_of(image: DicomImage) -> AutosegError | None:
    """What keeps an image from being read, as far as its headers tell."""
    try:
        steps_of(image, named=image.first.path.parent)
    except AutosegError as error:
        return error
    return None


def _require_alike(planes: Sequence[Slice], named: Path) -> None:
    first = planes[0]
    for other in planes[1:]:
        if np.abs(np.subtract(first.orientation, other.orientation)).max() > _SAME_TURN:
            raise GridError("its slices differ in direction", file=named, remedy="Leave out the slices that do not belong to the volume")


def _require_even(heights: np.ndarray, named: Path) -> None:
    steps = np.diff(heights)
    usual = float(np.median(steps[steps > _SAME_PLACE])) if (steps > _SAME_PLACE).any() else 0.0
    if (steps <= _SAME_PLACE).any():
        raise GridError(
            f"{int((steps <= _SAME_PLACE).sum())} of its {len(heights)} slices lie at the position of another",
            file=named,
            remedy="Leave out doubled slices; where they are time points that nothing tells apart, put each into a folder of its own",
        )
    if (wide := np.abs(steps - usual) > NEAR_VOXELS * usual).any():
        at = int(np.argmax(wide))
        raise GridError(
            f"its slices are not evenly spaced: usually {usual:.4g} mm apart, {steps[at]:.4g} mm after slice {at + 1} of {len(heights)}"
            f" ({int(wide.sum())} such steps)",
            file=named,
            remedy="Add the missing slices, or leave the series out",
        )
