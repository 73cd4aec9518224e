"""A case comes back checked, or its problem named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.case import CaseFiles, LabelMap, Volume
from autoseg.data.formats.readers import read_pixels
from autoseg.data.labels import LabelSet
from autoseg.data.reading import content_key, read_case, read_labels
from autoseg.data.writing import write_labels, write_volume
from autoseg.errors import ChannelError, GridError, IntensityError, LabelError, UnreadableFileError
from autoseg.geometry import Grid, Orientation

GRID = Grid((5, 6, 7), (3.0, 1.0, 0.5), (10.0, -20.0, 30.0))


def image(path: Path, seed: int = 0, grid: Grid = GRID, voxels=None) -> Path:
    voxels = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32) if voxels is None else voxels
    write_volume(path, Volume(voxels[None], grid))
    return path


def label(path: Path, grid: Grid = GRID, voxels=None) -> Path:
    voxels = (np.arange(np.prod(grid.shape)).reshape(grid.shape) % 3).astype(np.uint8) if voxels is None else voxels
    write_labels(path, LabelMap(voxels, grid))
    return path


def raw_label(path: Path, voxels: np.ndarray) -> Path:
    array = sitk.GetImageFromArray(voxels)
    array.SetSpacing(GRID.spacing[::-1])
    array.SetOrigin(GRID.origin)
    sitk.WriteImage(array, str(path))
    return path


def test_channels_are_stacked_in_order(tmp_path):
    paths = tuple(image(tmp_path / f"a_{n:04d}.nii.gz", seed=n) for n in range(3))
    case = read_case(CaseFiles("a", paths), 3, orientation="as_stored")
    for n, path in enumerate(paths):
        assert np.array_equal(case.image.voxels[n], read_pixels(path).values[0])
    assert case.image.voxels.dtype == np.float32 and case.image.voxels.flags.c_contiguous and case.image.voxels.flags.writeable


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_one_file_may_hold_all_channels(tmp_path, ending):
    voxels = np.random.default_rng(0).normal(size=(3, *GRID.shape)).astype(np.float32)
    write_volume(tmp_path / f"a{ending}", Volume(voxels, GRID))
    case = read_case(CaseFiles("a", (tmp_path / f"a{ending}",)), 3, orientation="lps")
    assert np.array_equal(case.image.voxels, voxels)


@pytest.mark.parametrize("files, wanted, message", [(1, 2, "1 channel, 2 expected"), (3, 2, "3 channel files, 2 expected")])
def test_wrong_number_of_channels(tmp_path, files, wanted, message):
    paths = tuple(image(tmp_path / f"a_{n:04d}.nii.gz") for n in range(files))
    with pytest.raises(ChannelError, match=message):
        read_case(CaseFiles("a", paths), wanted, orientation="lps")


@pytest.mark.parametrize("shift, outcome", [(0.002, "silent"), (0.03, "warning"), (0.2, "refused")])
@pytest.mark.parametrize("what", ["channel", "label"])
def test_grids_are_compared_in_voxels(tmp_path, what, shift, outcome):
    other = replace(GRID, origin=(GRID.origin[0] + shift * GRID.spacing[2], *GRID.origin[1:]))
    first = image(tmp_path / "a_0000.nrrd")
    if what == "channel":
        files, channels = CaseFiles("a", (first, image(tmp_path / "other.nrrd", 1, other))), 2
    else:
        files, channels = CaseFiles("a", (first,), label(tmp_path / "other.nrrd", other)), 1
    if outcome == "refused":
        with pytest.raises(GridError, match=r"case a, other.nrrd: its grid lies 0\.1 mm \(0\.2 voxels\) from that of"):
            read_case(files, channels, orientation="lps")
        return
    notices = read_case(files, channels, orientation="lps").notices
    assert [n.severity for n in notices] == ([] if outcome == "silent" else ["warning"])


def test_other_shapes_are_both_said(tmp_path):
    files = CaseFiles("a", (image(tmp_path / "a.nii.gz"),), label(tmp_path / "l.nii.gz", replace(GRID, shape=(5, 6, 8))))
    with pytest.raises(GridError, match=r"\(5, 6, 8\).*\(5, 6, 7\)"):
        read_case(files, 1, orientation="lps")


@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
def test_label_and_channel_in_another_axis_order_are_one_lattice(tmp_path, orientation):
    change = Orientation((2, 0, 1), (True, False, True))
    voxels = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    labels = (voxels > 0).astype(np.uint8)
    first = image(tmp_path / "a_0000.nii.gz", voxels=voxels)
    second = image(tmp_path / "a_0001.nii.gz", voxels=change.apply(2 * voxels), grid=GRID.oriented(change))
    truth = label(tmp_path / "l.nii.gz", GRID.oriented(change), change.apply(labels))
    case = read_case(CaseFiles("a", (first, second), truth), 2, orientation=orientation)
    assert np.array_equal(case.image.voxels[1], 2 * case.image.voxels[0])
    assert np.array_equal(case.labels.voxels, case.image.voxels[0] > 0) and case.labels.grid == case.image.grid
    assert case.notices == ()


def test_as_stored_leaves_the_axes(tmp_path):
    change = Orientation((1, 2, 0), (True, True, False))
    grid = GRID.oriented(change)
    case = read_case(CaseFiles("a", (image(tmp_path / "a.nrrd", grid=grid),), label(tmp_path / "l.nrrd", grid)), 1, orientation="as_stored")
    assert case.orientation.is_identity and case.image.grid == case.stored and case.image.voxels.shape[1:] == grid.shape


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value, message", [(np.nan, "2 NaN and 0 infinite"), (np.inf, "0 NaN and 2 infinite")])
def test_values_that_are_none(tmp_path, ending, value, message):
    voxels = np.ones(GRID.shape, np.float32)
    voxels[1, 1, 1:3] = value
    voxels[0, 0, 0] = 5
    with pytest.raises(IntensityError, match=message):
        read_case(CaseFiles("a", (image(tmp_path / f"a{ending}", voxels=voxels),)), 1, orientation="lps")


def test_a_constant_channel_is_named_by_its_file(tmp_path):
    paths = (image(tmp_path / "a_0000.nii.gz"), image(tmp_path / "a_0001.nii.gz", voxels=np.zeros(GRID.shape, np.float32)))
    with pytest.raises(IntensityError, match=r"case a, a_0001.nii.gz: every voxel is 0"):
        read_case(CaseFiles("a", paths), 2, orientation="lps")


@pytest.mark.parametrize("highest, dtype", [(255, np.uint8), (256, np.uint16), (70000, np.uint32)])
def test_labels_of_any_type_come_in_the_smallest_unsigned_one(tmp_path, highest, dtype):
    voxels = np.zeros(GRID.shape, np.int32)
    voxels[0, 0, 0] = highest
    labels = read_labels(raw_label(tmp_path / "l.nii.gz", voxels), case="a")
    assert labels.voxels.dtype == dtype and labels.voxels.max() == highest


def test_float_masks_are_taken_with_a_notice(tmp_path):
    voxels = np.zeros(GRID.shape, np.float32)
    voxels[1] = 1.0004
    voxels[2] = -0.0002
    files = CaseFiles("a", (image(tmp_path / "a.nii.gz"),), raw_label(tmp_path / "l.nii.gz", voxels))
    case = read_case(files, 1, orientation="lps")
    assert np.unique(case.labels.voxels).tolist() == [0, 1] and case.labels.voxels.dtype == np.uint8
    assert [(n.severity, n.kind, n.case, n.file) for n in case.notices] == [("warning", "LabelError", "a", "l.nii.gz")]


@pytest.mark.parametrize("value, message", [(0.5, r"no integers \(0\.5\)"), (np.nan, "no integers"), (-1.0, "negative labels, down to -1")])
def test_labels_that_are_none(tmp_path, value, message):
    voxels = np.zeros(GRID.shape, np.float32)
    voxels[0, 0] = value
    with pytest.raises(LabelError, match=message):
        read_labels(raw_label(tmp_path / "l.nrrd", voxels), case="a")


def test_one_hot_labels_are_refused(tmp_path):
    write_volume(tmp_path / "l.nii.gz", Volume(np.zeros((3, *GRID.shape), np.uint8), GRID))
    with pytest.raises(LabelError, match="one channel, this has 3"):
        read_labels(tmp_path / "l.nii.gz", case="a")


def test_no_permission_is_its_own_cause(tmp_path, monkeypatch):
    path = image(tmp_path / "a.nii.gz")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # chmod would not stop root
    with pytest.raises(UnreadableFileError, match=r"case a, a.nii.gz: no permission to read it"):
        read_case(CaseFiles("a", (path,)), 1, orientation="lps")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".png", ".tif"])
def test_truncated_files_of_other_formats_are_refused(tmp_path, ending):
    grid = Grid((1, 60, 60), planar=True) if ending in (".png", ".tif") else Grid((20, 60, 60))
    voxels = np.random.default_rng(0).integers(0, 255, grid.shape).astype(np.uint8)
    path = label(tmp_path / f"a{ending}", grid, voxels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    with pytest.raises(UnreadableFileError):
        read_case(CaseFiles("a", (path,)), 1, orientation="lps")


def test_dots_per_inch_of_pictures_do_not_part_image_and_label(tmp_path):
    for name, spacing, top in (("a.png", 0.2, 255), ("l.png", 1.0, 1)):
        picture = sitk.GetImageFromArray((np.arange(30).reshape(5, 6) % (top + 1)).astype(np.uint8))
        picture.SetSpacing((spacing, spacing))
        sitk.WriteImage(picture, str(tmp_path / name))
    case = read_case(CaseFiles("a", (tmp_path / "a.png",), tmp_path / "l.png"), 1, orientation="lps")
    assert case.stored.planar and case.stored.spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("spacing", ["1 1 0", "1 -1 1"])
def test_impossible_spacing_in_metaimage(tmp_path, spacing):
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = 0 0 0\nElementSpacing = {spacing}\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_bytes(head.encode() + bytes(range(8)))
    with pytest.raises(GridError, match="spacing"):
        read_case(CaseFiles("a", (tmp_path / "a.mha",)), 1, orientation="lps")


def test_content_key_depends_on_values_and_shape_alone():
    voxels = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    assert content_key(voxels) == content_key(np.asfortranarray(voxels)) == content_key(voxels.astype(np.float64))
    changed = voxels.copy()
    changed[0, 3, 4, 5] += 1e-3
    assert content_key(changed) != content_key(voxels) != content_key(voxels.reshape(1, 5, 4, 6))


def test_light_modules_stay_light():
    import subprocess
    import sys

    code = (
        "import sys; import autoseg.data.reading, autoseg.data.folders.layouts, autoseg.data.writing\n"
        "print(sorted({'SimpleITK', 'nibabel', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_sparse_label_values_are_indices_inside_and_values_in_files(tmp_path):
    voxels = np.random.default_rng(0).choice([0, 7, 300], size=GRID.shape).astype(np.uint16)
    case = read_case(CaseFiles("a", (image(tmp_path / "a.nii.gz"),), label(tmp_path / "l.nrrd", voxels=voxels)), 1, orientation="as_stored")
    labels = LabelSet.declared({"background": 0, "tumour": 300, "liver": 7})
    indices = labels.encode(case.labels.voxels)
    assert labels.file_values == (0, 7, 300) and np.array_equal(indices, np.searchsorted([0, 7, 300], voxels))
    assert np.array_equal(np.array(labels.file_values)[indices], voxels)
