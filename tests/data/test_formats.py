"""Every awkward file says the same as the truth that was worked out apart from any reader, or is refused by name."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.case import CaseFiles, SeriesChoice
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.reading import read_case, read_labels
from autoseg.errors import DatasetError, GridError, IntensityError, UnreadableFileError

REFUSED = {
    "dicom_mixed": (DatasetError, r"3 DICOM series lie together \(4 slices, 2 slices of a localiser, 5 slices\)"),
    "bad/dicom_missing_slice": (GridError, "not evenly spaced: usually 2 mm apart, 4 mm after slice 9"),
    "bad/truncated.nii.gz": (UnreadableFileError, "truncated"),
    "bad/empty.nii.gz": (UnreadableFileError, "empty"),
    "bad/text.nii.gz": (UnreadableFileError, "plain text"),
    "bad/zero_spacing.nii": (GridError, "0 x 0.6667 x 0.7 mm"),
    "bad/nan.nii.gz": (IntensityError, "32 NaN"),
    "bad/nan.nrrd": (IntensityError, "32 NaN"),
    "bad/constant.nii.gz": (IntensityError, "every voxel is 7"),
}
VOLUMES = [
    "dicom_mr_oblique",
    "dicom_ct",
    "dicom_per_slice_rescale",
    "dicom_enhanced",
    "nifti_oblique/mr.nii.gz",
    "nifti_uncompressed/mr.nii",
    "nifti_left_handed/mr.nii.gz",
    "nifti_permuted_axes/mr.nii.gz",
    "nifti_qform_sform_disagree/mr.nii.gz",
    "nifti_4d_one_volume/mr.nii.gz",
    "nifti_scl_slope/mr.nii",
    "nifti_left_handed_real/t2s.nii.gz",
    "mha/mr.mha",
    "mhd_zraw/mr.mhd",
    "nrrd/mr.nrrd",
    "label_other_format/ct.nii.gz",
    "tif_stack/mr.tif",
]
SHEARED = "nifti_nonorthonormal/mr.nii.gz"
LABELS = ["nifti_left_handed_real/t2s_label.nii.gz", "label_other_format/ct_label.nrrd"]
PICTURES = ["png_rgb/us.png", "png_16bit/mr.png", "jpg/us.jpg", "png_gray_alpha/mr.png"]


@pytest.fixture(scope="module")
def truth(shared_data):
    folder = shared_data("formats")
    return folder, json.loads((folder / "expected.json").read_text())


def test_every_file_of_the_collection_is_judged_here(truth):
    _, expected = truth
    assert set(REFUSED) | {*VOLUMES, *LABELS, *PICTURES, SHEARED} == {*expected["good"], *expected["bad"]}


def _compare_landmarks(entry, grid, voxels):
    for name in ("brightest", "first", "last", "third"):
        landmark = entry["landmarks"][name]
        index = grid.indices(np.array([landmark["point_lps_mm"]]))[0]
        nearest = np.rint(index).astype(int)
        assert np.abs(index - nearest).max() < 1e-3, name
        assert voxels[tuple(nearest)] == pytest.approx(landmark["value"], abs=1e-4), name
    assert voxels.mean() == pytest.approx(entry["mean"], abs=1e-3)
    assert (voxels.min(), voxels.max()) == (pytest.approx(entry["min"]), pytest.approx(entry["max"]))


@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
@pytest.mark.parametrize("name", VOLUMES)
def test_values_lie_at_their_points_in_the_patient(truth, name, orientation):
    folder, expected = truth
    case = read_case(CaseFiles("x", (folder / name,)), 1, orientation=orientation)
    entry = expected["good"][name]
    _compare_landmarks(entry, case.image.grid, case.image.voxels[0])
    # DICOM may be stacked from either end; a file's own axes are kept
    assert case.stored.shape == tuple(entry["size_xyz"][::-1])
    assert case.stored.spacing == pytest.approx(entry["spacing_xyz_mm"][::-1], abs=1e-4)
    assert case.stored.direction == pytest.approx(entry["direction_lps_row_major"], abs=1e-4)
    assert case.stored.origin == pytest.approx(entry["origin_lps_mm"], abs=1e-3)


@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
def test_a_series_is_chosen_by_its_uid_and_lies_at_its_points(truth, orientation):
    folder, expected = truth
    uid, entry = next((uid, entry) for uid, entry in expected["good"]["dicom_mixed"]["series"].items() if entry.get("evenly_spaced"))
    case = read_case(CaseFiles("x", (folder / "dicom_mixed",), series=(SeriesChoice(uid),)), 1, orientation=orientation)
    _compare_landmarks(entry, case.image.grid, case.image.voxels[0])
    assert case.stored.shape == tuple(entry["size_xyz"][::-1]) and case.stored.origin == pytest.approx(entry["origin_lps_mm"], abs=1e-3)
    gap = next(uid for uid, other in expected["good"]["dicom_mixed"]["series"].items() if other.get("evenly_spaced") is False)
    with pytest.raises(GridError, match=r"202\.5 mm after slice 1 of 4"):
        read_case(CaseFiles("x", (folder / "dicom_mixed",), series=(SeriesChoice(gap),)), 1, orientation=orientation)


@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
def test_sheared_slices_are_straight_for_the_network_and_keep_their_points(truth, orientation):
    folder, expected = truth
    entry = expected["good"][SHEARED]
    case = read_case(CaseFiles("x", (folder / SHEARED,)), 1, orientation=orientation)
    assert [n.severity for n in case.notices] == ["warning"] and "14.0 degrees from perpendicular" in case.notices[0].message
    assert case.stored.direction == pytest.approx(entry["direction_lps_row_major"], abs=1e-4)
    assert case.stored.origin == pytest.approx(entry["origin_lps_mm"], abs=1e-3)
    assert case.stored.spacing == pytest.approx(entry["spacing_xyz_mm"][::-1], abs=1e-4)
    assert not case.image.grid.sheared and sorted(case.image.grid.spacing) == pytest.approx([0.666667, 0.699988, 2.0], abs=1e-4)
    # the file's own voxels at their own points: where a slice was shifted by whole voxels (every fourth), the value itself
    plain = read_case(CaseFiles("x", (folder / "nifti_oblique/mr.nii.gz",)), 1, orientation="as_stored").image.voxels[0]
    indices = np.argwhere(np.ones(case.stored.shape, bool))
    index = case.image.grid.indices(case.stored.points(indices))
    exact = np.abs(index - np.rint(index)).max(axis=1) < 1e-3
    found = case.image.voxels[0][tuple(np.rint(index[exact]).astype(int).T)]
    assert exact.sum() == plain.size / 4 and np.abs(found - plain[tuple(indices[exact].T)]).max() < 1e-2
    whole = np.array([entry["landmarks"][name]["index_xyz"][::-1] for name in ("brightest", "first")])  # both in slice 0
    assert [plain[tuple(i)] for i in whole] == [entry["landmarks"][name]["value"] for name in ("brightest", "first")]


@pytest.mark.parametrize("name", LABELS)
def test_label_maps_lie_at_their_points_too(truth, name):
    folder, expected = truth
    labels = read_labels(folder / name, case="x")
    assert labels.voxels.dtype == np.uint8
    _compare_landmarks(expected["good"][name], labels.grid, labels.voxels)
    for value, count in expected["good"][name].get("voxels", {}).items():
        assert (labels.voxels == int(value)).sum() == count


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_planar_with_their_values(truth, name):
    folder, expected = truth
    entry = expected["good"][name]
    case = read_case(CaseFiles("x", (folder / name,)), entry["channels"], orientation="lps")
    assert case.stored.planar and case.image.voxels.shape == (entry["channels"], 1, *entry["size_xy"][::-1])
    if entry["exact"]:
        x, y = entry["pixel"]["index_xy"]
        assert case.image.voxels[:, 0, y, x].tolist() == entry["pixel"]["value"]
        assert case.image.voxels.max(axis=(1, 2, 3)).tolist() == entry["max_per_channel"]
    else:
        assert case.image.voxels.mean(axis=(1, 2, 3)).tolist() == pytest.approx(entry["mean_per_channel"], abs=2)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trusted_is_refused_by_name(truth, name):
    kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        read_case(CaseFiles("patient 7", (truth[0] / name,)), 1, orientation="lps")
    assert caught.value.case == "patient 7" and caught.value.remedy
    assert str(truth[0]) not in str(caught.value)


def test_the_same_head_has_one_content_key_in_every_format(truth):
    names = [
        "dicom_mr_oblique",
        "nifti_oblique/mr.nii.gz",
        "nifti_left_handed/mr.nii.gz",
        "nifti_permuted_axes/mr.nii.gz",
        "mha/mr.mha",
        "nrrd/mr.nrrd",
    ]
    keys = {read_case(CaseFiles("x", (truth[0] / n,)), 1, orientation=o).content_key for n in names for o in ("lps", "as_stored")}
    assert len(keys) == 1


def test_a_disagreeing_qform_is_a_warning(truth):
    case = read_case(CaseFiles("x", (truth[0] / "nifti_qform_sform_disagree/mr.nii.gz",)), 1, orientation="lps")
    assert [(n.severity, n.kind) for n in case.notices] == [("warning", "GridError")] and "the sform holds" in case.notices[0].message


def test_image_and_label_of_other_formats_fit(truth):
    folder, _ = truth
    for image in ("label_other_format/ct.nii.gz", "dicom_ct"):
        case = read_case(CaseFiles("x", (folder / image,), folder / "label_other_format/ct_label.nrrd"), 1, orientation="lps")
        assert case.notices == () and case.labels.voxels.max() == 2


def test_cardiac_spacing_comes_from_pixdim(shared_data):
    dataset = open_dataset(shared_data("cardiac_cine"))
    for files in dataset.cases[:3]:
        case = read_case(files, 1, orientation="lps")
        assert case.stored.spacing[0] in (10.0, 5.0) and 1.5 < case.stored.spacing[1] < 1.9
        assert all("pixdim holds" in n.message for n in case.notices) and len(case.notices) == 2  # image and label


def test_transparency_is_no_image_channel(truth):
    folder, expected = truth
    entry = expected["good"]["png_gray_alpha/mr.png"]
    case = read_case(CaseFiles("x", (folder / "png_gray_alpha/mr.png",)), 1, orientation="lps")
    x, y = entry["pixel"]["index_xy"]
    assert case.image.voxels.shape == (1, 1, 64, 56) and case.image.voxels[0, 0, y, x] == entry["pixel"]["value"][0]
    assert "transparency is left out" in case.notices[0].message


def test_the_documentation_lists_what_each_file_gives(truth):
    path = Path(__file__).resolve().parents[2] / "docs" / "list_formats.py"
    spec = importlib.util.spec_from_file_location("list_formats", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.PAGE.read_text(encoding="utf-8")
    assert module.page(truth[0]) == written, "run python docs/list_formats.py COLLECTION"
    assert all(f"`{name}`" in written for name in {*truth[1]["good"], *truth[1]["bad"]})
