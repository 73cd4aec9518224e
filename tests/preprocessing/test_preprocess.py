"""A dataset into the store: read once for all configurations, never twice, and one bad case fails alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data import reading
from autoseg.errors import DatasetError
from autoseg.files import Work
from autoseg.fingerprint import kinds
from autoseg.preprocessing.preprocess import case_key, preprocess
from autoseg.preprocessing.store import open_case, stored_cases

BOTH = ["2d", "3d_fullres"]


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The cases that were read, in order."""
    seen, original = [], reading.read_case

    def counted(files, *arguments, **named):
        seen.append(files.case)
        return original(files, *arguments, **named)

    monkeypatch.setattr(reading, "read_case", counted)
    return seen


def test_each_case_is_read_once_and_stored_for_all(make_dataset, planned, tmp_path, reads):
    made = planned(make_dataset(cases=3, spacing=(3.0, 1.0, 1.0), values=(2, 5)), configurations=BOTH)
    work, ticks = Work(tmp_path / "work"), []
    reads.clear()
    problems = preprocess(made.dataset, made.fingerprint, made.plan, work, configurations=BOTH, workers=0, on_case=ticks.append)
    names = [files.case for files in made.dataset.cases]
    assert problems == []
    assert reads == ticks == names
    for configuration in BOTH:
        assert stored_cases(work.store(configuration)) == names
    case = open_case(work.store("3d_fullres"), names[0])
    assert set(np.unique(case.labels())) == {0, 1, 2}
    assert len(case.locations[1]) == (case.labels() == 1).sum()
    reference = sitk.ReadImage(str(work.reference(names[0])))
    original = sitk.ReadImage(str(made.dataset.cases[0].label))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(reference), sitk.GetArrayFromImage(original))
    assert reference.GetSpacing() == pytest.approx(original.GetSpacing())


def test_each_file_is_read_once_for_the_fingerprint_and_once_for_all_configurations(make_dataset, planned, tmp_path, monkeypatch):
    opened, original = [], reading.read_pixels

    def counted(path, *arguments, **named):
        opened.append(path)
        return original(path, *arguments, **named)

    monkeypatch.setattr(reading, "read_pixels", counted)
    made = planned(make_dataset(cases=2, spacing=(3.0, 1.0, 1.0), channels=("T1", "T2")), configurations=BOTH)
    every = sorted(path for files in made.dataset.cases for path in files.files())
    assert len(every) == 6
    assert sorted(opened) == every
    opened.clear()
    assert preprocess(made.dataset, made.fingerprint, made.plan, Work(tmp_path / "work"), configurations=BOTH, workers=0) == []
    assert sorted(opened) == every


def test_storing_measures_nothing_that_the_fingerprint_knows(make_dataset, planned, tmp_path, monkeypatch):
    """Histograms of whole volumes are made once, for the fingerprint, however many channels and configurations there are."""
    folder = make_dataset(cases=2, spacing=(3.0, 1.0, 1.0), channels=("CT",))
    for path in (folder / "imagesTr").iterdir():
        sitk.WriteImage((sitk.ReadImage(str(path)) - 100) * 10, str(path))  # below -200: HU
    made = planned(folder, configurations=BOTH)
    assert {channel.kind for case in made.fingerprint.cases.values() for channel in case.channels} == {"hu"}

    def refuse(*_):
        raise AssertionError("a volume was described while it was stored")

    monkeypatch.setattr(kinds, "describe", refuse)
    work = Work(tmp_path / "work")
    assert preprocess(made.dataset, made.fingerprint, made.plan, work, configurations=BOTH, workers=0) == []
    assert stored_cases(work.store("2d")) == stored_cases(work.store("3d_fullres")) == ["case_00", "case_01"]


def test_nothing_is_done_twice_and_only_what_is_missing_is_done(make_dataset, planned, tmp_path, reads):
    made, work = planned(make_dataset(cases=3), configurations=BOTH), Work(tmp_path / "work")
    names = [files.case for files in made.dataset.cases]

    def run(plan=made.plan, configurations=("3d_fullres",)) -> list[str]:
        reads.clear()
        assert preprocess(made.dataset, made.fingerprint, plan, work, configurations=configurations, workers=0) == []
        return list(reads)

    assert run() == names
    assert run() == []
    (work.store("3d_fullres") / f"{names[1]}.json").unlink()  # as if killed before the case was whole
    assert run() == [names[1]]
    work.reference(names[2]).unlink()
    assert run() == [names[2]]
    assert run(configurations=BOTH) == names
    other = made.plan.model_copy(update={"training": made.plan.training.model_copy(update={"epochs": 7})})
    assert run(other, BOTH) == []  # what does not matter for the store makes no work
    part = other.configurations["3d_fullres"].model_copy(update={"spacing": [1.9, 1.1, 1.1]})
    assert run(other.model_copy(update={"configurations": {**other.configurations, "3d_fullres": part}}), BOTH) == names


def test_the_key_follows_voxels_grid_and_kind(make_dataset, planned):
    made = planned(make_dataset(cases=2))
    measures = next(iter(made.fingerprint.cases.values()))
    key = case_key(made.plan, "3d_fullres", measures)
    assert key == case_key(made.plan, "3d_fullres", measures)
    for change in ({"content_key": "x"}, {"label_key": "x"}, {"spacing": (1.0, 1.0, 1.1)}):
        assert case_key(made.plan, "3d_fullres", measures.model_copy(update=change)) != key


def test_a_case_that_went_bad_fails_alone(make_dataset, planned, tmp_path):
    made, work = planned(make_dataset(cases=3)), Work(tmp_path / "work")
    made.dataset.cases[1].images[0].write_bytes(b"no image")
    problems = preprocess(made.dataset, made.fingerprint, made.plan, work, configurations=["3d_fullres"], workers=0)
    assert [(p.case, p.severity) for p in problems] == [(made.dataset.cases[1].case, "error")]
    assert stored_cases(work.store("3d_fullres")) == [made.dataset.cases[0].case, made.dataset.cases[2].case]


def test_an_image_that_changed_since_the_fingerprint_is_not_stored_under_its_key(make_dataset, planned, tmp_path):
    made, work = planned(make_dataset(cases=2)), Work(tmp_path / "work")
    file = str(made.dataset.cases[0].images[0])
    sitk.WriteImage(sitk.ReadImage(file) + 1, file)
    problems = preprocess(made.dataset, made.fingerprint, made.plan, work, configurations=["3d_fullres"], workers=0)
    assert [(p.case, p.kind) for p in problems] == [("case_00", DatasetError.__name__)]


def test_workers_store_the_same(make_dataset, planned, tmp_path):
    made = planned(make_dataset(cases=3))
    for workers, name in ((0, "here"), (2, "there")):
        work = Work(tmp_path / name)
        assert preprocess(made.dataset, made.fingerprint, made.plan, work, configurations=["3d_fullres"], workers=workers) == []
    for case in ("case_00", "case_02"):
        here, there = (Work(tmp_path / name).store("3d_fullres") for name in ("here", "there"))
        np.testing.assert_allclose(open_case(here, case).image(), open_case(there, case).image(), atol=1e-5)
        np.testing.assert_array_equal(open_case(here, case).labels(), open_case(there, case).labels())
        notes = [json.loads((store / f"{case}.json").read_text()) for store in (here, there)]
        assert notes[0]["key"] == notes[1]["key"]


def test_real_hippocampus_cases_keep_their_class_volumes(shared_data, planned, tmp_path):
    """Resampling to the planned spacing must not grow or shrink a class by more than a few per cent."""
    made, work = planned(shared_data("hippocampus")), Work(tmp_path / "work")
    few = made.dataset.cases[:4]
    configuration = "3d_fullres"
    problems = preprocess(replace(made.dataset, cases=few), made.fingerprint, made.plan, work, configurations=[configuration], workers=0)
    assert problems == []
    for files in few:
        stored, measures = open_case(work.store(configuration), files.case), made.fingerprint.cases[files.case]
        for index, value in enumerate(made.plan.dataset.label_set().file_values):
            ml = (stored.labels() == index).sum() * np.prod(stored.spacing)
            assert ml == pytest.approx(measures.label_voxels[value] * np.prod(measures.spacing), rel=0.05)
