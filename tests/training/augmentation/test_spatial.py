"""One resampling does what batchgenerators and the peer do with the same drawn numbers, to the voxel's place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.training.augmentation import spatial
from autoseg.training.augmentation.drawing import Elastic, Warp, rotation

ANGLES = (12.0, -9.0, 5.0)  # about the first, second and last axis; unequal, so that none can stand for another
SHAPE, SIZE = (40, 44, 49), (24, 20, 29)
BEND = Elastic(150.0, 4.0, (0, 1, 2), 11)


def warp(angles=ANGLES, factor=1.2, elastic=None) -> Warp:
    matrix = np.eye(3)
    for axis, degrees in enumerate(angles):
        matrix = rotation(axis, np.deg2rad(degrees)) @ matrix
    return Warp(factor * matrix, elastic)


def volume(shape=SHAPE, channels=2, classes=4, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """White noise, which no wrong place leaves alone, and blobs of labels that touch."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    soft = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(classes)]
    return image, np.argmax(soft, 0).astype(np.uint8)


def moved(image, labels, made, size=SIZE, orders=(1, 0), centre=None, **other):
    centre = [(n - 1) / 2 for n in labels.shape] if centre is None else centre
    new, new_labels = spatial.resample(image, labels[None], made, spatial.bent(made, size), size, centre, orders, **other)
    return new, new_labels[0]


def points_of(made, size, centre) -> np.ndarray:
    """Where each voxel of the patch comes from, in float64: (3, *size)."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij"))
    field = spatial.bent(made, size)
    grid = grid + field if len(field) else grid
    return np.einsum("ij,j...->i...", made.matrix, grid) + np.reshape(centre, (3, 1, 1, 1))


def off_the_boundary(points, labels) -> np.ndarray:
    """Where all voxels around a point have one label: rounding can decide nothing there."""
    low = ndimage.grey_erosion(labels, size=3, mode="nearest")
    high = ndimage.grey_dilation(labels, size=3, mode="nearest")
    places = np.clip(np.rint(points).astype(int), 0, np.reshape(labels.shape, (3, 1, 1, 1)) - 1)
    return (low == high)[tuple(places)]


def by_batchgenerators(image, labels, monkeypatch, *, elastic, order, label_order, size=SIZE, angles=ANGLES, factor=1.2):
    """batchgenerators' whole spatial transform with these numbers in place of what it draws."""
    from batchgenerators.augmentations.spatial_transformations import augment_spatial

    noise = iter(() if elastic is None else (spatial.elastic_noise(elastic, size).astype(float) + 1) / 2)
    monkeypatch.setattr(np.random, "random", lambda shape=None: 0.9 if shape is None else next(noise))
    monkeypatch.setattr(np.random, "uniform", lambda low=0.0, high=0.0: high)
    turn = {f"angle_{name}": (np.deg2rad(a),) * 2 for name, a in zip("xyz", angles, strict=True)}
    bend = {} if elastic is None else {"alpha": (elastic.alpha,) * 2, "sigma": (elastic.sigma,) * 2}
    new, new_labels = augment_spatial(
        image[None],
        labels[None, None],
        size,
        do_elastic_deform=elastic is not None,
        **bend,
        **turn,
        scale=(factor, factor),
        border_mode_data="constant",
        order_data=order,
        order_seg=label_order,
        random_crop=False,
    )
    return new[0], new_labels[0, 0]


@pytest.mark.parametrize("elastic", [None, BEND], ids=["stiff", "bent"])
@pytest.mark.parametrize(("order", "tolerance"), [(1, 1e-4), (3, 1e-4)])
@pytest.mark.parametrize("label_order", [0, 1])
def test_equals_batchgenerators_whole_transform(monkeypatch, elastic, order, tolerance, label_order):
    image, labels = volume()
    made = warp(elastic=elastic)
    ours, our_labels = moved(image, labels, made, orders=(order, label_order))
    with monkeypatch.context() as patched:
        theirs, their_labels = by_batchgenerators(image, labels, patched, elastic=elastic, order=order, label_order=label_order)
    np.testing.assert_allclose(ours, theirs, atol=tolerance)
    points = points_of(made, SIZE, [(n - 1) / 2 for n in SHAPE])
    assert not np.any((our_labels != their_labels) & off_the_boundary(points, labels))
    assert np.mean(our_labels != their_labels) < 1e-4


@pytest.mark.parametrize("only", ["elastic", "rotate", "scale"])
def test_each_transform_alone_equals_batchgenerators(monkeypatch, only):
    image, labels = volume()
    angles, factor = (ANGLES if only == "rotate" else (0, 0, 0)), (1.25 if only == "scale" else 1.0)
    elastic = BEND if only == "elastic" else None
    ours, our_labels = moved(image, labels, warp(angles, factor, elastic))
    with monkeypatch.context() as patched:
        numbers = {"elastic": elastic, "angles": angles, "factor": factor}
        theirs, their_labels = by_batchgenerators(image, labels, patched, order=1, label_order=0, **numbers)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.mean(our_labels != their_labels) < 1e-3  # of a point in the middle of two voxels either may be taken


@pytest.mark.parametrize("sigma", [1.5, 9.0, 13.0])
def test_displacements_are_batchgenerators(sigma):
    elastic, size = Elastic(900.0, sigma, (0, 1, 2), 3), (20, 31, 42)
    noise, field = spatial.elastic_noise(elastic, size), spatial.elastic_field(elastic, size)
    expected = np.stack([ndimage.gaussian_filter(n.astype(float), sigma, mode="constant") * 900 for n in noise])
    np.testing.assert_allclose(field, expected, atol=1e-5 * np.abs(expected).max())
    assert np.all(np.abs(noise) <= 1) and np.abs(noise.mean()) < 0.01 and noise.std() == pytest.approx(3**-0.5, abs=0.01)


def test_only_the_axes_that_are_bent_are_displaced():
    field = spatial.elastic_field(Elastic(900.0, 9.0, (1, 2), 3), (8, 20, 20))
    assert not field[0].any() and field[1].any() and field[2].any()


@pytest.mark.parametrize("orders", [(0, 0), (1, 1), (3, 0)])
def test_a_landmark_lies_where_it_should_within_a_tenth_of_a_voxel(orders):
    """A half-voxel shift, an angle for another or a sign for another would move it further."""
    made, centre = warp((20.0, -14.0, 8.0), 1.1), (20.3, 21.1, 24.6)
    for offset in ((4.0, -3.0, 6.0), (-5.0, 6.0, 2.5), (0.5, 5.5, -7.0)):
        place = made.matrix @ offset + centre
        axes = np.meshgrid(*[np.arange(n, dtype=float) for n in SHAPE], indexing="ij")
        blob = np.exp(-sum((a - p) ** 2 for a, p in zip(axes, place, strict=True)) / 8).astype(np.float32)
        new, _ = moved(blob[None], (blob > 0.5).astype(np.uint8), made, orders=orders, centre=centre)
        middle = [np.sum(i * new[0]) / new.sum() - (n - 1) / 2 for i, n in zip(np.indices(SIZE), SIZE, strict=True)]
        np.testing.assert_allclose(middle, offset, atol=0.1)


def test_a_positive_angle_turns_as_batchgenerators():
    """By hand: about the first axis by 90 degrees, the patch's voxel (0, y, x) comes from (0, x, -y)."""
    np.testing.assert_allclose(warp((90, 0, 0), 1).matrix @ (0, 2, 3), (0, 3, -2), atol=1e-12)
    np.testing.assert_allclose(warp((0, 90, 0), 1).matrix @ (2, 0, 3), (-3, 0, 2), atol=1e-12)
    np.testing.assert_allclose(warp((0, 0, 90), 1).matrix @ (2, 3, 0), (3, -2, 0), atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1, 30, 33), (2, 30, 33), (5, 30, 3), (17, 18, 19)])
def test_splines_equal_scipy_at_any_size(order, shape):
    image, labels = volume(shape, 1)
    made = warp(ANGLES if shape[0] > 2 else (12, 0, 0), 1 if shape[0] == 1 else 1.1)
    size, centre = (shape[0], 20, 22), [(n - 1) / 2 for n in shape]
    new, new_labels = moved(image, labels, made, size, (order, 0), centre)
    points = points_of(made, size, centre)
    expected = ndimage.map_coordinates(image[0].astype(float), points, order=order, mode="constant")
    np.testing.assert_allclose(new[0], expected, atol=1e-5 if order else 0)
    np.testing.assert_array_equal(new_labels, ndimage.map_coordinates(labels, points, order=0, mode="constant"))


@pytest.mark.parametrize("elastic", [None, BEND], ids=["stiff", "bent"])
@pytest.mark.parametrize("order", [1, 3])
def test_the_needed_box_is_all_that_is_needed(elastic, order):
    image, labels = volume((60, 64, 70))
    made, centre, size = warp(elastic=elastic), (18.2, 30.5, 44.9), (14, 16, 12)
    field = spatial.bent(made, size)
    box = spatial.needed_box(made, field, size, centre, labels.shape, order)
    cut = tuple(slice(*side) for side in box)
    assert np.prod([high - low for low, high in box]) < 0.6 * labels.size
    whole = spatial.resample(image, labels[None], made, field, size, centre, (order, 0))
    middle = [c - low for c, (low, _) in zip(centre, box, strict=True)]
    part = spatial.resample(image[(slice(None), *cut)], labels[None][(slice(None), *cut)], made, field, size, middle, (order, 0))
    np.testing.assert_allclose(part[0], whole[0], atol=1e-5)
    np.testing.assert_array_equal(part[1], whole[1])


@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 1, 2)])
def test_mirrored_is_reversed(axes):
    image, labels = volume()
    plain = moved(image, labels, warp(elastic=BEND), orders=(3, 1))
    mirrored = moved(image, labels, warp(elastic=BEND), orders=(3, 1), mirrored=axes)
    np.testing.assert_array_equal(mirrored[0], np.flip(plain[0], [a + 1 for a in axes]))
    np.testing.assert_array_equal(mirrored[1], np.flip(plain[1], axes))


def test_labels_of_a_first_stage_move_along():
    image, labels = volume()
    other = np.where(labels == 2, 7, labels).astype(np.uint8)
    _, both = spatial.resample(image, np.stack([labels, other]), warp(), spatial.bent(warp(), SIZE), SIZE, (20, 22, 24), (1, 1))
    np.testing.assert_array_equal(both[1], np.where(both[0] == 2, 7, both[0]))


def test_where_three_labels_meet_the_nearest_decides_a_tie_if_it_is_among_them():
    """Of the eight voxels around the point one is 0, three are 3, four are 5; then 1 and 3 in equal parts, the nearest being 3."""
    cell = np.array([[[0, 3], [3, 3]], [[5, 5], [5, 5]]], np.uint8)
    still = Warp(np.eye(3), None)
    _, new = moved(np.zeros((0, 2, 2, 2), np.float32), cell, still, (1, 1, 1), (1, 1), (0.45, 0.5, 0.5))
    assert new.item() == 5
    cell = np.array([[[1, 1], [1, 1]], [[3, 3], [3, 3]]], np.uint8)
    _, new = moved(np.zeros((0, 2, 2, 2), np.float32), cell, still, (1, 1, 1), (1, 1), (0.5, 0.2, 0.7))
    assert new.item() == 3
    _, new = moved(np.zeros((0, 2, 2, 2), np.float32), cell, still, (1, 1, 1), (1, 1), (0.49, 0.2, 0.7))
    assert new.item() == 1


def by_grid_sample(image, labels, points) -> tuple[np.ndarray, np.ndarray]:
    """The peer's rule (section 4.6, step 1): torch's linear sampling with zeros outside; per label, what lies outside being a label of
    its own, -1, which becomes background at last."""
    import torch

    shape = np.reshape(labels.shape, (3, 1, 1, 1))
    grid = torch.from_numpy(np.moveaxis((2 * points + 1) / shape - 1, 0, -1)[None, ..., ::-1].copy())

    def sampled(array):
        return torch.nn.functional.grid_sample(torch.from_numpy(array.astype(float))[None], grid, align_corners=False)[0].numpy()

    values = np.unique(labels)
    inside = np.stack([sampled((labels == v)[None])[0] for v in values])
    scores = np.concatenate([1 - inside.sum(0, keepdims=True), inside])
    return sampled(image), np.append([0], values)[np.argmax(scores, 0)]


@pytest.mark.parametrize("factor", [1.0, 2.2])
def test_volumes_fade_at_their_edge_as_the_peers(factor):
    image, labels = volume((16, 18, 20))
    made, centre, size = warp(factor=factor), (7.3, 8.1, 9.4), (18, 16, 20)
    new, new_labels = moved(image, labels, made, size, (1, 1), centre, fades=True)
    points = points_of(made, size, centre)
    expected, expected_labels = by_grid_sample(image, labels, points)
    np.testing.assert_allclose(new, expected, atol=1e-5)
    assert np.mean(new_labels != expected_labels) < 1e-3
    cut, _ = moved(image, labels, made, size, (1, 1), centre)
    assert np.abs(cut - expected).max() > 0.1  # batchgenerators ends at the outermost voxels' centres


def test_slices_are_turned_as_batchgenerators_turns_them():
    from batchgenerators.augmentations import utils

    image, labels = volume((1, 40, 44), 1)
    size, centre = (20, 24), (19.1, 21.7)
    points = utils.scale_coords(utils.rotate_coords_2d(utils.create_zero_centered_coordinate_mesh(size), np.deg2rad(33)), 0.9)
    points += np.reshape(centre, (2, 1, 1))
    made = Warp(np.diag([1, 0.9, 0.9]) @ rotation(0, np.deg2rad(33)), None)
    new, _ = moved(image, labels, made, (1, *size), (3, 0), (0.0, *centre))
    expected = utils.interpolate_img(image[0, 0], points, 3, "constant", 0.0)
    np.testing.assert_allclose(new[0, 0], expected, atol=1e-5)
