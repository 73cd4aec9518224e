"""Labels that lie where they should not: sides exchanged, label maps mirrored, values swapped; and pairs that may be sides."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from autoseg.data.case import Dataset
from autoseg.data.labels import LabelSet
from autoseg.errors import Problem
from autoseg.fingerprint.checks.naming import some
from autoseg.fingerprint.sides import label_voxels, sides_by_name, unnamed_sides
from autoseg.fingerprint.types import CaseMeasures, Fingerprint

FEWEST_CASES = 5  # that show both labels; fewer have no usual arrangement
LEAST_VOXELS = 20  # of a label in a case; the centre of fewer says nothing
MOST_LABELS = 30  # the most frequent ones; 435 pairs are enough to notice a mirrored case
CLEAR = 6.0  # deviations by which two labels must lie apart along an axis for their order to be certain
APART = 0.08  # of the volume's length, at least
OFF_CENTRE = 0.1  # of the volume's length; how far from the middle a single label must lie for its side to be certain
REVERSED = -0.5  # of the usual distance; a mirrored case has about -1, an unusual one hardly less than 0
RARE = 0.2  # more of the cases than this are no mistake: the arrangement varies
_AXES = ("head to foot", "front to back", "left to right")
_BESIDE = (("above", "below"), ("behind", "in front of"), ("to the patient's left of", "to the patient's right of"))
_HALVES = (("upper", "lower"), ("back", "front"), ("left", "right"))


def side_order(cases: Mapping[str, CaseMeasures], fingerprint: Fingerprint) -> list[Problem]:
    """Left labels that lie on the patient's right."""
    rows = []
    for pair in (*fingerprint.sides.pairs, *fingerprint.sides.rejected):
        offsets = {name: case.side_offset[key] for name, case in cases.items() if (key := f"{pair.left}|{pair.right}") in case.side_offset}
        swapped = [name for name, offset in offsets.items() if offset < 0]
        lies = f"{pair.left} lies to the patient's right of {pair.right}"
        if len(swapped) < len(offsets) / 2:
            rows += [
                Problem(
                    "warning",
                    "LabelError",
                    f"{lies}, unlike in most cases",
                    "Check whether labels are swapped or the image is mirrored",
                    case=name,
                )
                for name in swapped
            ]
        elif swapped:
            rows.append(
                Problem(
                    "warning",
                    "LabelError",
                    f"{lies} in {len(swapped)} of {len(offsets)} cases: {some(swapped)}",
                    "Check which value is which in dataset.json, and the images' direction",
                )
            )
    return rows


def look_like_sides(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    return [
        Problem(
            "question",
            "LabelError",
            f"{pair.left} and {pair.right} look like the left and right one of a pair ({pair.overlap:.0%} overlap when mirrored)",
            "If they are, name them so (NAME_left, NAME_right), so that mirroring exchanges them",
        )
        for pair in unnamed_sides(cases, dataset.labels)
    ]


@dataclass
class _Findings:
    """What one case's labels contradict: pair -> axes that were certain, and those along which it lies the other way round."""

    certain: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    reversed: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))


def mirrored_or_swapped(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    """Cases whose labels lie the other way round than in the others, along an axis or by pairs.

    The order of two labels along an axis is certain where their distance (in volume lengths) is large against its spread over the
    cases (median absolute deviation). Sides are left to `side_order`.
    """
    places = _places(cases, dataset.labels)
    sided = {name for pair in sides_by_name(dataset.labels.names).pairs for name in pair}
    free = [name for name in places if name not in sided][:MOST_LABELS]
    found: dict[str, _Findings] = defaultdict(_Findings)
    for a, b in itertools.combinations(free, 2):
        both = [case for case in places[a] if case in places[b]]
        if len(both) < FEWEST_CASES:
            continue
        distances = np.array([places[a][case] - places[b][case] for case in both])
        for axis, wrong in _contradictions(distances, APART):
            for case, is_wrong in zip(both, wrong, strict=True):
                found[case].certain[a, b].add(axis)
                if is_wrong:
                    found[case].reversed[a, b].add(axis)
    rows = [row for case, findings in found.items() if (row := _arrangement(case, findings, places))]
    told = {row.case for row in rows}
    return rows + [row for row in _on_the_other_side(places, free) if row.case not in told]


def _places(cases: Mapping[str, CaseMeasures], labels: LabelSet) -> dict[str, dict[str, np.ndarray]]:
    """Label -> case -> its centre, as fractions of the volume along (z, y, x) in LPS axes; the most frequent labels first."""
    table: dict[str, dict[str, np.ndarray]] = {}
    for name, values in zip(labels.names, labels.values, strict=True):
        table[name] = {}
        for case, measures in cases.items():
            there = [v for v in values if v in measures.label_places]
            if there and label_voxels(measures, labels, name) >= LEAST_VOXELS:
                weights = [measures.label_voxels.get(v, 0) for v in there]
                table[name][case] = np.average([measures.label_places[v] for v in there], axis=0, weights=weights)
    return dict(sorted(table.items(), key=lambda item: -len(item[1])))


def _contradictions(values: np.ndarray, least: float) -> Iterator[tuple[int, np.ndarray]]:
    """Axes along which (n, 3) values have a certain sign, with whose value has the other one."""
    for axis in range(3):
        row = values[:, axis]
        middle = float(np.median(row))
        spread = 1.4826 * float(np.median(np.abs(row - middle)))
        if abs(middle) < max(CLEAR * spread, least):
            continue
        wrong = row / middle <= REVERSED
        if wrong.sum() <= RARE * len(row):
            yield axis, wrong


def _arrangement(case: str, findings: _Findings, places: Mapping[str, Mapping[str, np.ndarray]]) -> Problem | None:
    if not any(findings.reversed.values()):
        return None
    axes = {axis for certain in findings.certain.values() for axis in certain}
    mirrored = [
        axis
        for axis in sorted(axes)
        if all(axis in findings.reversed[pair] for pair, certain in findings.certain.items() if axis in certain)
    ]
    if len(mirrored) == 1 and len(axes) > 1:
        pair = next(pair for pair, wrong in findings.reversed.items() if mirrored[0] in wrong)
        message = f"its labels lie mirrored {_AXES[mirrored[0]]} against the other cases: {_order(case, pair, mirrored[0], places)}"
        remedy = "Check whether the label map, or the whole case, was flipped in a conversion"
    else:
        pair = max(findings.reversed, key=lambda pair: len(findings.reversed[pair]))
        axis = max(findings.reversed[pair], key=lambda axis: abs((places[pair[0]][case] - places[pair[1]][case])[axis]))
        message = f"{pair[0]} and {pair[1]} lie the other way round than in the other cases: {_order(case, pair, axis, places)}"
        remedy = "Check whether the two values are swapped, or the label map was flipped in a conversion"
    return Problem("warning", "LabelError", message, remedy, case=case)


def _order(case: str, pair: tuple[str, str], axis: int, places: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    a, b = pair
    more = (places[a][case] - places[b][case])[axis] > 0
    return f"{a} is {_BESIDE[axis][0 if more else 1]} {b}"


def _on_the_other_side(places: Mapping[str, Mapping[str, np.ndarray]], names: list[str]) -> Iterator[Problem]:
    """Cases with a label in the other half of the volume than all others have it."""
    told = set()
    for name in names:
        there = list(places[name])
        if len(there) < FEWEST_CASES:
            continue
        values = np.array([places[name][case] for case in there]) - 0.5
        for axis, wrong in _contradictions(values, OFF_CENTRE):
            for case, row in zip(there, values[:, axis], strict=True):
                if wrong[there.index(case)] and case not in told:
                    told.add(case)
                    here, usual = _HALVES[axis] if row > 0 else _HALVES[axis][::-1]
                    yield Problem(
                        "warning",
                        "LabelError",
                        f"{name} lies in the {here} half of the volume, in the other cases in the {usual} half",
                        "Check whether the case was flipped in a conversion; if it shows another part of the body, nothing need be done",
                        case=case,
                    )
