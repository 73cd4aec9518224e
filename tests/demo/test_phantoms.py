"""The phantoms are chests, differ as promised, and defeat a threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from autoseg.data.reading import read_labels
from autoseg.demo.baseline import threshold_baseline
from autoseg.demo.phantoms import LABELS, make_phantom, make_phantoms, to_hu
from autoseg.metrics import overlap


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(number, 0) for number in range(8)]


def test_the_same_numbers_make_the_same_phantom_and_others_another():
    one, again, other, seed = make_phantom(3, 0), make_phantom(3, 0), make_phantom(23, 0), make_phantom(3, 1)
    assert (one.image == again.image).all() and (one.labels == again.labels).all() and one.grid == again.grid
    assert one.grid != other.grid and one.grid != seed.grid


def test_shapes_spacings_and_kinds_vary_as_promised(phantoms):
    assert [p.kind for p in phantoms] == ["hu", "windowed"] * 4
    shapes, spacings = [p.grid.shape for p in phantoms], [p.grid.spacing for p in phantoms]
    assert [shape[0] < 16 for shape in shapes] == [i == 3 for i in range(8)]
    assert [shape[1] != shape[2] for shape in shapes] == [i == 6 for i in range(8)]
    assert len({s[0] for s in spacings}) == 8 and max(s[0] / s[1] for s in spacings) > 1.2
    for p in phantoms:
        assert p.image.shape == p.labels.shape == p.grid.shape and set(np.unique(p.labels)) == set(LABELS.values())
        if p.kind == "hu":
            assert p.image.dtype == np.int16 and p.image.min() < -950 and p.image.max() > 250
        else:
            assert p.image.dtype == np.uint8 and p.image.min() >= 0 and p.image.max() > 240


def test_two_lungs_on_their_own_sides_the_right_one_larger(phantoms):
    for p in phantoms:
        left, right = (np.argwhere(p.labels == LABELS[name]) for name in ("lung_left", "lung_right"))
        middle = p.grid.shape[2] / 2
        assert left[:, 2].mean() > middle + 5 and right[:, 2].mean() < middle - 5  # LPS: x runs to the patient's left
    larger = [(p.labels == 2).sum() > (p.labels == 1).sum() for p in phantoms]
    assert sum(larger) > len(larger) / 2
    for p in phantoms:
        assert -900 < to_hu(p.image, p.kind)[np.isin(p.labels, (1, 2))].mean() < -500


def test_lesions_lie_in_the_lungs_and_look_alike_in_value_but_not_in_texture(phantoms):
    for p in phantoms:
        hu = to_hu(p.image, p.kind)
        infected, lung = p.labels == 3, (p.labels == 1) | (p.labels == 2)
        share = infected.sum() / (infected | lung).sum()
        assert 0.02 < share < 0.5
        deep = ndimage.binary_erosion(infected | lung, iterations=2)
        dense = (hu > -640) & (infected | lung)  # a threshold finds more of what is none than of lesions
        assert (dense & lung).sum() > (dense & infected).sum()
        rough = abs(hu - ndimage.uniform_filter(hu, 3))
        assert rough[infected & deep].mean() > 1.5 * rough[lung & deep].mean()


def test_the_threshold_baseline_stays_under_two_fifths_and_finds_something(phantoms):
    dice = []
    for p in phantoms:
        found = threshold_baseline(p.image, p.kind, p.grid.spacing)
        assert found.shape == p.image.shape and found.dtype == bool
        dice.append(overlap(found, p.labels == 3, {"infection": [1]})["infection"].dice)
    assert 0.15 < np.mean(dice) < 0.4


def test_the_dataset_is_in_the_peers_layout_and_lies_where_it_lay(tmp_path):
    names = make_phantoms(tmp_path / "set", 2, 5, first=20)
    assert names == ["phantom_20", "phantom_21"]
    content = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert content["labels"] == LABELS and content["numTraining"] == 2 and content["channel_names"] == {"0": "CT"}
    for number, name in zip((20, 21), names, strict=True):
        phantom = make_phantom(number, 5)
        image = sitk.ReadImage(str(tmp_path / "set" / "imagesTr" / f"{name}_0000.nii.gz"))
        label = read_labels(tmp_path / "set" / "labelsTr" / f"{name}.nii.gz", case=name)
        assert image.GetSize()[::-1] == phantom.grid.shape
        corner = [int(v) for v in np.argwhere(phantom.labels == 3)[0]]
        point = phantom.grid.points(np.array([corner]))[0]
        assert image[image.TransformPhysicalPointToIndex(point.tolist())] == phantom.image[tuple(corner)]
        assert label.voxels[tuple(np.round(label.grid.indices(point[None])[0]).astype(int))] == 3


def test_the_layout_is_recognised(tmp_path):
    from autoseg.data.folders.layouts import open_dataset

    make_phantoms(tmp_path / "set", 1, 0)
    dataset = open_dataset(tmp_path / "set")
    assert dataset.channels == ("CT",) and dataset.labels.names == ("lung_left", "lung_right", "infection")
    assert dataset.label_groups == {"lungs": ("lung_left", "lung_right")} and not dataset.problems
