"""Overlays show the right slice, the right way round, in the right colours."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.data.case import LabelMap, Volume
from autoseg.data.labels import LabelSet
from autoseg.errors import GridError
from autoseg.geometry import Grid, Orientation
from autoseg.report.colours import INFECTION_RED, LUNG_BLUE, PALETTE, colours_of
from autoseg.report.pictures import choose_slices, draw_montage, gray_window, index_colours, overlay, slices_of

LABELS = LabelSet.declared({"background": 0, "lung_left": 1, "lung_right": 2, "infection": 7})


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    grid = Grid((9, 16, 24), (5.0, 1.0, 2.0))
    voxels = rng.uniform(-1000, 100, (1, *grid.shape)).astype(np.float32)
    truth = np.zeros(grid.shape, np.uint8)
    truth[2:8, 3:12, 14:22] = 1  # LPS: larger x is the patient's left
    truth[2:8, 3:12, 2:10] = 2
    truth[4, 5:8, 15:18] = 7
    truth[5, 5:10, 15:20] = 7
    return Volume(voxels, grid), LabelMap(truth, grid)


def test_the_slice_with_most_of_the_rarest_class_is_shown(made):
    image, truth = made
    (shown,) = slices_of("a", image, truth, None, LABELS, kind="hu")
    assert shown.title == "a, slice 6 of 9" and (shown.truth == 3).sum() == 25 and shown.prediction is None
    assert shown.spacing == (1.0, 2.0)


def test_however_it_is_stored_the_patients_right_is_on_the_left(made):
    image, truth = made
    (expected,) = slices_of("a", image, truth, truth, LABELS, kind="hu")
    columns = {name: np.argwhere(expected.truth == index)[:, 1].mean() for name, index in (("lung_left", 1), ("lung_right", 2))}
    assert columns["lung_right"] < columns["lung_left"]
    for turned in (Orientation((2, 0, 1), (True, False, True)), Orientation((1, 2, 0), (False, True, False))):
        grid = image.grid.oriented(turned)
        stored = Volume(turned.apply(image.voxels), grid)
        (found,) = slices_of("a", stored, truth, LabelMap(turned.apply(truth.voxels), grid), LABELS, kind="hu")
        np.testing.assert_array_equal(found.gray, expected.gray)
        np.testing.assert_array_equal(found.truth, expected.truth)
        np.testing.assert_array_equal(found.prediction, expected.truth)
        assert found.spacing == expected.spacing


def test_the_window_follows_the_kind(made):
    image, truth = made
    (shown,) = slices_of("a", image, truth, None, LABELS, kind="hu")
    np.testing.assert_allclose(shown.gray, (image.voxels[0, 5] + 1250) / 1500, rtol=1e-5)
    assert gray_window(image.voxels[0], "windowed") == (0, 255)
    low, high = gray_window(np.arange(1001.0).reshape(1, 1, -1), "arbitrary")
    assert (low, high) == pytest.approx((5, 995))
    assert gray_window(np.ones((3, 3, 3)), "arbitrary") == (1, 2)


def test_several_slices_spread_over_the_class():
    guide = np.zeros((20, 4, 4), np.uint8)
    guide[4:16] = 1
    guide[5:13, 1, 1] = 2
    guide[7, 1:3, 1:3] = 2
    assert choose_slices(guide, 20, 2) == [7, 9] and choose_slices(guide, 20, 1) == [7]
    assert choose_slices(np.zeros((20, 4, 4), np.uint8), 20, 3) == [10] and choose_slices(None, 5, 1) == [2]


def test_lungs_are_blue_and_infection_red_at_three_tenths():
    colours = colours_of(LABELS.names)
    assert colours == {"lung_left": LUNG_BLUE, "lung_right": LUNG_BLUE, "infection": INFECTION_RED}
    shown = overlay(np.full((1, 3, 3), 0.5), np.array([[0, 1, 3]]), index_colours(LABELS, colours))
    np.testing.assert_allclose(shown[0], [[0.5, 0.5, 0.5], [0.35, 0.35, 0.65], [0.65, 0.35, 0.35]])


def test_other_labels_are_told_apart():
    names = ("liver", "kidney", "lung_lesion", "lung_nodule_lesion", "lung")
    colours = colours_of(names)
    assert colours["lung"] == LUNG_BLUE and len(set(colours.values())) == 5 and colours["liver"] == PALETTE[0]
    nested = LabelSet.declared({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": [3]}, region_order=[1, 2, 3])
    found = colours_of(nested.names)
    assert index_colours(nested, found) == {1: found["whole"], 2: found["core"], 3: found["spot"]}


def test_the_montage_appears_whole_with_gaps_where_nothing_is_known(made, tmp_path):
    from matplotlib.image import imread

    image, truth = made
    columns = slices_of("a", image, truth, truth, LABELS, kind="hu", count=2) + slices_of("b", image, truth, None, LABELS, kind="arbitrary")
    draw_montage(tmp_path / "m.png", columns, LABELS, title="made")
    picture = imread(tmp_path / "m.png")
    assert picture.shape[1] > picture.shape[0] > 200 and [p.name for p in tmp_path.iterdir()] == ["m.png"]
    red, green, blue = (picture[..., i] for i in range(3))
    assert ((red > green + 0.2) & (red > blue + 0.2)).sum() > 100 and ((blue > green + 0.2) & (blue > red + 0.2)).sum() > 1000


def test_another_grid_is_refused(made):
    image, truth = made
    with pytest.raises(GridError):
        slices_of("a", image, LabelMap(truth.voxels, Grid(truth.grid.shape)), None, LABELS, kind="hu")


def test_no_global_state_of_matplotlib_is_touched(made, tmp_path):
    import subprocess
    import sys

    code = (
        "import pathlib, sys, autoseg.report; autoseg.report.draw_boxes(pathlib.Path(sys.argv[1]), {'a': [.1, .2]}); "
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b.png")], check=True)
