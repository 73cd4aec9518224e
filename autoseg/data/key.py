"""Numbers of our own for patients and cases of a DICOM export, and the file that alone says whom they stand for.

The key is written readable for its owner only, and no other file, message or log repeats what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.files import appears_whole, read_json, to_json_text

KEY_NAME = "key.json"
"""Its name in WORK, and in an OUTPUT of predict for cases that WORK doesn't know."""

Image = tuple[str, int]
"""A series' UID and the part of it, as `autoseg.data.formats.dicom.series.DicomImage.key`."""


@dataclass(frozen=True)
class Key:
    """Whom numbers stand for; it doesn't show itself when printed.

    patients: PatientID -> number. cases: case -> its images, one a channel, with PatientID and StudyInstanceUID.
    """

    patients: dict[str, int] = field(default_factory=dict, repr=False)
    cases: dict[str, CaseIdentity] = field(default_factory=dict, repr=False)

    def with_patients(self, ids: Iterable[str]) -> Key:
        """The key with a number for each patient; those that have one keep it, others follow in the given order."""
        patients = dict(self.patients)
        for patient in ids:
            patients.setdefault(patient, max(patients.values(), default=0) + 1)
        return Key(patients, self.cases)

    def with_case(self, identity: CaseIdentity) -> tuple[Key, str]:
        """The key with a number for a case, and the case's name: the one that it has, or the next."""
        known = next((name for name, other in self.cases.items() if other.images == identity.images), None)
        if known:
            return self, known
        name = f"case_{1 + max((int(name.removeprefix('case_')) for name in self.cases), default=0):04d}"
        return Key(self.patients, {**self.cases, name: identity}), name

    def of_cases(self, names: Iterable[str]) -> Key:
        """What it says of some cases and their patients."""
        cases = {name: self.cases[name] for name in names if name in self.cases}
        return Key({patient: self.patients[patient] for patient in {c.patient for c in cases.values()} & set(self.patients)}, cases)


@dataclass(frozen=True)
class CaseIdentity:
    """The DICOM identifiers that a case's number stands for."""

    patient: str
    study: str
    images: tuple[Image, ...]


def read_key(path: Path) -> Key:
    """A key that `write_key` wrote; an empty one where there is no file.

    Raises:
        PlanError: it cannot be read.
    """
    if not path.is_file():
        return Key()
    content = read_json(path, "key")
    cases = {
        name: CaseIdentity(case["patient_id"], case["study_uid"], tuple((uid, int(part)) for uid, part in case["series_uids"]))
        for name, case in content["cases"].items()
    }
    return Key({str(patient): int(number) for patient, number in content["patients"].items()}, cases)


def key_as_json(key: Key) -> dict[str, Any]:
    """A key in the form of key.json; the number behind a series' UID is which of its images is meant, 0 the only one."""
    cases = {
        name: {"patient_id": case.patient, "study_uid": case.study, "series_uids": [list(image) for image in case.images]}
        for name, case in key.cases.items()
    }
    return {"patients": key.patients, "cases": cases}


def write_key(path: Path, key: Key) -> None:
    """Write a key, whole or not at all, for nobody to read but its owner."""
    text = to_json_text("key", key_as_json(key))
    with appears_whole(path) as beside:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
