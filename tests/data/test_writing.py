"""Results lie on the grid that the image came with, in every format and axis order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.case import CaseFiles, LabelMap, Volume
from autoseg.data.reading import read_case, read_labels
from autoseg.data.writing import on_stored_grid, write_labels, write_volume
from autoseg.errors import DatasetError, ResourceError
from autoseg.geometry import Grid, Orientation

TURNED = (0.98480775301, -0.17364817767, 0.0, 0.17364817767, 0.98480775301, 0.0, 0.0, 0.0, 1.0)  # 10 degrees about z
HOME = Grid((4, 5, 6), (2.5, 0.8, 0.7), (-31.5, 42.25, 7.0), TURNED)
EVERY = [Orientation(axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)]
ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr"]


def same(one: Grid, other: Grid) -> bool:
    """Equal to what the 32-bit numbers of a NIfTI header can hold."""
    return (
        one.shape == other.shape
        and one.planar == other.planar
        and np.allclose(one.spacing, other.spacing, rtol=1e-6)
        and np.allclose(one.origin, other.origin, atol=1e-5)
        and np.allclose(one.direction, other.direction, atol=1e-6)
    )


@pytest.mark.parametrize("number", range(48))
def test_all_48_axis_orders_read_alike_and_results_go_back(tmp_path, number):
    change, ending = EVERY[number], (".nii.gz", ".nrrd", ".mha")[number % 3]
    rng = np.random.default_rng(1)
    voxels, truth = rng.normal(size=HOME.shape).astype(np.float32), rng.integers(0, 3, HOME.shape).astype(np.uint8)
    stored = HOME.oriented(change)
    write_volume(tmp_path / f"a{ending}", Volume(change.apply(voxels)[None], stored))
    write_labels(tmp_path / f"l{ending}", LabelMap(change.apply(truth), stored))
    case = read_case(CaseFiles("a", (tmp_path / f"a{ending}",), tmp_path / f"l{ending}"), 1, orientation="lps")
    assert np.array_equal(case.image.voxels[0], voxels) and np.array_equal(case.labels.voxels, truth)
    assert same(case.image.grid, HOME) and same(case.stored, stored)

    prediction = (voxels > 0.5).astype(np.uint8)
    write_labels(tmp_path / f"p{ending}", LabelMap(on_stored_grid(prediction, case.orientation, case.stored), case.stored))
    back = sitk.ReadImage(str(tmp_path / f"p{ending}"))  # an independent reader sees the image's own grid and the moved labels
    original = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(original) > 0.5)
    assert back.GetSize() == original.GetSize() and np.allclose(back.GetSpacing(), original.GetSpacing())
    assert np.allclose(back.GetOrigin(), original.GetOrigin(), atol=1e-5)
    assert np.allclose(back.GetDirection(), original.GetDirection(), atol=1e-6)


def test_the_content_key_is_the_same_in_all_axis_orders(tmp_path):
    voxels = np.random.default_rng(1).normal(size=HOME.shape).astype(np.float32)
    keys = set()
    for change, orientation in itertools.product(EVERY[::5], ("lps", "as_stored")):
        write_volume(tmp_path / "a.nii", Volume(change.apply(voxels)[None], HOME.oriented(change)))
        keys.add(read_case(CaseFiles("a", (tmp_path / "a.nii",)), 1, orientation=orientation).content_key)
    assert len(keys) == 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_grid_and_labels_survive_every_format(tmp_path, ending):
    voxels = np.random.default_rng(0).integers(0, 300, HOME.shape)
    path = tmp_path / "out" / f"case.1{ending}"
    write_labels(path, LabelMap(voxels, HOME))
    again = read_labels(path, case="a")
    assert again.voxels.dtype == np.uint16 and np.array_equal(again.voxels, voxels) and same(again.grid, HOME)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # one file, nothing beside it


@pytest.mark.parametrize("ending", [".nii.gz", ".png", ".tif", ".nrrd", ".mha"])
def test_planar_label_maps_become_two_dimensional_files(tmp_path, ending):
    grid = Grid((1, 5, 6), planar=True)
    voxels = np.arange(30, dtype=np.uint8).reshape(grid.shape)
    path = tmp_path / f"a{ending}"
    write_labels(path, LabelMap(voxels, grid))
    assert sitk.ReadImage(str(path)).GetDimension() == 2
    again = read_labels(path, case="a")
    assert np.array_equal(again.voxels, voxels) and again.grid == grid


def test_a_planar_image_keeps_its_place_in_the_patient_as_nifti(tmp_path):
    sagittal = Grid((1, 5, 6), (3.0, 0.8, 0.7), (12.0, -20.0, 30.0), (0, 0, 1, 1, 0, 0, 0, -1, 0), planar=True)
    write_volume(tmp_path / "a.nii.gz", Volume(np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6), sagittal))
    case = read_case(CaseFiles("a", (tmp_path / "a.nii.gz",)), 1, orientation="lps")
    assert same(case.stored, sagittal) and case.image.voxels.shape == (1, 1, 5, 6) and case.orientation.is_identity


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tmp_path, ending):
    resource = pytest.importorskip("resource")
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    grid = Grid((20, 40, 40))
    voxels = np.random.default_rng(0).integers(0, 255, grid.shape).astype(np.uint8)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(ResourceError):
            write_labels(tmp_path / f"a{ending}", LabelMap(voxels, grid))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, message", [("a.jpg", "JPEG"), ("a.png", "does not fit"), ("a.foo", "no format")])
def test_formats_that_cannot_hold_a_label_map_are_refused(tmp_path, name, message):
    with pytest.raises(DatasetError, match=message):
        write_labels(tmp_path / name, LabelMap(np.zeros(HOME.shape, np.uint8), HOME))
    assert list(tmp_path.iterdir()) == []


def test_a_stack_of_pages_goes_and_comes_with_its_spacing(tmp_path):
    labels = np.random.default_rng(0).integers(0, 300, (3, 20, 24)).astype(np.uint16)  # three pages are no colours
    write_labels(tmp_path / "a.tif", LabelMap(labels, Grid(labels.shape, (2.5, 0.5, 0.75))))
    again = read_labels(tmp_path / "a.tif", case="a")
    assert np.array_equal(again.voxels, labels) and again.grid == Grid(labels.shape, (2.5, 0.5, 0.75))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.tif"]
