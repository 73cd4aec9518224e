"""batchgenerators' own transforms plug in unchanged."""

from __future__ import annotations

import random

import numpy as np
import pytest

from autoseg.errors import PlanError
from autoseg.planning.schema import PlugInPlan
from autoseg.training.augmentation import batchgenerators_backend as backend

SHAPE = (12, 14, 16)


def plug_in(transform, probability=1.0, **arguments) -> PlugInPlan:
    return PlugInPlan(transform=transform, arguments=arguments, probability=probability)


@pytest.fixture
def patch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, *SHAPE)).astype(np.float32), rng.integers(0, 3, SHAPE).astype(np.uint8)


def test_a_plugged_transform_does_what_it_does_by_itself(patch):
    from batchgenerators.transforms.noise_transforms import RicianNoiseTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform

    image, labels = patch
    wanted = [plug_in("noise_transforms.RicianNoiseTransform", noise_variance=[0.1, 0.3]), plug_in("spatial_transforms.MirrorTransform")]
    with backend.seeded(np.random.default_rng(3)):
        ours, our_labels = backend.plugged(image.copy(), labels.copy(), wanted, np.random.default_rng(0))
    with backend.seeded(np.random.default_rng(3)):
        made = RicianNoiseTransform(noise_variance=(0.1, 0.3))(data=image[None].copy(), seg=labels[None, None].copy())
        made = MirrorTransform()(**made)
    np.testing.assert_array_equal(ours, made["data"][0].astype(np.float32))
    np.testing.assert_array_equal(our_labels, made["seg"][0, 0])
    assert not np.array_equal(ours, image) and ours.dtype == np.float32 and our_labels.dtype == np.uint8


def test_it_happens_as_often_as_planned(patch):
    image, labels = patch
    rng, wanted = np.random.default_rng(0), [plug_in("noise_transforms.GaussianNoiseTransform", 0.3)]
    with backend.seeded(rng):
        happened = [not np.array_equal(backend.plugged(image.copy(), labels, wanted, rng)[0], image) for _ in range(300)]
    assert np.mean(happened) == pytest.approx(0.3, abs=0.08)


def test_another_size_is_refused_by_name(patch):
    image, labels = patch
    with pytest.raises(PlanError, match=r"crop_and_pad_transforms.CenterCropTransform.*12, 14, 16"):
        backend.plugged(
            image, labels, [plug_in("crop_and_pad_transforms.CenterCropTransform", crop_size=[8, 8, 8])], np.random.default_rng(0)
        )


def test_lent_generators_come_back():
    np.random.seed(4)
    random.seed(4)
    expected = np.random.random(3).tolist(), random.random()
    np.random.seed(4)
    random.seed(4)
    with backend.seeded(np.random.default_rng(0)):
        np.random.random(5)
        random.random()
    assert (np.random.random(3).tolist(), random.random()) == expected


@pytest.mark.parametrize("thick", [None, 1])
def test_a_thick_axis_is_left_alone(thick):
    from autoseg.planning.schema import TransformPlan

    def transform(do, ranges):
        return TransformPlan(do=do, probability=1, channel_probability=1, ranges=ranges, invert=False)

    spatial = [transform("scale", {"factor": (1.3, 1.3)}), transform("elastic", {"alpha": (500, 500), "sigma": (5, 5)})]
    rng = np.random.default_rng(0)
    with backend.seeded(rng):
        points = backend.centred_points(spatial, SHAPE, rng, thick)
    plain = np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2
    assert np.array_equal(points[1], np.broadcast_to(plain[:, None], SHAPE)) == (thick == 1)
    assert not np.array_equal(points[0][:, 0, 0], np.arange(SHAPE[0]) - (SHAPE[0] - 1) / 2)
    rows = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32)
    coarse = transform("low_resolution", {"factor": (0.5, 0.5)})
    with backend.seeded(rng):
        new = backend.change_intensity(rows.copy(), [coarse], thick)
    neighbours = np.corrcoef(new[0, 4, :-1].ravel(), new[0, 4, 1:].ravel())[0, 1]
    assert (neighbours > 0.3) == (thick is None)
