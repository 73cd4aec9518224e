"""Annotations beside label maps in every layout: their names become labels, which read, plan and store as label maps do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from autoseg.data.case import CaseFiles, LabelMap, Volume
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.labels import LabelSet
from autoseg.data.reading import read_case, read_labels
from autoseg.data.writing import write_labels, write_volume
from autoseg.errors import DatasetError, LabelError
from autoseg.fingerprint.measure import measure
from autoseg.geometry import Grid
from tests.data.test_annotations import Scan, contours_of, write_rtstruct, write_seg, write_slicer

KINDS = ["slicer", "SEG", "RTSTRUCT"]


@pytest.fixture(scope="module")
def ct(shared_data) -> Scan:
    """The small CT series of formats/, with its liver and spine."""
    import pydicom

    folder = shared_data("formats")
    label = sitk.ReadImage(str(next((folder / "label_other_format").glob("*.nrrd"))))
    voxels = sitk.GetArrayFromImage(label)
    grid = Grid(voxels.shape, label.GetSpacing()[::-1], label.GetOrigin(), label.GetDirection())
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted((folder / "dicom_ct").iterdir())]
    return Scan(grid, sorted(headers, key=lambda h: h.ImagePositionPatient[2]), {"liver": voxels == 1, "spine": voxels == 2})


def annotate(path: Path, kind: str, scan: Scan) -> Path:
    """An annotation of a kind; `path` has no ending."""
    everything = tuple(slice(0, n) for n in scan.grid.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "slicer":
        return write_slicer(path.with_name(path.name + ".seg.nrrd"), scan.masks, scan.grid, everything)
    if kind == "SEG":
        return write_seg(path.with_name(path.name + ".dcm"), scan.masks, scan, "BINARY", everything[1], everything[2], everything[0])
    contours = {name: contours_of(mask, scan.grid) for name, mask in scan.masks.items()}
    first = scan.slices[0]
    place = path.with_name(path.name + ".dcm")
    return write_rtstruct(place, contours, series=first.SeriesInstanceUID, frame=first.FrameOfReferenceUID)


def nnunet(folder, series, kind, scan):
    shutil.copytree(series, folder / "imagesTr" / "a")
    annotate(folder / "labelsTr" / "a", kind, scan)


def mapped(folder, series, kind, scan):
    shutil.copytree(series, folder / "somewhere" / "series")
    label = annotate(folder / "elsewhere" / "drawn", kind, scan)
    content = {"dataset": {"a": {"images": ["somewhere/series"], "label": str(label.relative_to(folder))}}}
    (folder / "dataset.json").write_text(json.dumps(content))


def decathlon(folder, series, kind, scan):
    shutil.copytree(series, folder / "imagesTr" / "a")
    label = annotate(folder / "labelsTr" / "a", kind, scan)
    (folder / "dataset.json").write_text(json.dumps({"training": [{"image": "./imagesTr/a", "label": f"./{label.relative_to(folder)}"}]}))


def two_folders(folder, series, kind, scan):
    shutil.copytree(series, folder / "images" / "a")
    annotate(folder / "masks" / "a", kind, scan)


def case_folder(folder, series, kind, scan):
    shutil.copytree(series, folder / "a" / "CT")
    annotate(folder / "a" / "segmentation", kind, scan)


def case_folder_beside_slices(folder, series, kind, scan):
    shutil.copytree(series, folder / "a")
    annotate(folder / "a" / "drawn by a radiologist", kind, scan)


def case_folder_of_folders(folder, series, kind, scan):
    shutil.copytree(series, folder / "a" / "CT")
    annotate(folder / "a" / ("drawn" if kind == "slicer" else "outlines/drawn"), kind, scan)


LAYOUTS = [nnunet, mapped, decathlon, two_folders, case_folder, case_folder_beside_slices, case_folder_of_folders]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_annotations_are_labels_in_every_layout(tmp_path, shared_data, ct, layout, kind):
    layout(tmp_path, shared_data("formats") / "dicom_ct", kind, ct)
    dataset = open_dataset(tmp_path)
    assert dataset.problems == () and [files.case for files in dataset.cases] == ["a"] and dataset.labels is None
    found = measure(dataset, orientation="as_stored", workers=0)
    assert found.dataset.labels == LabelSet.declared({"background": 0, "liver": 1, "spine": 2})
    counts = found.fingerprint.cases["a"].label_voxels
    assert {value: counts[value] for value in (1, 2)} == {1: int(ct.masks["liver"].sum()), 2: int(ct.masks["spine"].sum())}
    assert not [problem for problem in found.problems if "segment" in problem.message or "UID" in problem.message]
    case = read_case(dataset.cases[0], 1, orientation="as_stored", labels=found.dataset.labels)
    assert np.array_equal(case.labels.voxels, ct.masks["liver"] + 2 * ct.masks["spine"].astype(np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_an_annotation_lies_on_an_oblique_image_of_any_axis_order(tmp_path, shared_data, kind):
    """The oblique MR of formats/ in three files that store it differently; a real brain cut in two by its brightness."""
    import pydicom

    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in sorted((shared_data("formats") / "dicom_mr_oblique").iterdir())]
    images = {
        name: next(p for p in sorted((shared_data("formats") / name).iterdir()) if p.name.endswith((".nii.gz", ".nii", ".nrrd")))
        for name in ("nifti_oblique", "nifti_left_handed", "nifti_permuted_axes")
    }
    first = read_case(CaseFiles("a", (images["nifti_oblique"],)), 1, orientation="as_stored")
    normal = np.cross(*np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3))
    headers.sort(key=lambda h: float(np.dot(h.ImagePositionPatient, normal)))
    if np.dot(first.stored.axes[:, 0], normal) < 0:
        headers.reverse()
    voxels = gaussian_filter(first.image.voxels[0], 2)
    middle = np.median(voxels[voxels > voxels.mean()])
    scan = Scan(first.stored, headers, {"bright": voxels > middle, "dim": (voxels > voxels.mean()) & (voxels <= middle)})
    path = annotate(tmp_path / "drawn", kind, scan)
    wanted = np.sort(first.stored.points(np.argwhere(scan.masks["bright"])).round(1), axis=0)
    for name, image in images.items():
        case = read_case(CaseFiles(name, (image,), path), 1, orientation="lps")
        bright = case.combinations.index(("bright",))
        found = np.sort(case.image.grid.points(np.argwhere(case.labels.voxels == bright)).round(1), axis=0)
        assert len(found) == len(wanted) and np.abs(found - wanted).max() <= 0.2, name


def small(folder: Path, cases: dict[str, dict[str, tuple]], **content) -> Path:
    """A dataset of boxes drawn in Slicer: case -> name -> box; two folders, or with dataset.json."""
    grid = Grid((8, 12, 12), (2.0, 1.0, 1.0))
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number, (case, boxes) in enumerate(cases.items()):
        image = np.random.default_rng(number).normal(size=(1, *grid.shape)).astype(np.float32)
        write_volume(folder / "images" / f"{case}.nii.gz", Volume(image, grid))
        masks = {}
        for name, box in boxes.items():
            masks[name] = np.zeros(grid.shape, bool)
            masks[name][tuple(slice(*side) for side in box)] = True
        write_slicer(folder / "labels" / f"{case}.seg.nrrd", masks, grid, tuple(slice(0, n) for n in grid.shape))
    if content:
        (folder / "dataset.json").write_text(json.dumps(content))
    return folder


LIVER, TUMOUR, HEART = ((1, 7), (1, 9), (1, 9)), ((2, 4), (2, 5), (2, 5)), ((1, 3), (9, 12), (9, 12))


def test_segments_that_overlap_in_one_case_make_regions_of_all(tmp_path):
    folder = small(tmp_path, {"a": {"liver": LIVER, "tumour": TUMOUR}, "b": {"Liver": LIVER, "heart": HEART}})
    found = measure(open_dataset(folder), orientation="lps", workers=0)
    assert found.dataset.labels == LabelSet(("Liver", "heart", "tumour"), ((2, 3), (1,), (3,)), 0, None, (2, 1, 3))
    cases = found.fingerprint.cases
    assert cases["a"].label_voxels[3] == 18 and cases["a"].label_voxels[2] == 384 - 18 and cases["b"].label_voxels[2] == 384
    assert found.fingerprint.classes["Liver"].cases == 2 and found.fingerprint.classes["tumour"].cases == 1


def test_dataset_json_chooses_among_the_names_and_gives_their_values(tmp_path):
    cases = {"a": {"Liver": LIVER, "heart": HEART}, "b": {"heart": HEART}, "c": {"liver": LIVER}}
    folder = small(tmp_path, cases, channel_names={"0": "MR"}, labels={"background": 0, "liver": 5})
    found = measure(open_dataset(folder), orientation="lps", workers=0)
    assert set(found.fingerprint.cases) == {"a", "c"} and found.fingerprint.cases["a"].label_voxels[5] == 384
    said = {problem.case: problem for problem in found.problems if "segment" in problem.message}
    assert said["a"].severity == "warning" and "left out: heart" in said["a"].message
    assert said["b"].severity == "error" and "none of its segments is a label: it has heart" in said["b"].message


def test_declared_classes_that_overlap_are_warned_of_with_their_voxels(tmp_path):
    folder = small(tmp_path, {"a": {"liver": LIVER, "tumour": TUMOUR}}, labels={"background": 0, "liver": 1, "tumour": 2})
    found = measure(open_dataset(folder), orientation="lps", workers=0)
    assert found.fingerprint.cases["a"].label_voxels[2] == 18
    assert any("liver and tumour (18)" in problem.message for problem in found.problems)


def test_names_and_numbers_do_not_mix_without_dataset_json(tmp_path):
    folder = small(tmp_path, {"a": {"liver": LIVER}, "b": {"liver": LIVER}})
    grid = Grid((8, 12, 12), (2.0, 1.0, 1.0))
    (folder / "labels" / "b.seg.nrrd").unlink()
    write_labels(folder / "labels" / "b.nii.gz", LabelMap((np.indices(grid.shape)[0] > 4).astype(np.uint8), grid))
    with pytest.raises(DatasetError, match=r"1 cases name their segments \(a\), 1 have numbers \(b\)"):
        measure(open_dataset(folder), orientation="lps", workers=0)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    assert measure(open_dataset(folder), orientation="lps", workers=0).fingerprint.classes["liver"].cases == 2


def test_a_kept_plans_labels_hold_for_new_cases_and_keys_stay(tmp_path):
    small(tmp_path / "one", {"a": {"liver": LIVER}, "b": {"heart": HEART, "liver": LIVER}})
    first = measure(open_dataset(tmp_path / "one"), orientation="lps", workers=0)
    folder = small(tmp_path / "two", {"a": {"liver": LIVER}, "b": {"heart": HEART, "liver": LIVER}, "c": {"liver": LIVER, "gall": TUMOUR}})
    more = measure(open_dataset(folder), orientation="lps", workers=0, kept_labels=first.dataset.labels)
    assert more.dataset.labels == first.dataset.labels
    assert all(more.fingerprint.cases[name].label_key == first.fingerprint.cases[name].label_key for name in "ab")
    assert any(problem.case == "c" and "no labels of the plan are left out: gall" in problem.message for problem in more.problems)
    assert more.fingerprint.cases["c"].label_voxels == {0: 8 * 144 - 384, 2: 384}


def test_named_segments_are_a_reference_where_labels_are_declared(tmp_path):
    folder = small(tmp_path, {"a": {"liver": LIVER}})
    grid = Grid((8, 12, 12), (2.0, 1.0, 1.0))
    labels = LabelSet.declared({"background": 0, "liver": 4})
    found = read_labels(folder / "labels" / "a.seg.nrrd", case="a", onto=grid, labels=labels)
    assert found.grid == grid and int((found.voxels == 4).sum()) == 384
    with pytest.raises(LabelError, match="its segments have names"):
        read_labels(folder / "labels" / "a.seg.nrrd", case="a", onto=grid)
