"""Spacing, extent and place in the patient that are unlike the other cases'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from autoseg.errors import Problem
from autoseg.fingerprint.types import CaseMeasures

OUTLIER_FACTOR = 3.0  # of the median spacing, or of the median extent in mm, along any axis: what protocols of one task seldom span
OUTLIER_CASES = 5  # fewer cases have no usual spacing
OUTLIER_SHARE = 0.2  # more of the cases than this are no outliers: the dataset is mixed
MOST_TILT = 30.0  # degrees; beyond, no array axis is left-right
LOST = 20.0  # mm from the scanner's zero at which volumes usually begin, so that one that begins at 0 has lost its place
DRIFT = 2.0  # voxels; less is rounding, or the habit of counting from 1


def outliers(cases: Mapping[str, CaseMeasures]) -> list[Problem]:
    """Cases whose spacing or extent is far from the others', unless many are."""
    if len(cases) < OUTLIER_CASES:
        return []
    spacings = {name: case.spacing for name, case in cases.items()}
    extents = {name: tuple(n * s for n, s in zip(case.shape, case.spacing, strict=True)) for name, case in cases.items()}
    rows = []
    for what, values, remedy in (
        ("spacing", spacings, "Check the file's header"),
        ("extent", extents, "Check that it shows the same part of the body as the others"),
    ):
        middle = [median(v[axis] for v in values.values()) for axis in range(3)]
        far = {
            name: v
            for name, v in values.items()
            if any(not 1 / OUTLIER_FACTOR <= x / m <= OUTLIER_FACTOR for x, m in zip(v, middle, strict=True))
        }
        if len(far) <= OUTLIER_SHARE * len(cases):
            rows += [
                Problem("warning", "GridError", f"its {what} is {_triple(v)} mm (z, y, x), the median {_triple(middle)}", remedy, case=name)
                for name, v in far.items()
            ]
    return rows


def _triple(values: Sequence[float]) -> str:
    return " x ".join(f"{v:.3g}" for v in values)


def tilted(cases: Mapping[str, CaseMeasures]) -> list[Problem]:
    return [
        Problem(
            "warning",
            "GridError",
            f"its axes are turned by {case.tilt:.0f} degrees from the patient's, so that none is left-right",
            "Nothing need be done; where labels have a side, images are not mirrored along that axis",
            case=name,
        )
        for name, case in cases.items()
        if case.tilt > MOST_TILT
    ]


def planar_among_volumes(cases: Mapping[str, CaseMeasures]) -> list[Problem]:
    """Single slices in a dataset of volumes, or the other way round."""
    flat = [name for name, case in cases.items() if case.shape.count(1)]
    few, what, others = (
        (flat, "a single slice", "volumes") if len(flat) <= len(cases) / 2 else (set(cases) - set(flat), "a volume", "slices")
    )
    return [
        Problem(
            "warning",
            "GridError",
            f"it is {what}, and most cases are {others}",
            "Check that the file is whole; slices and volumes are better learnt apart",
            case=name,
        )
        for name in sorted(few)
    ]


def drifted(cases: Mapping[str, CaseMeasures]) -> list[Problem]:
    """Cases whose header places them unlike the others: other axes, no place at all, or shifted against images of one space."""
    if len(cases) < OUTLIER_CASES:
        return []
    found: dict[str, Problem] = {}
    for problem in (*_other_axes(cases), *_lost_place(cases), *_shifted(cases)):
        found.setdefault(problem.case, problem)
    return list(found.values())


def _other_axes(cases: Mapping[str, CaseMeasures]) -> Iterator[Problem]:
    counts = Counter(case.orientation for case in cases.values())
    usual, _ = counts.most_common(1)[0]
    others = [name for name, case in cases.items() if case.orientation != usual]
    if len(others) <= OUTLIER_SHARE / 2 * len(cases):  # scanners differ; only few are suspicious
        for name in others:
            yield Problem(
                "warning",
                "GridError",
                f"its header says that its axes run {cases[name].orientation}, those of {counts[usual]} of {len(cases)} cases run {usual}",
                "Look whether left, front and top are where they should be; if so, nothing need be done",
                case=name,
            )


def _lost_place(cases: Mapping[str, CaseMeasures]) -> Iterator[Problem]:
    """An origin of exactly 0 where the others have real ones: some converters drop the header."""
    bare = [name for name, case in cases.items() if case.origin == (0.0, 0.0, 0.0)]
    placed = [max(map(abs, case.origin)) for name, case in cases.items() if name not in bare]
    if bare and len(bare) <= OUTLIER_SHARE * len(cases) and median(placed) > LOST:
        for name in bare:
            yield Problem(
                "warning",
                "GridError",
                "its header places it at 0, 0, 0, and the other cases have a place in the scanner",
                "Its header may have been lost in a conversion: check spacing and sides",
                case=name,
            )


def _shifted(cases: Mapping[str, CaseMeasures]) -> Iterator[Problem]:
    """Images of one space (an atlas, or registered) share size, spacing and origin; one that is moved does not lie on the others."""
    rounded = {name: (case.shape, tuple(round(s, 3) for s in case.spacing)) for name, case in cases.items()}
    lattice, _ = Counter(rounded.values()).most_common(1)[0]
    inside = {name: cases[name].origin for name, own in rounded.items() if own == lattice}
    usual = tuple(median(origin[i] for origin in inside.values()) for i in range(3))
    limit = DRIFT * max(lattice[1])
    near = [name for name, origin in inside.items() if max(abs(a - b) for a, b in zip(origin, usual, strict=True)) <= limit / 4]
    if len(near) < (1 - OUTLIER_SHARE) * len(cases):
        return
    for name, origin in inside.items():
        shift = max(abs(a - b) for a, b in zip(origin, usual, strict=True))
        if shift > limit:
            yield Problem(
                "warning",
                "GridError",
                f"its origin lies {shift:.3g} mm from the one that {len(near)} cases of the same size share",
                "If all images are registered to one space, check this one's registration",
                case=name,
            )
