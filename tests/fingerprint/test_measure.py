"""The pass over the cases: everything measured once, every problem gathered, nothing stops at the first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.folders.layouts import open_dataset
from autoseg.data.labels import LabelSet
from autoseg.errors import DatasetError, LabelError
from autoseg.fingerprint.case_measures import letters, measure_case, nonzero_box
from autoseg.fingerprint.checks import check
from autoseg.fingerprint.measure import _unpacked, measure
from autoseg.fingerprint.types import Fingerprint
from autoseg.geometry import Grid


def run(folder, **more):
    return measure(open_dataset(folder), **{"orientation": "lps", "workers": 1, **more})


def rewrite(path, change):
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))


def label_file(folder, number):
    return folder / "labelsTr" / f"case_{number:02d}.nii.gz"


def said(measured, text):
    return [p for p in (*measured.problems, *check(measured.dataset, measured.fingerprint)) if text in p.message]


def test_what_is_measured_of_a_case(make_case, make_described):
    image = np.zeros((2, 6, 7, 8))
    image[0, 1:4, 2:5, 3:7] = 5
    image[1, 2:5, 2:4, 4:8] = -3
    image[0, 2, 3, 5] = 0  # a hole does not move the box
    labels = np.zeros((6, 7, 8))
    labels[2, 2, 3:6], labels[3, 3, 4] = 2, 9
    dataset = replace(make_described({"a": 2, "b": 4, "ignore": 9}, ("T1", "T2")))
    case = measure_case(make_case("a", image, labels, spacing=(3.0, 2.0, 1.0)), dataset).measures
    assert case.crop_box == ((1, 5), (2, 5), (3, 8))
    assert (case.spacing, case.shape, case.planar, case.tilt, case.orientation) == ((3, 2, 1), (6, 7, 8), False, 0, "LPS")
    assert case.label_voxels == {0: 6 * 7 * 8 - 4, 2: 3, 9: 1}
    assert case.channels[0].foreground.count == 4  # ignore counts, as the peer has it
    values = image[0][labels > 0]
    assert case.channels[0].foreground.mean == values.mean()
    assert (case.channels[1].minimum, case.channels[1].mean) == (-3, pytest.approx(image[1].mean()))


def test_the_box_of_nothing_is_everything():
    assert nonzero_box(np.zeros((1, 2, 3, 4))) == ((0, 2), (0, 3), (0, 4))


@pytest.mark.parametrize("code", ["LPS", "RAS", "RAI", "ASL", "SPR", "PIR"])
def test_orientation_letters_are_itks(code):
    direction = sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation(code)
    assert letters(Grid((3, 4, 5), direction=tuple(direction))) == code


def test_the_label_key_does_not_depend_on_the_axis_order(make_case, make_described):
    labels = np.zeros((3, 4, 5))
    labels[0, 1, 2] = 1
    flipped = make_case("b", labels[:, ::-1, ::-1], labels[:, ::-1, ::-1], direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    dataset = make_described({"x": 1})
    measures = measure_case(flipped, dataset).measures
    assert measures.label_key == measure_case(make_case("a", labels, labels), dataset).measures.label_key
    assert measures.orientation == "RAS"


def test_an_undeclared_value_names_itself_its_voxels_and_the_remedy(make_case, make_described):
    labels = np.zeros((3, 4, 5))
    labels[0, 0, :3], labels[1, 1, 1] = 7, 1
    with pytest.raises(LabelError, match=r"case a.*7 \(3 voxels\).*declared are \[0, 1\].*Declare them"):
        measure_case(make_case("a", labels, labels), make_described({"x": 1}))


def test_all_problems_are_gathered_and_the_rest_goes_on(make_dataset):
    folder = make_dataset(6)
    rewrite(label_file(folder, 0), lambda a: np.where(a == 1, 9, a).astype(np.uint8))
    rewrite(label_file(folder, 1), lambda a: a * 0)
    (folder / "imagesTr" / "case_02_0000.nii.gz").write_bytes(b"no image")
    rewrite(folder / "imagesTr" / "case_03_0000.nii.gz", lambda a: np.full_like(a, 4))
    done = []
    measured = run(folder, on_case=done.append)
    assert list(measured.fingerprint.cases) == [c.case for c in measured.dataset.cases] == ["case_01", "case_04", "case_05"]
    assert done == [f"case_{n:02d}" for n in range(6)]
    errors = {p.case: (p.kind, p.file) for p in measured.problems if p.severity == "error"}
    assert errors == {
        "case_00": ("LabelError", "case_00.nii.gz"),
        "case_02": ("UnreadableFileError", "case_02_0000.nii.gz"),
        "case_03": ("IntensityError", "case_03_0000.nii.gz"),
    }
    assert [p.case for p in said(measured, "only background")] == ["case_01"]


def test_spawned_workers_give_the_same_as_this_process(make_dataset):
    folder = make_dataset(4)
    label_file(folder, 3).write_bytes(b"")
    assert run(folder, workers=2) == run(folder)


def test_no_case_left_is_refused_with_the_table(make_dataset):
    folder = make_dataset(2)
    for number in range(2):
        label_file(folder, number).write_bytes(b"")
    with pytest.raises(DatasetError, match=r"(?s)no case can be used.*case_00.*case_01"):
        run(folder)


def test_labels_are_found_in_the_files(make_dataset):
    folder = make_dataset(3, values=(3, 200))
    (folder / "dataset.json").unlink()
    measured = run(folder)
    assert measured.dataset.labels == LabelSet.declared({"background": 0, "label_3": 3, "label_200": 200})
    assert measured.fingerprint.classes["label_200"].cases == 3


def test_where_0_never_occurs_the_smallest_value_is_background(make_dataset):
    folder = make_dataset(3)
    declared = run(folder)
    (folder / "dataset.json").unlink()
    for number in range(3):
        rewrite(label_file(folder, number), lambda a: a + 1)
    measured = run(folder)
    assert measured.dataset.labels == LabelSet.declared({"background": 1, "label_2": 2, "label_3": 3})
    assert measured.fingerprint.channels["0"]["arbitrary"] == declared.fingerprint.channels["MR"]["arbitrary"]
    # 0 in one case makes it the background of all
    rewrite(label_file(folder, 0), lambda a: np.where(a == 1, 0, a).astype(np.uint8))
    assert run(folder).dataset.labels.names == ("label_1", "label_2", "label_3")


def test_images_in_the_label_folder_are_not_taken_for_labels(make_dataset):
    folder = make_dataset(2, shape=(14, 24, 24))
    (folder / "dataset.json").unlink()
    for number in range(2):
        rewrite(label_file(folder, number), lambda a: np.arange(a.size).reshape(a.shape).astype(np.uint16))
    with pytest.raises(DatasetError, match="different values"):
        run(folder)


def test_a_declared_label_that_no_case_has_is_a_warning_and_stays(make_dataset):
    measured = run(make_dataset(3, labels={"background": 0, "front": 1, "back": 2, "top": 5}))
    [row] = said(measured, "no case shows")
    assert row.severity == "warning" and "top" in row.message
    assert measured.dataset.labels.names == ("front", "back", "top")
    assert measured.fingerprint.classes["top"].cases == 0


def test_a_label_map_that_shows_what_it_is_said_not_to_annotate_excludes_its_case(make_dataset):
    folder = make_dataset(4, extra={"labels_present": {"case_00": ["front"], "case_01": ["front"], "case_02": ["back"]}})
    rewrite(label_file(folder, 1), lambda a: np.where(a == 2, 0, a).astype(np.uint8))
    rewrite(label_file(folder, 2), lambda a: np.where(a == 1, 0, a).astype(np.uint8))
    measured = run(folder)
    assert list(measured.fingerprint.cases) == ["case_01", "case_02", "case_03"]
    [row] = [p for p in measured.problems if p.severity == "error"]
    assert (row.case, row.kind, row.file) == ("case_00", "LabelError", "case_00.nii.gz")
    assert "annotates front" in row.message and "shows back too" in row.message and "Add back to its `labels_present`" in row.remedy
    classes = measured.fingerprint.classes
    assert {name: (c.annotated, c.cases) for name, c in classes.items()} == {"front": (2, 2), "back": (2, 2)}


def test_a_value_that_an_annotated_region_contains_is_no_contradiction(make_dataset):
    """Who annotates the core alone writes 2, which the whole contains too; 1 would be a part of the whole only."""
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    extra = {"regions_class_order": [1, 2], "labels_present": {"case_00": ["core"], "case_01": ["core"]}}
    folder = make_dataset(3, labels=labels, extra=extra)
    rewrite(label_file(folder, 0), lambda a: np.where(a == 1, 0, a).astype(np.uint8))
    measured = run(folder)
    assert [p.case for p in measured.problems if p.severity == "error"] == ["case_01"]
    assert {name: (c.annotated, c.cases) for name, c in measured.fingerprint.classes.items()} == {"whole": (1, 1), "core": (2, 2)}


def test_the_fingerprint_survives_json(make_dataset):
    fingerprint = run(make_dataset(2)).fingerprint
    assert Fingerprint.model_validate_json(fingerprint.model_dump_json()) == fingerprint


def test_two_dimensional_data(measured_real):
    case = next(iter(measured_real("em_2d").fingerprint.cases.values()))
    assert (case.shape, case.planar) == ((1, 400, 400), True)


def test_real_regions_and_channels(measured_real):
    fingerprint = measured_real("brats_2ch").fingerprint
    assert list(fingerprint.channels) == ["T1c", "FLAIR"]
    nested = [fingerprint.classes[name].median_ml for name in ("enhancing_tumor", "tumor_core", "whole_tumor")]
    assert 0 < nested[0] < nested[1] < nested[2]
    assert 0.2 < fingerprint.median_relative_size_after_crop < 0.5


def test_real_volumes_are_those_of_the_datasets_readme(measured_real):
    cases = measured_real("covid_ct_small").fingerprint.cases
    ml = {name: [case.label_voxels.get(v, 0) * np.prod(case.spacing) / 1000 for v in (1, 2, 3)] for name, case in cases.items()}
    assert ml["medseg_01"] == pytest.approx([2706, 2181, 939.0], abs=0.6)
    assert ml["medseg_09"] == pytest.approx([834, 1271, 2722.3], abs=0.6)


def test_memory_is_estimated_from_what_a_compressed_file_unpacks_to(tmp_path):
    """Zeros shrink a thousand times; a damaged file is estimated by its size and named when it is read."""
    voxels = np.zeros((60, 70, 80), np.int16)
    path = tmp_path / "zeros.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    assert path.stat().st_size < voxels.size / 20
    assert _unpacked(path) == voxels.size
    path.write_bytes(path.read_bytes()[:40])
    assert _unpacked(path) == 40
    assert _unpacked(tmp_path / "missing.nii.gz") == 0
