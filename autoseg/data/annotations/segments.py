"""Named segments, which may overlap: gathered on one grid, then written as the integers of a label set.

Slicer, DICOM-SEG and RTSTRUCT name what they outline and let outlines overlap. Here each voxel knows the combination of names that
covers it. Combinations become file values: one a name where nothing overlaps, one a combination where something does, and then every
name is a region, the union of the combinations that hold it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoseg.data.annotations.regions import value_of
from autoseg.data.labels import LabelSet, smallest_unsigned
from autoseg.errors import AutosegError, LabelError
from autoseg.geometry import Grid

OVERLAP = 0.01
"""A combination counts where it covers more than this share of its smallest segment in some case; less is the drawing's imprecision."""

Names = tuple[str, ...]


@dataclass(frozen=True)
class Segments:
    """Named segments on a grid.

    voxels: (z, y, x), for each voxel the number of the combination that covers it.
    combinations: the sorted names of each; the first is empty.
    """

    voxels: np.ndarray
    grid: Grid
    combinations: tuple[Names, ...]
    doubts: tuple[AutosegError, ...] = ()


@dataclass
class Canvas:
    """Segments as they are gathered, one mask after the other: what is held is one number a voxel, however many overlap.

    voxels: (z, y, x); numbers: combination of names -> its number in `voxels`.
    """

    grid: Grid
    voxels: np.ndarray = field(init=False)
    numbers: dict[frozenset[str], int] = field(init=False)

    def __post_init__(self) -> None:
        self.voxels = np.zeros(self.grid.shape, np.uint16)
        self.numbers = {frozenset(): 0}

    def add(self, name: str, mask: np.ndarray, where: tuple[slice | int, ...] = ()) -> None:
        """Lay the segment `name` over the voxels of the part `where` that `mask` (boolean, of the part's shape) marks.

        Masks of one name are joined; one that is called background adds nothing.
        """
        part = self.voxels[where]
        under = part[mask]
        if not under.size or same_name(name) == "background":
            return
        named = list(self.numbers)
        table = np.zeros(len(named), np.uint16)
        for number in np.flatnonzero(np.bincount(under)):
            table[number] = self._number(named[number] | {name})
        part[mask] = table[under]

    def _number(self, combination: frozenset[str]) -> int:
        if len(self.numbers) > np.iinfo(np.uint16).max:
            raise LabelError("its segments overlap in more than 65535 ways", remedy="Leave out segments that do not matter")
        return self.numbers.setdefault(combination, len(self.numbers))

    def finished(self, doubts: Iterable[AutosegError] = ()) -> Segments:
        """The combinations that are left, numbered by their names alone, so that the same segments are the same numbers."""
        counts = sum(
            np.bincount(plane.reshape(-1), minlength=len(self.numbers)) for plane in self.voxels
        )  # by planes: it copies to 64 bits
        there = np.flatnonzero(counts)
        named = {number: tuple(sorted(names)) for names, number in self.numbers.items()}
        ordered = sorted((named[n] for n in there if n), key=lambda names: (len(names), names))
        place = {names: number for number, names in enumerate(((), *ordered))}
        table = np.array([place.get(named[n], 0) for n in range(len(named))], smallest_unsigned(len(ordered)))
        return Segments(table[self.voxels], self.grid, ((), *ordered), tuple(doubts))


def tidy(name: object, number: int) -> str:
    """A segment's name without surplus spaces; `segment_<number>` if it has none."""
    return " ".join(str(name or "").split()) or f"segment_{number}"


def same_name(name: str) -> str:
    """What names that mean the same have in common: letters' case, spaces, hyphens and underscores don't matter."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def meaning(combinations: Sequence[Names]) -> LabelSet | None:
    """The label set in which the numbers of one case's combinations are file values; None without a segment."""
    names = sorted({name for names in combinations for name in names})
    if not names:
        return None
    values = tuple(tuple(v for v, combination in enumerate(combinations) if name in combination) for name in names)
    exclusive = all(len(combination) <= 1 for combination in combinations)
    return LabelSet(tuple(names), values, region_order=None if exclusive else tuple(v[0] for v in values))


def gathered(cases: Iterable[Mapping[Names, int]]) -> LabelSet:
    """The labels that name all segments of a dataset; the same for any order of the cases.

    Names that mean the same are one, spelled as most cases do. Without overlaps they are classes 1, 2, ... in alphabetical order. With
    overlaps in any case every combination that counts (`OVERLAP`) gets a value, those of one name first, and every name is a region:
    larger ones come first, and are written first, so that an inner one is written over the outer.

    Args:
        cases: for each case, combination of names -> voxels.
    """
    cases = list(cases)
    spelling = _spelling(cases)
    cases = [_respelled(case, spelling) for case in cases]
    ignore = {name for case in cases for names in case for name in names if same_name(name) == "ignore"}
    cases = [_without_ignored(case, ignore) for case in cases]
    total: Counter[Names] = sum((Counter(case) for case in cases), Counter())
    names = sorted({name for combination in total for name in combination}, key=lambda name: (name.casefold(), name))
    if not names:
        raise LabelError("no file outlines any segment", remedy="Give annotations that mark something")
    if not any(len(combination) > 1 for case in cases for combination in _that_count(case)):
        values = tuple((number,) for number in range(1, len(names) + 1))
        return LabelSet(tuple(names), values, 0, len(names) + 1 if ignore else None)
    return _regions(names, cases, total, bool(ignore))


def _spelling(cases: Sequence[Mapping[Names, int]]) -> dict[str, str]:
    """Name -> the most usual spelling of what means the same (the first alphabetically of equally usual ones)."""
    counts = Counter(name for case in cases for name in {name for combination in case for name in combination})
    groups: dict[str, list[str]] = {}
    for name in sorted(counts):
        groups.setdefault(same_name(name), []).append(name)
    return {name: max(group, key=counts.__getitem__) for group in groups.values() for name in group}


def _respelled(case: Mapping[Names, int], spelling: Mapping[str, str]) -> Counter[Names]:
    result: Counter[Names] = Counter()
    for combination, count in case.items():
        result[tuple(sorted({spelling[name] for name in combination}))] += count
    return result


def _without_ignored(case: Mapping[Names, int], ignore: set[str]) -> Counter[Names]:
    """The combinations that are neither empty nor ignored."""
    return Counter({names: count for names, count in case.items() if names and not ignore & set(names)})


def _that_count(case: Mapping[Names, int]) -> set[Names]:
    """The combinations of a case that are no mere imprecision."""
    sizes: Counter[str] = Counter()
    for combination, count in case.items():
        sizes.update(dict.fromkeys(combination, count))
    return {combination for combination, count in case.items() if count > OVERLAP * min(sizes[name] for name in combination)}


def _regions(names: Sequence[str], cases: Sequence[Mapping[Names, int]], total: Counter[Names], ignore: bool) -> LabelSet:
    counting = {combination for case in cases for combination in _that_count(case)}
    for name in names:  # whatever is said of it, a name has a combination
        counting.add(max((c for c in total if name in c), key=lambda c: (total[c], c)))
    place = {name: number for number, name in enumerate(names)}
    combinations = sorted(counting, key=lambda c: (len(c), [place[name] for name in c]))
    value = {combination: number for number, combination in enumerate(combinations, start=1)}
    sizes = {name: sum(count for combination, count in total.items() if name in combination) for name in names}
    order = sorted(names, key=lambda name: (-sizes[name], place[name]))
    written = []
    for position, name in enumerate(order):
        holding = [c for c in combinations if name in c]
        on_top = [c for c in holding if not set(c) & set(order[position + 1 :])]
        written.append(value[max(on_top or holding, key=lambda c: (total[c], c))])
    values = tuple(tuple(value[c] for c in combinations if name in c) for name in order)
    return LabelSet(tuple(order), values, 0, len(combinations) + 1 if ignore else None, tuple(written))


def as_values(combinations: Sequence[Names], labels: LabelSet) -> tuple[np.ndarray, list[str]]:
    """The file value of each combination in a label set, and the names that it does not know."""
    known = {same_name(name): name for name in labels.names}
    values, unknown = [], set()
    for combination in combinations:
        means = {name: known.get(same_name(name)) for name in combination}
        ignored = labels.ignore is not None and any(same_name(name) == "ignore" for name in combination)
        unknown |= {name for name, label in means.items() if label is None and same_name(name) != "ignore"}
        on = {label for label in means.values() if label is not None}
        values.append(labels.ignore if ignored else value_of(labels, on))
    return np.array(values, smallest_unsigned(max(values))), sorted(unknown)


def overlap_doubts(segments: Segments, labels: LabelSet, file: object) -> list[AutosegError]:
    """A warning where segments overlap that the labels declare as exclusive classes."""
    if labels.regions:
        return []
    known = {same_name(name): name for name in labels.names}
    lost: Counter[Names] = Counter()
    for number, names in enumerate(segments.combinations):
        on = tuple(name for name in labels.names if name in {known.get(same_name(n)) for n in names})
        if len(on) > 1:
            lost[on] += int(np.count_nonzero(segments.voxels == number))
    if not lost:
        return []
    pairs = some([f"{' and '.join(names)} ({count})" for names, count in lost.most_common()])
    message = f"segments overlap that are exclusive labels, in voxels: {pairs}; the label of the largest value holds there"
    return [
        LabelError(message, file=file, remedy="Declare them as regions in dataset.json if both are meant, or let autoseg find the labels")
    ]


def some(names: Sequence[str], most: int = 6) -> str:
    """The first few of the names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
