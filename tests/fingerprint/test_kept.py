"""A case is measured once: what was measured of the same files, read in the same way, comes back the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.choices import Choices
from autoseg.data.folders.layouts import open_dataset
from autoseg.fingerprint import measure as measuring
from autoseg.fingerprint.kept import KeptMeasures, measuring_key
from autoseg.fingerprint.measure import measure


def rewrite(path, change):
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))


@pytest.fixture
def reads(monkeypatch):
    """Names of the cases that are read, in order."""
    names, real = [], measuring.read_case

    def counted(files, *arguments, **more):
        names.append(files.case)
        return real(files, *arguments, **more)

    monkeypatch.setattr(measuring, "read_case", counted)
    return names


def run(folder, kept, **more):
    return measure(open_dataset(folder), orientation="lps", workers=0, kept=KeptMeasures(kept, writes=True), **more)


def same(one, other):
    return one.fingerprint == other.fingerprint and one.problems == other.problems


@pytest.mark.parametrize("channels", [("MR",), ("CT",), ("T1", "CT")])
def test_the_second_time_nothing_is_read_and_all_is_the_same(make_dataset, tmp_path, reads, channels):
    folder = make_dataset(cases=4, channels=channels)
    plain = measure(open_dataset(folder), orientation="lps", workers=0)
    first = run(folder, tmp_path / "kept")
    assert len(reads) == 8
    again = run(folder, tmp_path / "kept")
    assert len(reads) == 8 and same(first, plain) and same(again, plain)


def test_real_cases_come_back_the_same_with_their_notices(shared_data, tmp_path, reads):
    for name in ("covid_ct_small", "hippocampus"):  # mended intensities; a label map of floats, which has a notice
        first = run(shared_data(name), tmp_path / name)
        read = len(reads)
        assert same(run(shared_data(name), tmp_path / name), first) and len(reads) == read


def test_values_that_nobody_declared_are_found_once_wherever_background_lies(make_dataset, tmp_path, reads):
    for name, values in (("zero", (1, 2)), ("one", (2, 3))):
        folder = make_dataset(cases=3, values=values, name=name)
        (folder / "dataset.json").unlink()
        if name == "one":  # no voxel is 0, so that a second pass is needed once it is known what background is
            for path in (folder / "labelsTr").iterdir():
                rewrite(path, lambda labels: np.where(labels == 0, 1, labels).astype(np.uint8))
        first = run(folder, tmp_path / name)
        reads.clear()
        assert same(run(folder, tmp_path / name), first) and reads == [], name


def test_a_changed_image_or_label_map_is_measured_again_and_no_other(make_dataset, tmp_path, reads):
    folder = make_dataset(cases=4)
    before = run(folder, tmp_path / "kept").fingerprint.cases
    other = make_dataset(cases=2, shape=(15, 20, 24), name="other")
    for kind, name in (("imagesTr", "case_01_0000"), ("labelsTr", "case_01")):
        (folder / kind / f"{name}.nii.gz").write_bytes((other / kind / f"{name}.nii.gz").read_bytes())
    reads.clear()
    after = run(folder, tmp_path / "kept").fingerprint.cases
    assert reads == ["case_01"]
    assert after["case_01"] != before["case_01"] and after["case_00"] == before["case_00"]


def test_a_damaged_file_is_measured_again(make_dataset, tmp_path, reads):
    folder, kept = make_dataset(cases=4), tmp_path / "kept"
    first = run(folder, kept)
    (kept / "case_00.npz").write_bytes((kept / "case_00.npz").read_bytes()[:300])
    (kept / "case_01.npz").write_bytes(b"")
    np.savez(kept / "case_02.npz", about=np.frombuffer(b"[]", np.uint8))
    reads.clear()
    assert same(run(folder, kept), first) and reads == ["case_00", "case_01", "case_02"]


def test_a_bad_case_is_read_again_each_time(make_dataset, tmp_path, reads):
    folder = make_dataset(cases=4)
    bad = folder / "imagesTr" / "case_02_0000.nii.gz"
    bad.write_bytes(bad.read_bytes()[:1000])
    first = run(folder, tmp_path / "kept")
    assert not (tmp_path / "kept" / "case_02.npz").exists()
    reads.clear()
    assert same(run(folder, tmp_path / "kept"), first) and reads == ["case_02"]


def test_reading_otherwise_is_another_key(make_dataset):
    dataset = open_dataset(make_dataset(cases=2))
    files = dataset.cases[0]
    keys = [
        measuring_key(files, dataset, "lps"),
        measuring_key(files, dataset, "as_stored"),
        measuring_key(files, replace(dataset, labels=None), "lps"),
        measuring_key(files, replace(dataset, channels=("CT",)), "lps"),
        measuring_key(files, replace(dataset, choices=Choices((), False, "to-first")), "lps"),
        measuring_key(dataset.cases[1], dataset, "lps"),
    ]
    assert None not in keys and len(set(keys)) == len(keys)


def test_the_spacing_beside_a_stack_counts(make_dataset, tmp_path):
    dataset = open_dataset(make_dataset(cases=2))
    stack = tmp_path / "a_0000.tif"
    stack.write_bytes(b"x")
    files = replace(dataset.cases[0], images=(stack,))
    keys = [measuring_key(files, dataset, "lps")]
    for name in ("a_0000.json", "a.json"):
        (tmp_path / name).write_text(json.dumps({"spacing": [2, 1, 1]}))
        keys.append(measuring_key(files, dataset, "lps"))
    assert len(set(keys)) == 3


@pytest.mark.parametrize(("name", "line"), [("a.mhd", "ElementDataFile = voxels of a.raw"), ("a.nhdr", "data file: voxels of a.raw")])
def test_voxels_beside_their_header_count(make_dataset, tmp_path, name, line):
    dataset, header, voxels = open_dataset(make_dataset(cases=2)), tmp_path / name, tmp_path / "voxels of a.raw"
    header.write_text(f"first: line\n{line}\n")
    files = replace(dataset.cases[0], images=(header,))
    assert measuring_key(files, dataset, "lps") is None, "the voxels are not there"
    keys = []
    for content in (b"one", b"other", b"one"):
        voxels.write_bytes(content)
        keys.append(measuring_key(files, dataset, "lps"))
    assert keys[0] == keys[2] != keys[1] and None not in keys
    header.write_text(f"first: line\n{line.replace(' of a', '.%03d')}\n")
    assert measuring_key(files, dataset, "lps") is None, "a series of files, which only its reader knows"


def test_nothing_is_written_where_nothing_may_be(make_dataset, tmp_path):
    measure(open_dataset(make_dataset(cases=4)), orientation="lps", workers=0, kept=KeptMeasures(tmp_path / "kept", writes=False))
    assert not (tmp_path / "kept").exists()
