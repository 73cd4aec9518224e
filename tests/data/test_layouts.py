"""Four layouts, recognised by content; what does not fit is named and left out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from autoseg.data.case import LabelMap, Volume
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.reading import read_case
from autoseg.data.writing import write_labels, write_volume
from autoseg.errors import DatasetError, LabelError
from autoseg.geometry import Grid

GRID = Grid((3, 4, 5))


def image(path, channels=1):
    write_volume(path, Volume(np.random.default_rng(0).normal(size=(channels, *GRID.shape)).astype(np.float32), GRID))


def label(path):
    write_labels(path, LabelMap((np.arange(60).reshape(GRID.shape) % 2).astype(np.uint8), GRID))


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def describe(folder, **content):
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def ids(dataset):
    return [c.case for c in dataset.cases]


def test_nnunet_layout(make_dataset):
    dataset = open_dataset(make_dataset(cases=3, channels=("T1", "T2")))
    assert dataset.layout == "nnU-Net" and ids(dataset) == ["case_00", "case_01", "case_02"] and dataset.problems == ()
    assert dataset.channels == ("T1", "T2") and dataset.labels.names == ("front", "back")
    assert [p.name for p in dataset.cases[1].images] == ["case_01_0000.nii.gz", "case_01_0001.nii.gz"]
    assert dataset.cases[1].label.name == "case_01.nii.gz"


def test_nnunet_dataset_mapping_with_paths(tmp_path):
    folder = tmp_path / "raw"
    describe(
        folder,
        channel_names={"0": "a", "1": "b"},
        labels={"background": 0, "x": 1},
        dataset={
            "p2": {"images": ["../elsewhere/i1.nrrd", "../elsewhere/i2.nrrd"], "label": "../elsewhere/l.nrrd"},
            "p1": {"images": ["i1.nrrd", "i2.nrrd"]},
        },
    )
    for n in "12":
        image(tmp_path / "elsewhere" / f"i{n}.nrrd")
    label(tmp_path / "elsewhere" / "l.nrrd")
    dataset = open_dataset(folder)
    assert dataset.layout == "nnU-Net" and ids(dataset) == ["p2"] and dataset.problems[0].case == "p1"
    assert read_case(dataset.cases[0], 2, orientation="lps").image.voxels.shape == (2, 3, 4, 5)


def test_decathlon_layout_with_four_dimensional_files(tmp_path):
    describe(
        tmp_path,
        name="BRATS",
        modality={"0": "FLAIR", "1": "T1w"},
        labels={"0": "background", "1": "edema"},
        training=[
            {"image": "./imagesTr/B_2.nii.gz", "label": "./labelsTr/B_2.nii.gz"},
            {"image": "./imagesTr/B_1.nii.gz", "label": "./labelsTr/B_1.nii.gz"},
        ],
    )
    for n in "12":
        image(tmp_path / "imagesTr" / f"B_{n}.nii.gz", channels=2)
        label(tmp_path / "labelsTr" / f"B_{n}.nii.gz")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "Decathlon" and ids(dataset) == ["B_1", "B_2"] and dataset.channels == ("FLAIR", "T1w")
    assert dataset.name == "BRATS" and dataset.labels.names == ("edema",) and dataset.labels.file_values == (0, 1)
    assert read_case(dataset.cases[0], 2, orientation="lps").image.voxels.shape == (2, 3, 4, 5)


def test_decathlon_list_of_nnunet_version_1(tmp_path):
    describe(
        tmp_path,
        modality={"0": "a", "1": "b"},
        labels={"0": "background", "1": "x"},
        training=[{"image": "./imagesTr/c.nii.gz", "label": "./labelsTr/c.nii.gz"}],
    )
    touch(tmp_path / "imagesTr/c_0000.nii.gz", tmp_path / "imagesTr/c_0001.nii.gz", tmp_path / "labelsTr/c.nii.gz")
    assert [p.name for p in open_dataset(tmp_path).cases[0].images] == ["c_0000.nii.gz", "c_0001.nii.gz"]


def test_one_folder_a_case(tmp_path, shared_data):
    touch(
        tmp_path / "b/imaging.nii.gz",
        tmp_path / "b/segmentation.nrrd",
        tmp_path / "a/imaging.mha",
        tmp_path / "a/segmentation.nii.gz",
        tmp_path / "only_image/imaging.nii.gz",
        tmp_path / "notes/read.txt",
    )
    shutil.copytree(shared_data("formats") / "dicom_ct", tmp_path / "d1" / "series")
    shutil.copytree(shared_data("formats") / "dicom_ct", tmp_path / "d2")
    for case in ("d1", "d2"):
        shutil.copy(shared_data("formats") / "label_other_format/ct_label.nrrd", tmp_path / case / "truth.nrrd")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "case folders" and ids(dataset) == ["a", "b", "d1", "d2"]
    assert dataset.channels == ("0",) and dataset.labels is None
    assert [(p.case, p.message) for p in dataset.problems] == [("only_image", "an image without label map")]
    for files in dataset.cases[2:]:
        assert read_case(files, 1, orientation="lps").labels.voxels.max() == 2


@pytest.mark.parametrize("labels", ["labels", "masks", "Masks"])
@pytest.mark.parametrize("suffix", ["", "_seg", "_mask", "-label", ".segmentation"])
def test_two_folders_paired_by_name_whatever_the_ending(tmp_path, labels, suffix):
    touch(*(tmp_path / "images" / n for n in ("p1.nii.gz", "p2_0000.nrrd", "p_0007.mha")))
    touch(*(tmp_path / labels / f"{n}{suffix}.nii.gz" for n in ("p1", "p2", "p_0007")))
    touch(tmp_path / "images" / "._p1.nii.gz", tmp_path / "images" / "Thumbs.db")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "two folders" and ids(dataset) == ["p1", "p2", "p_0007"] and dataset.problems == ()


def test_numbers_at_the_end_are_no_channels_where_labels_have_them(tmp_path):
    for n in range(1, 4):
        touch(tmp_path / f"images/frame_{n:04d}.png", tmp_path / f"labels/frame_{n:04d}.png")
    dataset = open_dataset(tmp_path)
    assert ids(dataset) == ["frame_0001", "frame_0002", "frame_0003"] and dataset.channels == ("0",)


def test_channels_without_description_are_numbered(tmp_path):
    for case in ("a", "b"):
        touch(*(tmp_path / f"images/{case}_{n:04d}.nii.gz" for n in range(2)), tmp_path / f"labels/{case}.nii.gz")
    touch(tmp_path / "images/c_0000.nii.gz", tmp_path / "labels/c.nii.gz")
    dataset = open_dataset(tmp_path)
    assert dataset.channels == ("0", "1") and ids(dataset) == ["a", "b"]
    assert [(p.case, p.kind) for p in dataset.problems] == [("c", "ChannelError")]
    assert "missing channel _0001" in dataset.problems[0].message


def test_every_problem_of_a_case_is_a_row_and_the_others_go_on(make_dataset):
    folder = make_dataset(cases=6)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    (labels / "case_00.nii.gz").unlink()
    (images / "case_01_0000.nii.gz").unlink()
    touch(images / "case_02_0000.nrrd", labels / "case_03_seg.nrrd", images / "case_04_0001.nii.gz")
    dataset = open_dataset(folder)
    assert ids(dataset) == ["case_05"]
    rows = {p.case: (p.severity, p.kind, p.message) for p in dataset.problems}
    assert {r[0] for r in rows.values()} == {"error"}
    assert "image without label" in rows["case_00"][2] and "label map without image" in rows["case_01"][2]
    assert "duplicate: case_02_0000.nii.gz, case_02_0000.nrrd" in rows["case_02"][2] and "label maps" in rows["case_03"][2]
    assert rows["case_04"][1] == "ChannelError" and "surplus channel _0001" in rows["case_04"][2]


def test_nothing_fits_says_what_was_looked_for_and_what_lies_there(tmp_path):
    touch(tmp_path / "scans" / "a.nii.gz", tmp_path / "readme.txt")
    with pytest.raises(DatasetError, match=r"Looked for: imagesTr/ .* It holds: readme.txt, scans/"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset(tmp_path / "none")


def test_no_usable_case_is_refused_with_the_first_problem(tmp_path):
    touch(tmp_path / "images/a.nii.gz", tmp_path / "labels/b.nii.gz")
    with pytest.raises(DatasetError, match=r"no case has both .*first of 2 problems: a: an image without label map"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("form", ["csv", "csv without head", "semicolons", "case to group", "group to cases", "lists"])
def test_groups(make_dataset, form):
    key = {
        "case to group": {"case_00": "p", "case_01": "p", "case_02": "q"},
        "group to cases": {"p": ["case_00", "case_01"], "q": ["case_02"]},
        "lists": [["case_00", "case_01"], ["case_02"]],
    }.get(form)
    folder = make_dataset(cases=3, extra={"groups": key} if key else None)
    table = {
        "csv": "case,group\ncase_00,p\ncase_01,p\ncase_02,q\n",
        "csv without head": "case_00,p\ncase_01,p\ncase_02,q\n",
        "semicolons": "\ufeffgroup;case\np;case_00\np;case_01\nq;case_02\n",
    }.get(form)
    if table:
        (folder / "groups.csv").write_text(table, encoding="utf-8")
    groups = open_dataset(folder).groups
    assert groups["case_00"] == groups["case_01"] != groups["case_02"] and len(groups) == 3


def test_groups_of_unknown_cases_are_a_warning(make_dataset):
    dataset = open_dataset(make_dataset(cases=2, extra={"groups": {"case_00": "p", "case_77": "p"}}))
    assert dataset.groups == {"case_00": "p"} and dataset.problems[0].severity == "warning" and "case_77" in dataset.problems[0].message


def test_kinds_label_groups_and_folds(make_dataset):
    folder = make_dataset(
        cases=2, extra={"intensity_kind": {"case_00": {"MR": "arbitrary"}}, "groups_of_labels": {"both": ["front", "back"]}}
    )
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_00"], "val": ["case_01"]}]))
    dataset = open_dataset(folder)
    assert dataset.intensity_kinds == {"case_00": {"MR": "arbitrary"}} and dataset.label_groups == {"both": ("front", "back")}
    assert dataset.given_folds == ((("case_00",), ("case_01",)),)


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"intensity_kind": {"case_00": {"MR": "pet"}}}, "none of hu, windowed, arbitrary"),
        ({"intensity_kind": {"case_00": {"CT": "hu"}}}, "names channel 'CT', there are MR"),
        ({"groups_of_labels": {"both": ["front", "side"]}}, "holds side, there are front, back"),
        ({"channel_names": {"1": "MR"}}, "not numbered from 0"),
        ({"groups": 3}, "`groups` is neither"),
    ],
)
def test_descriptions_that_are_not_understood_are_refused(make_dataset, extra, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(make_dataset(cases=1, extra=extra))


def test_contradictory_labels_and_broken_json_are_refused(make_dataset):
    folder = make_dataset(cases=1, labels={"background": 0, "a": 1, "b": 1})
    with pytest.raises(LabelError, match=r"dataset.json: two labels have the same value"):
        open_dataset(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        open_dataset(folder)


@pytest.mark.parametrize("name, cases, channels", [("hippocampus", 100, 1), ("brats_2ch", 6, 2), ("em_2d", 30, 1), ("totalseg_ct", 2, 1)])
def test_real_datasets_open_and_read(shared_data, name, cases, channels):
    dataset = open_dataset(shared_data(name))
    assert len(dataset.cases) == cases and len(dataset.channels) == channels and dataset.problems == ()
    case = read_case(dataset.cases[0], channels, orientation="lps")
    assert set(np.unique(case.labels.voxels)) <= {0, *(v for values in dataset.labels.values for v in values)}
