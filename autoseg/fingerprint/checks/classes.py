"""Classes that no case, few cases or few voxels show, and cases that show none."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from autoseg.data.case import Dataset
from autoseg.errors import Problem
from autoseg.fingerprint.checks.naming import some
from autoseg.fingerprint.sides import label_voxels
from autoseg.fingerprint.types import CaseMeasures, Fingerprint

TINY_VOXELS = 30  # median over the cases that show the class: one voxel more or less at the rim then moves Dice by .03
FEW_CASES = 5  # as many as there usually are folds


def empty_cases(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
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


def classes(dataset: Dataset, fingerprint: Fingerprint) -> list[Problem]:
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
    return [Problem("warning", "LabelError", f"{what}: {some(names)}", remedy) for names, what, remedy in rows if names]
