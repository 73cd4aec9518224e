"""A PACS export: a folder tree of studies and series, with or without DICOMDIR, to numbered cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.case import CaseFiles, SeriesChoice
from autoseg.data.choices import Choices
from autoseg.data.folders.pairing import Found, settle
from autoseg.data.formats.dicom.headers import INSTALL, Annotation, every_dicom_file, read_headers
from autoseg.data.formats.dicom.series import DicomImage, chosen, images_of, matching, problem_of
from autoseg.data.key import CaseIdentity, Key
from autoseg.data.names import is_dicom, split_ending, without_label_suffix
from autoseg.errors import AutosegError, Problem

Study = tuple[str, str]  # patient and StudyInstanceUID


@dataclass(frozen=True)
class Export:
    """What lies in a folder tree of DICOM files.

    studies: (patient, study) -> its images by series number; patients and their studies in the order of their files.
    damaged, frames_unread: how many files cannot be read, and how many are multi-frame where pydicom is not installed.
    """

    folder: Path
    studies: dict[Study, tuple[DicomImage, ...]]
    annotations: tuple[Annotation, ...] = ()
    damaged: int = 0
    frames_unread: int = 0


@dataclass(frozen=True)
class ExportCases:
    """The cases of an export: one a chosen image, or one a study where several patterns choose channels.

    groups: case -> patient, by number.
    key: whom the numbers stand for; it holds the numbers that were given before too.
    """

    cases: tuple[CaseFiles, ...]
    groups: dict[str, str]
    key: Key
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class SeriesRow:
    """A line of the table of series. case: the case that the image becomes; note: what keeps it from being one."""

    patient: int
    study: int
    series: str
    description: str
    modality: str
    slices: int
    spacing: tuple[float, float, float] | None
    matrix: tuple[int, int, int]
    case: str
    note: str


def look_through(folder: Path, *, workers: int | None = None) -> Export:
    """Read the headers of every DICOM file under a folder."""
    headers = read_headers(every_dicom_file(folder), workers=workers)
    studies: dict[Study, list[DicomImage]] = {}
    for plane in headers.slices:
        studies.setdefault((plane.patient or plane.study, plane.study), [])
    for image in images_of(headers.slices):
        studies[image.first.patient or image.first.study, image.first.study].append(image)
    patients = list(dict.fromkeys(patient for patient, _ in studies))
    ordered = {study: tuple(studies[study]) for study in sorted(studies, key=lambda study: patients.index(study[0]))}
    return Export(folder, ordered, headers.annotations, len(headers.damaged), len(headers.frames_unread))


def export_cases(export: Export, choices: Choices, key: Key, *, labels: bool) -> ExportCases:
    """The cases that the patterns choose, by numbers of our own or, with `keep_ids`, by patient and series.

    A study in which a pattern fits nothing is left out without a word, unless another one of its channels is there.

    Args:
        key: numbers that were given before; they stay.
        labels: pair each case with its label map; one without is a problem.
    """
    key = key.with_patients(patient for patient, _ in export.studies)
    found: dict[str, tuple[DicomImage, ...]] = {}
    problems: list[Problem] = list(_unread(export))
    for study, sets in _choose(export, choices, key, problems):
        for images in sets:
            identity = CaseIdentity(*study, tuple(image.key for image in images))
            if choices.keep_ids:
                name = _by_ids(images, found)
            else:
                key, name = key.with_case(identity)
            found[name] = images
    files = {name: Found(whole=[export.folder]) for name in found}
    if labels:
        problems += _pair_labels(export, found, files)
        good, unpaired = settle(files, 1)
        problems += unpaired
    else:
        good = [CaseFiles(name, (export.folder,)) for name in found]
    cases = tuple(
        CaseFiles(
            files.case,
            (export.folder,) * len(found[files.case]),
            files.label,
            tuple(SeriesChoice(planes=tuple((plane.path, plane.frame) for plane in image.slices)) for image in found[files.case]),
            private=not choices.keep_ids,
        )
        for files in good
    )
    if not choices.keep_ids:
        problems = [Problem(p.severity, p.kind, p.message, p.remedy, p.case) for p in problems]
    groups = {name: f"patient_{key.patients[_patient(images)]:04d}" for name, images in found.items()}
    return ExportCases(cases, groups, key, tuple(problems))


def is_labelled(export: Export) -> bool:
    """Whether any label map or DICOM annotation lies among the studies."""
    return bool(export.annotations or _label_maps(export.folder))


def series_table(export: Export, key: Key, cases: Iterable[CaseFiles]) -> list[SeriesRow]:
    """Every image of an export, with the case that it becomes and what is wrong with it.

    Args:
        cases: whose images are folders of this export; `export_cases` names their planes, of others the patterns choose.
    """
    key = key.with_patients(patient for patient, _ in export.studies)
    becomes = _becomes(export, cases)
    rows: list[SeriesRow] = []
    seen: Counter[str] = Counter()
    for (patient, _), images in export.studies.items():
        seen[patient] += 1
        for image in images:
            first, problem = image.first, problem_of(image)
            note = "localiser" if image.is_localiser else problem.message if problem else ""
            text = f"{first.description} ({image.distinction})" if image.distinction else first.description
            line = (key.patients[patient], seen[patient], image.number, text, first.modality, len(image.slices))
            rows.append(SeriesRow(*line, image.spacing, image.matrix, becomes.get((first.path, first.frame), ""), note))
    return rows


def _becomes(export: Export, cases: Iterable[CaseFiles]) -> dict[tuple[Path, int | None], str]:
    """The case that each plane belongs to."""
    found: dict[tuple[Path, int | None], str] = {}
    everything = [image for images in export.studies.values() for image in images]
    for files in cases:
        for number, folder in enumerate(files.images):
            choice = files.choice(number)
            planes = choice.planes
            if not planes and folder.is_dir():
                there = matching((image for image in everything if folder in image.first.path.parents), choice.pattern)
                planes = tuple((plane.path, plane.frame) for plane in there[0].slices) if len(there) == 1 else ()
            found |= dict.fromkeys(planes, files.case)
    return found


def table_text(rows: Sequence[SeriesRow]) -> str:
    """The table for people; spacing and matrix stand in the order z, y, x."""
    head = ("patient", "study", "series", "description", "modality", "slices", "spacing", "matrix", "case", "note")
    lines = [head]
    for row in rows:
        spacing = " x ".join(f"{value:.3g}" for value in row.spacing) if row.spacing else ""
        matrix = " x ".join(map(str, row.matrix))
        numbers = (str(row.patient), str(row.study), row.series, row.description[:48], row.modality, str(row.slices))
        lines.append((*numbers, spacing, matrix, row.case, row.note))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _unread(export: Export) -> Iterable[Problem]:
    if export.damaged:
        message = f"{export.damaged} of its DICOM files cannot be read"
        yield Problem("warning", "UnreadableFileError", message, "Copy or export them again")
    if export.frames_unread:
        message = f"{export.frames_unread} of its DICOM files are multi-frame, which needs pydicom, and left out"
        yield Problem("warning", "UnreadableFileError", message, f"Run {INSTALL}")


def _choose(export: Export, choices: Choices, key: Key, problems: list[Problem]) -> Iterable[tuple[Study, list[tuple[DicomImage, ...]]]]:
    """For each study its sets of images, each of which is a case; what cannot be told is added to `problems`."""
    seen: Counter[str] = Counter()
    for study, images in export.studies.items():
        seen[study[0]] += 1
        patterns = choices.series or ("",)
        fitting = [matching(images, pattern) for pattern in patterns]
        if not any(fitting) or (not choices.series and all(image.is_localiser for image in images)):
            continue
        if len(choices.series) == 1:
            yield study, [(image,) for image in fitting[0]]
            continue
        try:
            yield study, [tuple(chosen(images, pattern, named=export.folder) for pattern in patterns)]
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(f"patient {key.patients[study[0]]}, study {seen[study[0]]}")))


def _patient(images: Sequence[DicomImage]) -> str:
    return images[0].first.patient or images[0].first.study


def _by_ids(images: Sequence[DicomImage], taken: Iterable[str]) -> str:
    """PatientID_sSERIESNUMBER in letters that file names can have, with a number behind it where another case is called so."""
    name = f"{re.sub(r'[^A-Za-z0-9.-]+', '-', _patient(images)).strip('-.') or 'patient'}_s{images[0].number}"
    same = sum(other == name or other.startswith(f"{name}_again") for other in taken)
    return f"{name}_again{same}" if same else name


def _pair_labels(export: Export, found: dict[str, tuple[DicomImage, ...]], files: dict[str, Found]) -> list[Problem]:
    """Notes each case's label maps in `files`.

    A label map belongs to a case if it is called like the case, its series, study, accession or patient; if it is a DICOM annotation
    that refers to its series; or if it lies in a folder under which, of all cases, only that one has its slices.
    """
    names: dict[str, set[str]] = {}
    below: dict[Path, set[str]] = {}
    series: dict[str, set[str]] = {}
    for case, images in found.items():
        first = images[0].first
        for name in (case, first.study, first.accession, first.patient, *(image.first.series for image in images)):
            names.setdefault(name, set()).add(case)
        for image in images:
            series.setdefault(image.first.series, set()).add(case)
            for parent in {parent for plane in image.slices for parent in plane.path.parents}:
                below.setdefault(parent, set()).add(case)
    lost = 0
    for annotation in export.annotations:
        owners = set().union(*(series.get(uid, set()) for uid in annotation.of_series)) or below.get(annotation.path.parent, set())
        lost += _give(owners, annotation.path, files)
    for path in _label_maps(export.folder):
        stem = split_ending(path.name)[0]
        owners = names.get(stem) or names.get(without_label_suffix(stem)) or below.get(path.parent, set())
        lost += _give(owners, path, files)
    message = f"{lost} label map{'' if lost == 1 else 's'} can be given to no case, or not to one alone"
    remedy = "Name each like its case (see autoseg doctor) or its series, study or patient, or put it beside the slices"
    return [Problem("warning", "DatasetError", message, remedy)] if lost else []


def _give(owners: set[str], path: Path, files: dict[str, Found]) -> int:
    """Notes a label map for its one owner; 1 if it has none or several."""
    if len(owners) != 1:
        return 1
    files[next(iter(owners))].labels.append(path)
    return 0


def _label_maps(folder: Path) -> list[Path]:
    """The image files under a folder that are not DICOM."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if split_ending(path.name)[1] not in ("", ".dcm") and not path.name.startswith(".") and path.is_file() and not is_dicom(path)
    ]
