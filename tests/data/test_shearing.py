"""Slices of a tilted gantry are shifted straight, and results go back to the slices as they lie: checked at points in the patient."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoseg.data.case import CaseFiles, LabelMap, Volume
from autoseg.data.reading import case_of_array, read_case, read_labels
from autoseg.data.shearing import sheared_image, sheared_labels, straight_image, straight_labels
from autoseg.data.writing import on_stored_grid, write_labels, write_volume
from autoseg.geometry import Grid


def tilted(shape=(9, 40, 44), spacing=(3.0, 0.9, 0.8), shears=(0.0, 0.0, 0.27), order=(0, 1, 2), seed=0) -> Grid:
    """A grid of any direction whose axes x, y, z (then reordered) are sheared by y on x, z on x and z on y."""
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    steps = turned * spacing[::-1]
    steps[:, 1] += shears[0] * turned[:, 0] * spacing[1]
    steps[:, 2] += (shears[1] * turned[:, 0] + shears[2] * turned[:, 1]) * spacing[0]
    steps = steps[:, list(order)]
    norms = np.linalg.norm(steps, axis=0)
    return Grid(tuple(shape[2 - axis] for axis in order)[::-1], tuple(norms[::-1]), (5.0, -7.0, 11.0), tuple((steps / norms).ravel()))


def smooth(points: np.ndarray) -> np.ndarray:
    """A function of points in the patient that voxels of a millimetre follow."""
    return 40 + 30 * np.sin(points[:, 0] / 7) * np.cos(points[:, 1] / 9 + 1) + 20 * np.sin(points[:, 2] / 8 + points[:, 0] / 15)


def everywhere(grid: Grid) -> np.ndarray:
    """The points of all voxels, in the array's order."""
    return grid.points(np.array(list(itertools.product(*map(range, grid.shape)))))


SHEARS = [(0.0, 0.0, 0.27), (0.0, 0.0, -0.5), (0.0, 0.3, 0.2), (0.1, 0.0, 0.0), (0.15, -0.2, 0.3)]
ORDERS = [(0, 1, 2), (2, 0, 1), (1, 2, 0)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shears", SHEARS)
def test_the_straight_image_shows_the_same_at_every_point(shears, order):
    grid = tilted(shears=shears, order=order)
    straight = grid.straight()
    assert grid.sheared and not straight.sheared
    image = smooth(everywhere(grid)).reshape(grid.shape).astype(np.float32)
    found = straight_image(image[None], grid)[0]
    points = everywhere(straight)
    index = grid.indices(points)
    well_inside = ((index >= 1) & (index <= np.array(grid.shape) - 2)).all(axis=1).reshape(straight.shape)
    assert well_inside.sum() > 0.2 * found.size
    assert np.abs(found - smooth(points).reshape(straight.shape))[well_inside].max() < 0.15
    beyond = ((index < -1.01) | (index > np.array(grid.shape) + 0.01)).any(axis=1).reshape(straight.shape)
    assert (found[beyond] == image.min()).all()


@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.sampled_from(ORDERS), st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_label_map_that_goes_there_and_back_is_the_same_in_every_voxel(shears, order, shape, seed):
    grid = tilted(shape, (2.0, 1.0, 0.7), shears, order, seed)
    assume(grid.sheared)  # what is not is left as it is
    labels = np.random.default_rng(seed).integers(0, 9, grid.shape).astype(np.uint8)
    there = straight_labels(labels, grid)
    assert np.array_equal(sheared_labels(there, grid), labels)
    assert np.array_equal(np.bincount(there.ravel(), minlength=9)[1:], np.bincount(labels.ravel(), minlength=9)[1:])


def test_straight_labels_are_those_of_the_nearest_voxel():
    grid = tilted()
    labels = np.random.default_rng(1).integers(0, 5, grid.shape).astype(np.uint8)
    straight = grid.straight()
    index = grid.indices(everywhere(straight))
    nearest = np.rint(index).astype(int)
    inside = ((nearest >= 0) & (nearest < grid.shape)).all(axis=1)
    clear = (np.abs(index - nearest) < 0.499).all(axis=1)
    found = straight_labels(labels, grid).ravel()
    assert np.array_equal(found[inside & clear], labels[tuple(nearest[inside & clear].T)])
    assert not found[~inside & clear].any()


def test_probabilities_go_back_linearly_and_sum_to_one():
    grid = tilted()
    straight = grid.straight()
    first = 0.5 + smooth(everywhere(straight)).reshape(straight.shape) / 400
    back = sheared_image(np.stack([first, 1 - first]).astype(np.float32), grid)
    assert np.abs(back.sum(axis=0) - 1).max() < 1e-5
    assert np.abs(back[0] - (0.5 + smooth(everywhere(grid)).reshape(grid.shape) / 400)).max() < 2e-3


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
def test_a_sheared_file_is_read_straight_and_its_result_lies_on_its_own_slices(tmp_path, ending, orientation):
    grid = tilted(order=(2, 0, 1), seed=3)
    image = smooth(everywhere(grid)).reshape(grid.shape).astype(np.float32)
    truth = (image > 50).astype(np.uint8)
    write_volume(tmp_path / f"image{ending}", Volume(image[None], grid))
    write_labels(tmp_path / f"label{ending}", LabelMap(truth, grid))
    case = read_case(CaseFiles("a", (tmp_path / f"image{ending}",), tmp_path / f"label{ending}"), 1, orientation=orientation)
    assert not case.image.grid.sheared and case.stored.distance(grid) < 1e-3
    assert [n.message.split(":")[0] for n in case.notices] == ["its axes are 15.1 degrees from perpendicular, as of a tilted gantry"] * 2
    again = on_stored_grid((case.image.voxels[0] > 50).astype(np.uint8), case.orientation, case.stored)
    assert (again != truth).mean() < 0.02 and np.array_equal(on_stored_grid(case.labels.voxels, case.orientation, case.stored), truth)
    write_labels(tmp_path / f"result{ending}", LabelMap(again, case.stored))
    written = read_labels(tmp_path / f"result{ending}", case="a")
    assert np.abs(written.grid.corners() - grid.corners()).max() < 1e-3 and np.array_equal(written.voxels, again)


def test_the_content_key_is_of_the_slices_as_stored(tmp_path):
    grid = tilted()
    image = np.random.default_rng(0).integers(0, 99, grid.shape).astype(np.float32)
    keys = set()
    for ending in (".nii", ".nrrd"):
        write_volume(tmp_path / f"a{ending}", Volume(image[None], grid))
        keys.add(read_case(CaseFiles("a", (tmp_path / f"a{ending}",)), 1, orientation="lps").content_key)
    keys.add(case_of_array("a", image[None], grid, orientation="as_stored").content_key)
    assert len(keys) == 1


def test_voxels_of_a_sheared_grid_have_the_volume_of_their_parallelepiped():
    grid = tilted(spacing=(2.0, 1.0, 1.0))
    assert grid.voxel_ml == pytest.approx(0.002) and replace(grid.straight()).voxel_ml == pytest.approx(0.002)


def test_other_programs_read_the_sheared_label_map_alike(tmp_path):
    import nibabel

    grid = tilted(order=(0, 1, 2))
    write_labels(tmp_path / "a.nii.gz", LabelMap(np.ones(grid.shape, np.uint8), grid))
    file = nibabel.load(tmp_path / "a.nii.gz")
    assert np.abs(np.diag([-1, -1, 1]) @ file.affine[:3, :3] - grid.axes[:, ::-1]).max() < 1e-6 and file.header["qform_code"] == 0
    write_labels(tmp_path / "a.nrrd", LabelMap(np.ones(grid.shape, np.uint8), grid))
    other = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    last = tuple(n - 1 for n in grid.shape[::-1])
    assert other.TransformIndexToPhysicalPoint(last) == pytest.approx(grid.points(np.array([grid.shape]) - 1)[0], abs=1e-4)
