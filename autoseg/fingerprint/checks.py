"""Checks of the dataset as a whole: what single cases cannot show. Nothing here excludes a case."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from autoseg.data.case import Dataset
from autoseg.errors import Problem
from autoseg.fingerprint.sides import label_voxels, unnamed_sides
from autoseg.fingerprint.types import CaseMeasures, Fingerprint

OUTLIER_FACTOR = 3.0  # of the median spacing, or of the median extent in mm, along any axis
OUTLIER_CASES = 5  # fewer cases have no usual spacing
OUTLIER_SHARE = 0.2  # more of the cases than this are no outliers: the dataset is mixed
TINY_VOXELS = 30  # median over the cases that show the class
FEW_CASES = 5  # as many as there usually are folds
MOST_TILT = 30.0  # degrees; beyond, no array axis is left-right
MOST_SCANS = 10  # of one patient; more cases that share the start of their ids are a series of another kind
NAMED = 5  # cases that a message names


def check(dataset: Dataset, fingerprint: Fingerprint) -> list[Problem]:
    """Warnings and questions about the dataset as a whole, for `doctor`; `measure` has them among its problems already.

    Args:
        dataset: with its labels resolved.
        fingerprint: of its cases.
    """
    cases = fingerprint.cases
    return [
        *_empty_cases(cases, dataset),
        *_classes(dataset, fingerprint),
        *_unsure_kinds(cases, dataset),
        *_mixed_kinds(cases, dataset),
        *_outliers(cases),
        *_tilted(cases),
        *_same_images(cases, dataset.groups),
        *_scans_of_one_patient(cases, dataset.groups),
        *_side_order(cases, fingerprint),
        *_look_like_sides(cases, dataset),
    ]


def _some(names: Iterable[str]) -> str:
    """The first few of the names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _empty_cases(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    background, ignore = dataset.labels.background, dataset.labels.ignore
    rows = [
        ({background}, f"only background ({background})", "Nothing need be done if nothing is there to see; else correct the label map"),
        ({ignore}, f"only voxels to ignore ({ignore})", "Nothing can be learnt or scored in it: leave it out of the dataset"),
    ]
    return [
        Problem("warning", "LabelError", f"its label map holds {what}", remedy, case=name)
        for name, case in cases.items()
        for values, what, remedy in rows
        if set(case.label_voxels) == values
    ]


def _classes(dataset: Dataset, fingerprint: Fingerprint) -> list[Problem]:
    """Classes that no case, or few cases, or few voxels show; of a case that does not annotate a class nothing is asked."""
    count = len(fingerprint.cases)
    few = min(FEW_CASES, count)
    unknown = [name for name, c in fingerprint.classes.items() if c.annotated == 0]
    absent = [name for name, c in fingerprint.classes.items() if c.annotated and c.cases == 0]
    rare = [f"{name} ({c.cases})" for name, c in fingerprint.classes.items() if 0 < c.cases < few]
    tiny = []
    for name in dataset.labels.names:
        voxels = [n for case in fingerprint.cases.values() if (n := label_voxels(case, dataset.labels, name))]
        if voxels and median(voxels) < TINY_VOXELS:
            tiny.append(f"{name} ({median(voxels):g})")
    rows = [
        (unknown, "no case annotates", "It stays an output that nothing is learnt for; remove it from dataset.json, or add cases"),
        (absent, "no case shows", "It stays an output that learns to be empty; remove it from dataset.json if that is not meant"),
        (
            rare,
            f"fewer than {few} of {count} cases show (number in brackets)",
            "Some folds cannot learn or score it; add cases that show it",
        ),
        (
            tiny,
            f"cover fewer than {TINY_VOXELS} voxels in the median (number in brackets)",
            "Scores of so few voxels jump; check the label, or use images of finer spacing",
        ),
    ]
    return [Problem("warning", "LabelError", f"{what}: {_some(names)}", remedy) for names, what, remedy in rows if names]


def _unsure_kinds(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    return [
        Problem(
            "warning",
            "IntensityError",
            f"channel {channel!r} counts as {measures.kind!r} for want of better: {measures.why}",
            f'Check its units; `intensity_kind: {{"{name}": {{"{channel}": ...}}}}` in dataset.json decides',
            case=name,
        )
        for name, case in cases.items()
        for channel, measures in zip(dataset.channels, case.channels, strict=True)
        if not measures.sure
    ]


def _mixed_kinds(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    rows = []
    for number, channel in enumerate(dataset.channels):
        kinds = Counter(case.channels[number].kind for case in cases.values())
        if len(kinds) > 1:
            counts = " and ".join(f"{n} {kind!r}" for kind, n in sorted(kinds.items()))
            rows.append(
                Problem(
                    "warning",
                    "IntensityError",
                    f"channel {channel!r} has {counts} cases",
                    "Nothing need be done: each kind gets its own steps; fresh cases are told apart the same way",
                )
            )
    return rows


def _outliers(cases: Mapping[str, CaseMeasures]) -> list[Problem]:
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


def _tilted(cases: Mapping[str, CaseMeasures]) -> list[Problem]:
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


def _same_images(cases: Mapping[str, CaseMeasures], groups: Mapping[str, str]) -> list[Problem]:
    """Cases with the same image that no group ties together."""
    by_key = defaultdict(list)
    for name, case in cases.items():
        by_key[case.content_key].append(name)
    rows = []
    for names in by_key.values():
        if len(names) < 2 or (all(n in groups for n in names) and len({groups[n] for n in names}) == 1):
            continue
        same_labels = len({cases[name].label_key for name in names}) == 1
        labels = "and the same label map" if same_labels else "with different label maps"
        rows.append(
            Problem(
                "warning",
                "DatasetError",
                f"{_some(names)} hold the same image {labels}",
                "Remove all but one, or put them in one group (groups.csv), so that no fold is tested on what it trained on",
                case=names[1],
            )
        )
    return rows


def _scans_of_one_patient(cases: Mapping[str, CaseMeasures], groups: Mapping[str, str]) -> list[Problem]:
    """Ids that differ only in their last part, as `patient07_scan1` and `patient07_scan2` do."""
    if groups:
        return []
    by_start = defaultdict(list)
    for name in cases:
        start = re.sub(r"[^A-Za-z0-9]+[A-Za-z]*\d{0,3}$", "", name)
        if start != name and re.search(r"\d", start):
            by_start[start].append(name)
    several = {start: names for start, names in by_start.items() if len(names) > 1}
    if not several or len(by_start) < 2 or max(map(len, several.values())) > MOST_SCANS:
        return []
    examples = "; ".join(", ".join(names[:3]) for names in list(several.values())[:3])
    return [
        Problem(
            "question",
            "DatasetError",
            f"ids of {sum(map(len, several.values()))} cases look like several scans of one patient: {examples}",
            "If they are, tie them together in groups.csv (case,group), so that no fold is tested on a patient that it trained on",
        )
    ]


def _side_order(cases: Mapping[str, CaseMeasures], fingerprint: Fingerprint) -> list[Problem]:
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
                    f"{lies} in {len(swapped)} of {len(offsets)} cases: {_some(swapped)}",
                    "Check which value is which in dataset.json, and the images' direction",
                )
            )
    return rows


def _look_like_sides(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    return [
        Problem(
            "question",
            "LabelError",
            f"{pair.left} and {pair.right} look like the left and right one of a pair ({pair.overlap:.0%} overlap when mirrored)",
            "If they are, name them so (NAME_left, NAME_right), so that mirroring exchanges them",
        )
        for pair in unnamed_sides(cases, dataset.labels)
    ]
