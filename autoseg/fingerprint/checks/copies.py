"""Images that occur twice, nearly twice, or as several scans of one patient, and sections of one block: what makes folds leak."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from autoseg.errors import Problem
from autoseg.fingerprint.checks.naming import some
from autoseg.fingerprint.sections import serial_sections
from autoseg.fingerprint.signature import near_duplicates
from autoseg.fingerprint.types import CaseMeasures

MOST_SCANS = 10  # of one patient; more cases that share the start of their ids are a series of another kind
# Copies that were rescaled, requantised, windowed, cropped by up to five voxels a side or made noisy reach .94 to 1 on chest CT,
# brain, heart and hippocampus MR and electron microscopy; different patients .92 at most (skull-stripped brains), left and right
# hippocampus of one person .87, neighbouring sections .63.
LIKENESS = 0.94
SERIAL_GAIN = 0.2  # as the recipe `auto` has it in rules.sections


def same_images(cases: Mapping[str, CaseMeasures], groups: Mapping[str, str]) -> list[Problem]:
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
                f"{some(names)} hold the same image {labels}",
                "Remove all but one, or put them in one group (groups.csv), so that no fold is tested on what it trained on",
                case=names[1],
            )
        )
    return rows


def near_copies(cases: Mapping[str, CaseMeasures], groups: Mapping[str, str]) -> list[Problem]:
    """Cases with nearly the same image that no group ties together; sections of one stack are meant to be alike."""
    sections = serial_sections(cases)
    stack = {name: run for run, names in enumerate(sections.stacks) for name in names} if sections and sections.gain >= SERIAL_GAIN else {}
    pairs = []
    for one, other, likeness in near_duplicates({name: case.signature for name, case in cases.items() if case.signature}, LIKENESS):
        tied = one in groups and groups[one] == groups.get(other)
        same = cases[one].content_key == cases[other].content_key
        if not (tied or same or (one in stack and stack[one] == stack.get(other))):
            pairs.append((one, other, likeness))
    return [_near_copy(names, least) for names, least in _joined(pairs)]


def _near_copy(names: list[str], likeness: float) -> Problem:
    return Problem(
        "warning",
        "DatasetError",
        f"{some(names)} show nearly the same image ({likeness:.0%} alike once laid on each other)",
        "Look at them: remove all copies but one, or put scans of one patient in one group (groups.csv), so that no fold is tested on "
        "what it trained on",
        case=names[1],
    )


def _joined(pairs: Iterable[tuple[str, str, float]]) -> list[tuple[list[str], float]]:
    """Cases that pairs tie together, directly or through others, with the least likeness of those pairs."""
    clusters: list[tuple[set[str], float]] = []
    for one, other, likeness in pairs:
        touched = [cluster for cluster in clusters if {one, other} & cluster[0]]
        clusters = [cluster for cluster in clusters if cluster not in touched]
        clusters.append((set().union({one, other}, *(names for names, _ in touched)), min(likeness, *(low for _, low in touched), 1.0)))
    return [(sorted(names), low) for names, low in clusters]


def serial(cases: Mapping[str, CaseMeasures], groups: Mapping[str, str]) -> list[Problem]:
    """2D images that are the neighbours of each other."""
    found = serial_sections(cases)
    if groups or found is None or found.gain < SERIAL_GAIN:
        return []
    runs = "one run" if len(found.stacks) == 1 else f"{len(found.stacks)} runs"
    return [
        Problem(
            "warning",
            "DatasetError",
            f"the {len(cases)} images are numbered in {runs}, and neighbours are alike (correlation {found.neighbours:.2f}, of images far "
            f"apart {found.apart:.2f}): they are sections of one block or slices of volumes",
            "Nothing need be done: recipe auto holds out runs of neighbours together; nnU-Net's folds would test each on its neighbours",
        )
    ]


def suggested_groups(names: Iterable[str]) -> dict[str, str]:
    """Case -> patient, for ids that differ only in their last part, as `P07_t0` and `P07_t1` do; {} where ids say nothing of the kind."""
    by_start = defaultdict(list)
    for name in names:
        if (start := _patient(name)) is not None:
            by_start[start].append(name)
    several = {start: scans for start, scans in by_start.items() if len(scans) > 1}
    if not several or len(by_start) < 2 or max(map(len, several.values())) > MOST_SCANS:
        return {}
    return {name: start for start, scans in several.items() for name in scans}


def _patient(name: str) -> str | None:
    """The part of an id that may name a patient: BIDS subjects, or what stands before the last part, if it holds a number."""
    if (bids := re.match(r"(sub-[A-Za-z0-9]+)_ses-", name)) is not None:
        return bids[1]
    start = re.sub(r"[^A-Za-z0-9]+(?:[A-Za-z]*\d{0,3}|\d{4}-?\d{2}-?\d{2})$", "", name)
    return start if start != name and re.search(r"\d", start) else None


def scans_of_one_patient(cases: Mapping[str, CaseMeasures], groups: Mapping[str, str]) -> list[Problem]:
    """Ids that look like several scans of one patient, where the user has said nothing about groups."""
    if groups or not (suggested := suggested_groups(cases)):
        return []
    scans = defaultdict(list)
    for name, patient in suggested.items():
        scans[patient].append(name)
    examples = "; ".join(", ".join(names[:3]) for names in list(scans.values())[:3])
    return [
        Problem(
            "question",
            "DatasetError",
            f"ids of {len(suggested)} cases look like several scans of one patient: {examples}",
            "If they are, tie them together in groups.csv (`autoseg doctor --groups` prints one), so that no fold is tested on a patient "
            "that it trained on",
        )
    ]
