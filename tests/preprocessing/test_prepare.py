"""A prepared case equals the peer's steps written out with scipy and skimage, and the paper's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from autoseg.data.case import Case, LabelMap, Volume
from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.fingerprint.case_measures import measure_channel
from autoseg.geometry import Grid, Orientation
from autoseg.planning.schema import IntensityPlan, Interpolation, LabelInterpolation, ZScore
from autoseg.preprocessing.prepare import prepare_case

LABELS = LabelSet.declared({"background": 0, "a": 3, "b": 7, "ignore": 9})
MASKED = IntensityPlan(before_resampling=[ZScore(do="zscore", mean=None, std=None, mask="nonzero")], after_resampling=[])
PLAIN = IntensityPlan(before_resampling=[ZScore(do="zscore", mean=None, std=None, mask="all")], after_resampling=[])


@pytest.fixture
def configuration(make_dataset, planned):
    """A configuration to change: 3D, or 2D."""
    plan = planned(make_dataset(), configurations=["3d_fullres"]).plan

    def make(name: str = "3d_fullres", across="none", rule="argmax", **changes):
        part = plan.configurations[name]
        image = Interpolation(order=3, across=across, order_across=0)
        resampling = part.resampling.model_copy(
            update={"size": "round", "image": image, "labels": LabelInterpolation(order=1, rule=rule, across=across, order_across=0)}
        )
        channels = len(changes.get("normalise_in_mask", [False]))
        return part.model_copy(
            update={"resampling": resampling, "crop": "none", "transpose": None, "normalise_in_mask": [False] * channels, **changes}
        )

    return make


def made_case(spacing=(2.0, 1.0, 1.5), channels: int = 1) -> Case:
    """A ball of noise in an empty volume, with a hole of zeros inside, and labels in it."""
    rng = np.random.default_rng(4)
    shape = (14, 20, 18)
    z, y, x = np.mgrid[:14, :20, :18]
    ball = (z - 6) ** 2 + (y - 9) ** 2 + (x - 8) ** 2 < 36
    image = rng.normal(50, 5, (channels, *shape)).astype(np.float32) * ball
    image[:, 6, 9, 8] = 0
    labels = np.where(ball & (x > 8), 3, 0).astype(np.uint8)
    labels[ball & (y > 10)] = 7
    labels[ball & (z > 9)] = 9
    grid = Grid(shape, spacing)
    return Case("one", Volume(image, grid), LabelMap(labels, grid), grid, Orientation(), "key")


def peer_image(channel: np.ndarray, shape) -> np.ndarray:
    return resize(channel.astype(float), shape, 3, mode="edge", anti_aliasing=False, clip=True)


def peer_labels(labels: np.ndarray, shape) -> np.ndarray:
    values = np.unique(labels)
    masks = np.stack([resize((labels == v).astype(float), shape, 1, mode="edge", anti_aliasing=False) for v in values])
    return values[masks.argmax(0)]


def test_crop_mask_transpose_and_resampling_as_the_peer(configuration):
    case = made_case(channels=2)
    part = configuration(crop="nonzero", transpose=(1, 0, 2), spacing=[1.1, 1.3, 1.7], normalise_in_mask=[True, False])
    prepared = prepare_case(case, part, {"T1": {"arbitrary": MASKED}, "T2": {"arbitrary": PLAIN}}, ["T1", "T2"], ["arbitrary"] * 2, LABELS)

    inside = ndimage.binary_fill_holes((case.image.voxels != 0).any(0))
    box = ndimage.find_objects(inside.astype(int))[0]
    inside = inside[box].transpose(1, 0, 2)
    image = case.image.voxels[(slice(None), *box)].transpose(0, 2, 1, 3)
    indices = LABELS.encode(case.labels.voxels)[box].transpose(1, 0, 2).astype(int)
    shape = [round(s / t * n) for s, t, n in zip((1.0, 2.0, 1.5), (1.3, 1.1, 1.7), image.shape[1:], strict=True)]
    first = np.zeros(image[0].shape)
    first[inside] = (image[0][inside] - image[0][inside].mean()) / image[0][inside].std()
    second = (image[1] - image[1].mean()) / image[1].std()
    indices[(indices == 0) & ~inside] = -1

    assert prepared.image.shape == (2, *shape)
    np.testing.assert_allclose(prepared.image[0], peer_image(first, shape), atol=1e-4)
    np.testing.assert_allclose(prepared.image[1], peer_image(second, shape), atol=1e-4)
    differs = prepared.labels != np.maximum(peer_labels(indices, shape), 0)
    assert differs.mean() < 1e-3  # ties
    assert prepared.labels.dtype == np.uint8
    assert set(np.unique(prepared.labels)) == {0, 1, 2, 3}  # the ignore label survives as a class
    assert prepared.spacing == (1.3, 1.1, 1.7)
    assert prepared.origin.box == tuple((side.start, side.stop) for side in box)
    assert prepared.origin.transpose == (1, 0, 2)
    assert prepared.origin.oriented == case.image.grid


def test_slices_of_a_2d_configuration_keep_their_distance(configuration):
    case = made_case((5.0, 1.0, 1.0))
    part = configuration("2d", across="thick", spacing=[2.0, 2.0])
    prepared = prepare_case(case, part, {"MR": {"arbitrary": PLAIN}}, ["MR"], ["arbitrary"], LABELS)
    assert prepared.image.shape == (1, 14, 10, 9)
    assert prepared.spacing == (5.0, 2.0, 2.0)
    z = (case.image.voxels[0] - case.image.voxels.mean()) / case.image.voxels.std()
    np.testing.assert_allclose(prepared.image[0, 5], peer_image(z[5], (10, 9)), atol=1e-4)


def test_a_2d_configuration_takes_its_slices_across_the_transpose(configuration):
    case = made_case((1.0, 1.0, 5.0))
    part = configuration("2d", spacing=[2.0, 0.5], transpose=(2, 0, 1))
    prepared = prepare_case(case, part, {"MR": {"arbitrary": PLAIN}}, ["MR"], ["arbitrary"], None)
    assert prepared.image.shape == (1, 18, 7, 40)
    assert prepared.labels is None
    assert prepared.spacing == (5.0, 2.0, 0.5)


def test_steps_after_resampling_see_the_new_grid(configuration):
    """The paper's z-score comes after resampling, over all voxels (R3): mean 0 and deviation 1 there."""
    after = IntensityPlan(before_resampling=[], after_resampling=PLAIN.before_resampling)
    part = configuration(spacing=[1.0, 1.0, 1.0])
    prepared = prepare_case(made_case(), part, {"CT": {"arbitrary": after}}, ["CT"], ["arbitrary"], LABELS)
    assert prepared.image.mean(dtype=float) == pytest.approx(0, abs=1e-5)
    assert prepared.image.std(dtype=float) == pytest.approx(1, abs=1e-5)


def test_hu_are_mended_first(configuration):
    """Padding outside of the scan circle is raised to -1024 before anything else."""
    case = made_case()
    hu = np.full(case.image.voxels.shape, -1000, np.float32)
    hu[:, 4:10] = 40
    hu[:, :, 0, 0] = -3024
    nothing = IntensityPlan(before_resampling=[], after_resampling=[])
    part = configuration(spacing=list(case.image.grid.spacing))
    prepared = prepare_case(replace(case, image=Volume(hu, case.image.grid)), part, {"CT": {"hu": nothing}}, ["CT"], ["hu"], LABELS)
    assert prepared.image.min() == -1024
    assert hu.min() == -3024


@pytest.mark.parametrize(("offset", "padding"), [(0, False), (0, True), (1024, False), (1024, True)])
def test_what_the_fingerprint_knows_of_hu_gives_the_same_as_the_values(configuration, offset, padding):
    """Stored with or without intercept and padding; the crop leaves padding out, which yet decides about the values inside."""
    rng = np.random.default_rng(6)
    grid = Grid((20, 24, 22), (2.0, 1.0, 1.5))
    hu = np.where(rng.random(grid.shape) < 0.5, rng.normal(-1000, 4, grid.shape), rng.normal(40, 20, grid.shape)).round() + offset
    hu[:3] = 0
    hu[5, 5, 5] = -2000 if padding else hu[5, 5, 5]
    case = Case("one", Volume(hu[None].astype(np.float32), grid), None, grid, Orientation(), "key")
    measures, _ = measure_channel(case.image.voxels[0], np.ones(grid.shape, bool), "CT")
    assert (measures.kind, measures.look.offset) == ("hu", -offset)
    nothing = IntensityPlan(before_resampling=[], after_resampling=[])
    for transpose in (None, (1, 0, 2)):
        part = configuration(spacing=[1.7, 1.3, 1.5], crop="nonzero", transpose=transpose)
        arguments = (case, part, {"CT": {"hu": nothing}}, ["CT"], ["hu"], None)
        known = prepare_case(*arguments, mendings=[(measures.minimum, measures.look.offset)])
        np.testing.assert_array_equal(known.image, prepare_case(*arguments).image)


def test_the_case_itself_is_not_changed(configuration):
    case = made_case()
    before = case.image.voxels.copy(), case.labels.voxels.copy()
    prepare_case(case, configuration(crop="nonzero"), {"MR": {"arbitrary": MASKED}}, ["MR"], ["arbitrary"], LABELS)
    np.testing.assert_array_equal(case.image.voxels, before[0])
    np.testing.assert_array_equal(case.labels.voxels, before[1])


def test_a_kind_without_steps_is_refused_by_name(configuration):
    with pytest.raises(PlanError, match=r"case one: .*'hu'.*'MR'"):
        prepare_case(made_case(), configuration(), {"MR": {"arbitrary": PLAIN}}, ["MR"], ["hu"], LABELS)
