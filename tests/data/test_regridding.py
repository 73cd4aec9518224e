"""Images and labels on another grid are brought over in physical space: against scipy's splines at each voxel's own point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from autoseg.data.case import CaseFiles, LabelMap, Volume
from autoseg.data.formats.readers import read_pixels
from autoseg.data.reading import read_case
from autoseg.data.regridding import regridded_image, regridded_labels
from autoseg.data.writing import write_labels, write_volume
from autoseg.errors import GridError
from autoseg.geometry import Grid, Orientation

FIRST = Grid((14, 20, 18), (2.0, 1.0, 1.1), (-5.0, 7.0, 30.0))


def turned(degrees: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().reshape(-1))


OTHERS = {
    "finer": Grid((33, 30, 31), (0.9, 0.8, 0.7), (-6.0, 6.5, 29.0)),
    "coarser": Grid((5, 7, 8), (6.0, 3.1, 2.9), (-5.5, 6.0, 29.0)),
    "turned": Grid((26, 40, 40), (1.5, 0.9, 0.8), (-12.0, 0.0, 22.0), turned((20, -15, 30))),
    "other axes": Grid((31, 25, 22), (0.9, 1.1, 1.2), (-7.0, 5.0, 29.0), turned((4, 0, 2))).oriented(
        Orientation((2, 0, 1), (True, False, True))
    ),
    "sheared": Grid((16, 24, 22), (2.1, 1.0, 1.2), (-6.0, 2.0, 28.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.2588, 0.0, 0.0, 0.9659)),
    "one slice": Grid((1, 24, 22), (3.0, 1.0, 1.0), (-6.0, 6.0, 40.0)),
    "three slices": Grid((3, 24, 22), (7.0, 1.0, 1.0), (-6.0, 6.0, 36.0)),
    "two slices": Grid((2, 24, 22), (9.0, 1.0, 1.0), (-6.0, 6.0, 36.0)),
}


def by_scipy(values, grid, target, order, outside):
    """Each voxel of the target at its own point; scipy's `mirror` is the spline that ITK continues beyond the outermost centres."""
    at = grid.indices(target.points(np.argwhere(np.ones(target.shape)))).T
    found = map_coordinates(values.astype(float), at, order=order, mode="mirror" if order else "nearest")
    from_edge = np.array(grid.shape) / 2 - np.abs(at.T - (np.array(grid.shape) - 1) / 2)
    inside, on_edge = (from_edge >= -1e-6).all(axis=1), (np.abs(from_edge) < 1e-4).any(axis=1)
    found = np.where(inside, np.clip(found, values.min(), values.max()), outside)
    return found.reshape(target.shape), inside.reshape(target.shape), on_edge.reshape(target.shape)


def picture(grid: Grid, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=grid.shape)
    return (200 * gaussian_filter(noise, 0.8) - 40).astype(np.float32)


@pytest.mark.parametrize("name", OTHERS)
def test_images_are_cubic_and_what_is_outside_is_the_minimum(name):
    grid = OTHERS[name]
    values = picture(grid)
    voxels, notices = regridded_image(values, grid, FIRST, file=Path("a.nii"))
    wanted, inside, on_edge = by_scipy(values, grid, FIRST, 3, values.min())
    assert voxels.dtype == np.float32
    assert np.abs(voxels - wanted)[~on_edge].max() < 1e-4 * np.ptp(values) and on_edge.mean() < 0.1
    assert ((voxels == values.min()) == ~inside)[~on_edge].mean() > 0.99
    shares = [n.message for n in notices if "field of view" in n.message]
    assert bool(shares) == (inside.mean() < 0.999)
    assert not shares or f"covers {100 * inside.mean():.3g} %" in shares[0]


@pytest.mark.parametrize("name", OTHERS)
def test_labels_take_the_nearest_voxel_and_what_is_outside_is_background(name):
    grid = OTHERS[name]
    values = np.random.default_rng(1).integers(0, 300, grid.shape).astype(np.uint16)
    voxels, _ = regridded_labels(values, grid, FIRST, background=7, file=Path("a.nii"))
    wanted, _, _ = by_scipy(values, grid, FIRST, 0, 7)
    at = grid.indices(FIRST.points(np.argwhere(np.ones(FIRST.shape)))).reshape(*FIRST.shape, 3)
    tie = (np.abs(at - np.floor(at) - 0.5) < 1e-3).any(axis=-1)  # midway between voxels either is the nearest
    assert voxels.dtype == np.uint16 and np.array_equal(voxels[~tie], wanted[~tie]) and tie.mean() < 0.4


def test_a_grid_that_is_the_same_but_for_its_axes_gives_the_same_voxels():
    change = Orientation((1, 2, 0), (True, False, True))
    values = picture(FIRST)
    voxels, notices = regridded_image(change.apply(values), FIRST.oriented(change), FIRST, file=Path("a"))
    assert np.abs(voxels - values).max() < 1e-3 and len(notices) == 1
    labels = (values > 0).astype(np.uint8)
    assert np.array_equal(regridded_labels(change.apply(labels), FIRST.oriented(change), FIRST, background=0, file=Path("a"))[0], labels)


def test_a_smooth_image_comes_back_from_a_finer_grid():
    z, y, x = np.indices(FIRST.shape)
    values = (100 * np.sin(z / 4) * np.cos(y / 5) + 30 * np.sin(x / 3)).astype(np.float32)
    finer = Grid((40, 44, 44), (0.9, 0.6, 0.6), (-7.0, 5.0, 27.0), turned((3, 5, -8)))
    there, _ = regridded_image(values, FIRST, finer, file=Path("a"))
    back, _ = regridded_image(there, finer, FIRST, file=Path("a"))
    middle = (slice(3, -3), slice(4, -4), slice(4, -4))
    assert np.abs(back - values)[middle].max() < 0.02 * np.ptp(values)


def test_images_of_different_places_are_refused():
    far = replace(FIRST, origin=(500.0, 0.0, 0.0))
    with pytest.raises(GridError, match=r"a\.nii: it shows no part of what the first image shows"):
        regridded_image(picture(far), far, FIRST, file=Path("a.nii"))


def save(path: Path, voxels: np.ndarray, grid: Grid) -> Path:
    write_volume(path, Volume(voxels[None].astype(np.float32), grid))
    return path


def test_channels_and_labels_on_other_grids_are_refused_with_the_switch_as_remedy(tmp_path):
    first = save(tmp_path / "t1.nii.gz", picture(FIRST), FIRST)
    other = save(tmp_path / "flair.nii.gz", picture(OTHERS["finer"]), OTHERS["finer"])
    label = tmp_path / "label.nii.gz"
    write_labels(label, LabelMap((picture(OTHERS["finer"]) > 0).astype(np.uint8), OTHERS["finer"]))
    for files, channels in ((CaseFiles("a", (first, other)), 2), (CaseFiles("a", (first,), label), 1)):
        with pytest.raises(GridError) as found:
            read_case(files, channels, orientation="lps")
        assert "--regrid to-first" in found.value.remedy


@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
def test_a_case_of_different_grids_is_read_on_the_first_ones(tmp_path, orientation):
    stored = FIRST.oriented(Orientation((1, 0, 2), (False, True, True)))
    grid, values = OTHERS["turned"], picture(OTHERS["turned"])
    labels = (picture(OTHERS["coarser"], 3) > 0).astype(np.uint8) * 3
    first = save(tmp_path / "t1.nrrd", picture(stored), stored)
    second, third = save(tmp_path / "t2.nrrd", picture(stored, 1), stored), save(tmp_path / "flair.nrrd", values, grid)
    write_labels(tmp_path / "label.nrrd", LabelMap(labels, OTHERS["coarser"]))
    files = CaseFiles("a", (first, second, third), tmp_path / "label.nrrd")
    case = read_case(files, 3, orientation=orientation, regrid="to_first")
    assert case.stored == read_pixels(first).grid and np.array_equal(case.image.voxels[1], case.orientation.apply(picture(stored, 1)))
    on_grid, notices = regridded_image(values, read_pixels(third).grid, case.stored, file=third)
    assert np.array_equal(case.image.voxels[2], case.orientation.apply(on_grid))
    nearest, _ = regridded_labels(labels, read_pixels(files.label).grid, case.stored, background=0, file=files.label)
    assert np.array_equal(case.labels.voxels, case.orientation.apply(nearest))
    said = [notice.message for notice in case.notices]
    assert sum("resampled onto the grid of the first image" in message for message in said) == 2
    assert notices[1].message in said and "field of view" in notices[1].message


def test_the_content_key_of_resampled_channels_is_of_what_they_were_before(tmp_path):
    grid = OTHERS["finer"]
    first, other = save(tmp_path / "t1.nrrd", picture(FIRST), FIRST), save(tmp_path / "flair.nrrd", picture(grid), grid)
    key = read_case(CaseFiles("a", (first, other)), 2, orientation="lps", regrid="to_first").content_key
    change = Orientation((2, 0, 1), (True, False, False))
    again = save(tmp_path / "again.nii.gz", change.apply(picture(grid)), grid.oriented(change))
    moved = save(tmp_path / "moved.nrrd", picture(grid), replace(grid, origin=(grid.origin[0] + 1, *grid.origin[1:])))
    assert read_case(CaseFiles("a", (first, again)), 2, orientation="as_stored", regrid="to_first").content_key == key
    assert read_case(CaseFiles("a", (first, moved)), 2, orientation="lps", regrid="to_first").content_key != key


def test_cases_on_one_grid_are_the_same_with_the_switch(tmp_path):
    files = CaseFiles("a", tuple(save(tmp_path / f"{n}.nrrd", picture(FIRST, n), FIRST) for n in range(2)))
    plain, switched = (read_case(files, 2, orientation="lps", regrid=how) for how in ("none", "to_first"))
    assert np.array_equal(plain.image.voxels, switched.image.voxels) and plain.content_key == switched.content_key
    assert plain.notices == switched.notices == ()
