"""A PACS export becomes numbered cases with their label maps; whom the numbers stand for is written in the key alone."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.case import LabelMap
from autoseg.data.choices import Choices, kept_choices, settled_choices
from autoseg.data.folders.export import export_cases, look_through, series_table, table_text
from autoseg.data.folders.inputs import find_inputs
from autoseg.data.folders.layouts import EXPORT, is_export, open_dataset
from autoseg.data.key import CaseIdentity, Key, read_key, write_key
from autoseg.data.reading import read_case
from autoseg.data.writing import write_labels
from autoseg.errors import DatasetError, PlanError, UnreadableFileError
from autoseg.files import write_json
from autoseg.geometry import Grid
from tests.dicom_phantoms import write_report, write_series

PATIENTS = ("MEIER^ANNA 4711", "SMITH^JOHN 0815", "ABE^KEN 99")
STUDIES = ("1.2.1", "1.2.2", "1.2.3", "1.2.4")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three patients, the first with two studies; in each a scout, T1 and T2 in folders as PACS name them."""
    pytest.importorskip("pydicom")
    folder = tmp_path_factory.mktemp("made") / "export"
    patients = (PATIENTS[0], PATIENTS[0], PATIENTS[1], PATIENTS[2])
    for number, (patient, study) in enumerate(zip(patients, STUDIES, strict=True)):
        place = folder / f"PA{number:06d}" / "ST000000"
        about = {"patient": patient, "study": study, "size": (14, 12), "origin": (0, 0, 10.0 * number)}
        write_series(place / "SE000000", series=f"{study}.1", number=1, description="scout", slices=2, **about)
        write_series(place / "SE000001", series=f"{study}.2", number=2, description="T1 axial", slices=6, **about)
        write_series(place / "SE000002", series=f"{study}.3", number=3, description="T2 axial", slices=6, add=400, **about)
        write_report(place / "SR000000")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    return folder


@pytest.fixture
def export(made, tmp_path) -> Path:
    """The test's own copy, to change."""
    return shutil.copytree(made, tmp_path / "export")


def labels_for(study: str, path: Path) -> Path:
    """A label map on the grid of the study's scans."""
    grid = Grid((6, 14, 12), (2.0, 0.8, 0.7), (0, 0, 10.0 * STUDIES.index(study)))
    write_labels(path, LabelMap((np.indices(grid.shape).sum(0) % 3 == 0).astype(np.uint8), grid))
    return path


def cases(folder: Path, *series: str, keep_ids: bool = False, key: Key | None = None):
    return export_cases(look_through(folder), Choices(series, keep_ids), key or Key(), labels=False)


def test_studies_become_numbered_cases_grouped_by_patient(export):
    found = cases(export, "T1*")
    assert [files.case for files in found.cases] == [f"case_{n:04d}" for n in (1, 2, 3, 4)]
    assert found.groups == {
        "case_0001": "patient_0001",
        "case_0002": "patient_0001",
        "case_0003": "patient_0002",
        "case_0004": "patient_0003",
    }
    assert {files.images[0].name for files in found.cases} == {"export"} and all(files.private for files in found.cases)
    assert [identity.images for identity in found.key.cases.values()] == [((f"1.2.{n}.2", 0),) for n in (1, 2, 3, 4)]
    case = read_case(found.cases[1], 1, orientation="as_stored")
    assert case.stored.shape == (6, 14, 12) and case.stored.origin == (0, 0, 10.0)


def test_several_patterns_are_channels_of_one_case_a_study(export):
    found = cases(export, "T2*", "2")
    case = read_case(found.cases[0], 2, orientation="lps")
    assert len(found.cases) == 4 and (case.image.voxels[0] - case.image.voxels[1] == 400).all()
    found = cases(export, "T1*", "PD*")
    assert not found.cases and found.problems[0].case == "patient 1, study 1" and "none fits" in found.problems[0].message


def test_without_a_pattern_a_study_with_several_scans_is_told(export):
    found = cases(export)
    assert not found.cases and len(found.problems) == 4
    assert found.problems[1].case == "patient 1, study 2" and "3 DICOM series lie together" in found.problems[1].message
    for series in export.rglob("SE000002"):
        shutil.rmtree(series)
    assert len(cases(export).cases) == 4


def test_numbers_last_when_patients_come(export):
    before = cases(export, "T1*")
    write_series(export / "AA", patient="AAA", study="1.1.1", series="1.1.1.2", description="T1 axial")
    after = cases(export, "T1*", key=before.key)
    new = [name for name in after.key.cases if name not in before.key.cases]
    assert new == ["case_0005"] and {n: after.key.cases[n] for n in before.key.cases} == before.key.cases
    assert after.groups["case_0005"] == "patient_0004" and {n: after.groups[n] for n in before.groups} == before.groups


def test_keep_ids_calls_cases_by_patient_and_series(export):
    found = cases(export, "T1*", keep_ids=True)
    assert [files.case for files in found.cases] == [
        "MEIER-ANNA-4711_s2",
        "MEIER-ANNA-4711_s2_again1",
        "SMITH-JOHN-0815_s2",
        "ABE-KEN-99_s2",
    ]
    assert not any(files.private for files in found.cases) and found.key.cases == {}


WAYS = {
    "the case": lambda case, study: case,
    "the series": lambda case, study: f"{study}.2",
    "the study": lambda case, study: f"{study}_seg",
}


@pytest.mark.parametrize("way", WAYS)
def test_label_maps_are_called_like(export, way):
    for number, study in enumerate(STUDIES, start=1):
        labels_for(study, export / "labels" / f"{WAYS[way](f'case_{number:04d}', study)}.nii.gz")
    dataset = open_dataset(export, choices=Choices(("T1*",)))
    assert dataset.layout == EXPORT and len(dataset.cases) == 4 and dataset.problems == ()
    assert dataset.groups["case_0002"] == "patient_0001"
    for files in dataset.cases:
        assert read_case(files, 1, orientation="lps").labels.voxels.max() == 1


def test_label_maps_called_like_the_patient_or_lying_beside_the_slices(export):
    labels_for("1.2.3", export / "labels" / f"{PATIENTS[1]}.nii.gz")
    labels_for("1.2.4", export / "PA000003" / "ST000000" / "SE000001" / "anything.nii.gz")
    labels_for("1.2.1", export / "labels" / f"{PATIENTS[0]}.nii.gz")  # two studies: whose?
    dataset = open_dataset(export, choices=Choices(("T1*",)))
    assert [files.case for files in dataset.cases] == ["case_0003", "case_0004"]
    told = {(p.severity, p.case): p.message for p in dataset.problems}
    assert told[("warning", None)].startswith("1 label map can be given to no case")
    assert told[("error", "case_0001")] == told[("error", "case_0002")] == "an image without label map"
    text = " ".join(f"{p.message} {p.file} {p.case}" for p in dataset.problems)
    assert not any(part in text for patient in PATIENTS for part in patient.replace("^", " ").split())


def test_no_message_names_a_file_that_could_be_called_like_a_patient(export):
    label = export / "labels" / f"{PATIENTS[1]}.nii.gz"
    label.parent.mkdir()
    label.write_text("nothing")
    files = open_dataset(export, choices=Choices(("T1*",))).cases[0]
    with pytest.raises(UnreadableFileError) as caught:
        read_case(files, 1, orientation="lps")
    assert caught.value.file is None and str(caught.value).startswith("case case_0003: it is not a NIfTI file")


def test_no_message_names_a_slice_either(export):
    files = cases(export, "T1*").cases[0]
    slice_ = files.series[0].planes[2][0]
    renamed = slice_.rename(slice_.with_name("MEIER_ANNA_3.dcm"))
    renamed.write_bytes(renamed.read_bytes()[:-100])
    with pytest.raises(UnreadableFileError, match="cannot be read") as caught:
        read_case(cases(export, "T1*").cases[0], 1, orientation="lps")
    assert "MEIER" not in str(caught.value) and str(export) not in str(caught.value)


def test_a_folder_a_case_may_hold_several_series(export, tmp_path):
    folder = tmp_path / "cases"
    for number, study in ((0, "1.2.1"), (2, "1.2.3")):
        shutil.copytree(export / f"PA{number:06d}", folder / f"subject{number}")
        labels_for(study, folder / f"subject{number}" / "segmentation.nii.gz")
    dataset = open_dataset(folder, choices=Choices(("T2*",)))
    assert dataset.layout == "case folders" and [files.case for files in dataset.cases] == ["subject0", "subject2"] and dataset.key is None
    assert read_case(dataset.cases[1], 1, orientation="lps").labels is not None
    with pytest.raises(DatasetError, match="case subject0, ST000000: 3 DICOM series lie together"):
        read_case(open_dataset(folder).cases[0], 1, orientation="lps")


def test_images_in_folders_of_studies_beside_a_folder_of_labels(export, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(export / "PA000002", folder / "images" / "anna")
    labels_for("1.2.3", folder / "labels" / "anna.nii.gz")
    dataset = open_dataset(folder, choices=Choices(("T1*",)))
    assert dataset.layout == "two folders" and read_case(dataset.cases[0], 1, orientation="lps").labels is not None


def test_the_table_shows_series_without_naming_anybody(export):
    found = look_through(export)
    chosen = export_cases(found, Choices(("T1*",)), Key(), labels=False)
    rows = series_table(found, chosen.key, chosen.cases)
    assert [(r.patient, r.study, r.series) for r in rows[:6]] == [
        (1, 1, "1"),
        (1, 1, "2"),
        (1, 1, "3"),
        (1, 2, "1"),
        (1, 2, "2"),
        (1, 2, "3"),
    ]
    first = rows[1]
    assert (first.description, first.modality, first.slices, first.case, first.note) == ("T1 axial", "MR", 6, "case_0001", "")
    assert first.spacing == pytest.approx((2.0, 0.8, 0.7)) and first.matrix == (6, 14, 12) and rows[0].note == "localiser"
    text = table_text(rows)
    assert len(text.splitlines()) == 13 and not any(part in text for patient in PATIENTS for part in patient.replace("^", " ").split())


def test_predict_takes_an_export_by_the_same_choice_and_keeps_known_numbers(export):
    known = cases(export, "T1*").key
    found = find_inputs(export, 1, choices=Choices(("T1*",)), key=known)
    assert [files.case for files in found.cases] == list(known.cases) and found.problems == [] and found.key.cases == known.cases
    with pytest.raises(DatasetError, match=r"no series in it fits --series FLAIR\*"):
        find_inputs(export, 1, choices=Choices(("FLAIR*",)), key=known)


def test_predict_calls_a_folder_of_one_image_by_its_name(export):
    found = find_inputs(export / "PA000001" / "ST000000" / "SE000001", 1, choices=Choices(("T1*",)))
    assert [files.case for files in found.cases] == ["SE000001"]
    (export / "DICOMDIR").unlink()
    shutil.rmtree(export / "PA000000")
    found = find_inputs(export, 1, choices=Choices(("T1*",)))
    assert [files.case for files in found.cases] == ["PA000001", "PA000002", "PA000003"] and found.key == Key()
    assert all(read_case(files, 1, orientation="lps").stored.shape == (6, 14, 12) for files in found.cases)


def test_an_export_is_told_from_other_layouts(export, tmp_path, make_dataset):
    assert is_export(export) and not is_export(make_dataset()) and not is_export(tmp_path / "none_such")


def test_the_key_is_for_its_owner_alone(tmp_path):
    key = Key({"MEIER": 1}, {"case_0001": CaseIdentity("MEIER", "1.2", (("1.2.3", 0), ("1.2.4", 2)))})
    write_key(tmp_path / "key.json", key)
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600
    assert read_key(tmp_path / "key.json") == key and read_key(tmp_path / "none.json") == Key()
    assert "MEIER" not in repr(key)
    assert key.of_cases(["case_0001"]) == key and key.of_cases([]) == Key()


def test_choices_last(tmp_path):
    file = tmp_path / "dataset.json"
    assert settled_choices(Choices(("a",)), file) == Choices(("a",)) and kept_choices(file) == Choices()
    write_json(file, "dataset", {"choices": Choices(("a",), True).as_json()})
    assert settled_choices(Choices(), file) == Choices(("a",), True) == settled_choices(Choices(("a",)), file)
    with pytest.raises(PlanError, match="--series is b, when the plan was made it was a"):
        settled_choices(Choices(("b",)), file)
    assert settled_choices(Choices(("b",)), file, replan=True) == Choices(("b",), True)
    write_json(file, "dataset", {})
    with pytest.raises(PlanError, match="it was not given"):
        settled_choices(Choices(keep_ids=True), file)
