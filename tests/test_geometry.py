"""Grids keep points where they are, whatever is done to the arrays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.geometry import Grid, Orientation, to_lps, whole_box

EVERY = [Orientation(axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)]


@st.composite
def grids(draw) -> Grid:
    turn = Rotation.from_euler("xyz", [draw(st.floats(-25, 25)) for _ in range(3)], degrees=True).as_matrix()
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.2, 8)) for _ in range(3))
    origin = tuple(draw(st.floats(-300, 300)) for _ in range(3))
    return Grid(shape, spacing, origin, tuple(turn.reshape(-1)))


@pytest.mark.parametrize("orientation", EVERY)
def test_inverse_undoes_every_orientation(orientation):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert np.array_equal(orientation.inverse().apply(orientation.apply(array)), array)


@settings(max_examples=60, deadline=None)
@given(grid=grids(), orientation=st.sampled_from(EVERY))
def test_oriented_grid_places_each_voxel_where_it_was(grid, orientation):
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"))  # (3, z, y, x): each voxel holds its own index
    moved = grid.oriented(orientation)
    there = orientation.apply(indices)
    assert there.shape[1:] == moved.shape
    new = np.stack(np.meshgrid(*(np.arange(n) for n in moved.shape), indexing="ij")).reshape(3, -1).T
    assert np.allclose(moved.points(new), grid.points(there.reshape(3, -1).T), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(grid=grids(), orientation=st.sampled_from(EVERY))
def test_to_lps_finds_the_way_back_from_any_axis_order(grid, orientation):
    home = grid.oriented(to_lps(grid))
    again = grid.oriented(orientation)
    again = again.oriented(to_lps(again))
    assert home.shape == again.shape and home.distance(again) < 1e-6


def test_to_lps_of_a_right_anterior_superior_grid_flips_x_and_y():
    ras = Grid((4, 5, 6), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert to_lps(ras) == Orientation((0, 1, 2), (False, True, True))


def test_points_of_a_known_grid():
    grid = Grid((4, 5, 6), (3.0, 2.0, 0.5), (10.0, 20.0, 30.0))
    assert np.allclose(grid.points(np.array([[1, 2, 4]])), [[12.0, 24.0, 33.0]])
    assert np.allclose(grid.indices(np.array([[12.0, 24.0, 33.0]])), [[1, 2, 4]])
    assert grid.voxel_ml == pytest.approx(0.003)


def test_cropped_and_resampled_grids_keep_the_extent():
    grid = Grid((4, 6, 8), (3.0, 2.0, 1.0), (1.0, 2.0, 3.0))
    box = grid.cropped(((1, 3), (2, 6), (0, 8)))
    assert box.shape == (2, 4, 8) and box.origin == (1.0, 6.0, 6.0)
    fine = grid.resampled((8, 12, 16))
    assert fine.spacing == (1.5, 1.0, 0.5)
    edges = [np.array([[-0.5] * 3]), np.array([[n - 0.5 for n in grid.shape]])]
    fine_edges = [np.array([[-0.5] * 3]), np.array([[n - 0.5 for n in fine.shape]])]
    for here, there in zip(edges, fine_edges, strict=True):
        assert np.allclose(grid.points(here), fine.points(there))
    assert whole_box((2, 3, 4)) == ((0, 2), (0, 3), (0, 4))


def test_distance_is_in_voxels_and_infinite_for_other_shapes():
    grid = Grid((4, 6, 8), (5.0, 2.0, 1.0))
    assert grid.distance(Grid((4, 6, 8), (5.0, 2.0, 1.0), (0.0, 0.0, 2.5))) == pytest.approx(0.5)
    assert grid.distance(Grid((4, 6, 8), (5.0, 2.0, 1.1))) == pytest.approx(0.7)  # 7 steps of 0.1 mm
    assert grid.distance(Grid((4, 6, 7), (5.0, 2.0, 1.0))) == float("inf")


def test_tilt_is_the_angle_to_the_nearest_axes():
    turned = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    assert Grid((2, 2, 2), direction=tuple(turned.reshape(-1))).tilt() == pytest.approx(20)
    assert Grid((2, 2, 2)).oriented(Orientation((2, 0, 1), (True, False, True))).tilt() == pytest.approx(0)
