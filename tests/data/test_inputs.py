"""Whatever predict is given becomes cases; what the model cannot take is named and the others go on."""

from __future__ import annotations

import shutil

import pytest

from autoseg.data.folders.layouts import find_inputs
from autoseg.errors import DatasetError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(path, channels):
    cases, problems, _ = find_inputs(path, channels)
    return {c.case: [p.name for p in c.images] for c in cases}, {p.case: p.message for p in problems}


@pytest.mark.parametrize("name, case", [("x.nii.gz", "x"), ("x_0000.nii.gz", "x"), ("x_0003.nii.gz", "x_0003"), ("p.1.nrrd", "p.1")])
def test_a_single_file(tmp_path, name, case):
    touch(tmp_path, name, "other_0000.nii.gz")
    assert found(tmp_path / name, 1) == ({case: [name]}, {})


def test_a_single_file_of_several_channels_brings_its_neighbours(tmp_path):
    touch(tmp_path, "x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "whole.nii.gz")
    assert found(tmp_path / "x_0000.nii.gz", 2) == ({"x": ["x_0000.nii.gz", "x_0001.nii.gz"]}, {})
    assert found(tmp_path / "whole.nii.gz", 2) == ({"whole": ["whole.nii.gz"]}, {})
    assert "missing channel _0001" in found(tmp_path / "y_0000.nii.gz", 2)[1]["y"]


def test_a_folder_of_own_names_or_of_suffixes(tmp_path):
    touch(tmp_path / "own", "b.nii.gz", "a.nrrd", "frame_0001.png", "notes.txt")
    assert found(tmp_path / "own", 1) == ({"a": ["a.nrrd"], "b": ["b.nii.gz"], "frame_0001": ["frame_0001.png"]}, {})
    touch(tmp_path / "suffix", "b_0000.nii.gz", "a_0000.nrrd")
    assert list(found(tmp_path / "suffix", 1)[0]) == ["a", "b"]
    touch(tmp_path / "frames", "f_0001.png", "f_0002.png")
    assert list(found(tmp_path / "frames", 1)[0]) == ["f_0001", "f_0002"]


def test_missing_and_surplus_channels_are_named_and_the_others_go_on(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz", "c_0002.nii.gz", "d.nii.gz")
    cases, problems = found(tmp_path, 2)
    assert list(cases) == ["a", "d"] and "missing channel _0001" in problems["b"] and "surplus channel _0002" in problems["c"]
    for name in ("b_0000.nii.gz", "d.nii.gz"):
        (tmp_path / name).unlink()
    assert list(found(tmp_path, 1)[1]) == ["a", "c"]


def test_case_folders_leave_label_maps_out(tmp_path):
    touch(tmp_path, "k1/imaging.nii.gz", "k1/segmentation.nii.gz", "k2/x_0000.nii.gz", "k3/a.nii.gz", "k3/b.nii.gz", "empty/notes.txt")
    cases, problems = found(tmp_path, 1)
    assert cases == {"k1": ["imaging.nii.gz"], "k2": ["x_0000.nii.gz"]} and list(problems) == ["k3"]


def test_dicom_series_alone_and_among_files(tmp_path, shared_data):
    series = shared_data("formats") / "dicom_ct"
    assert found(series, 1) == ({"dicom_ct": ["dicom_ct"]}, {})
    shutil.copytree(series, tmp_path / "scan1")
    shutil.copytree(series, tmp_path / "scan2" / "series")
    touch(tmp_path, "x.nii.gz")
    assert found(tmp_path, 1) == ({"scan1": ["scan1"], "scan2": ["series"], "x": ["x.nii.gz"]}, {})


def test_nothing_to_predict_is_refused(tmp_path, make_dataset):
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_inputs(tmp_path / "none", 1)
    touch(tmp_path / "texts", "notes.txt")
    with pytest.raises(DatasetError, match=r"no image is in it \(it holds notes.txt\)"):
        find_inputs(tmp_path / "texts", 1)
    with pytest.raises(DatasetError, match="it is a dataset"):
        find_inputs(make_dataset(cases=1), 1)
