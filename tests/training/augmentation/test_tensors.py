"""On the device that trains an image becomes what it becomes on the CPU. Here that device is torch's CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.training.augmentation import intensity, spatial
from autoseg.training.augmentation.drawing import Change, Elastic, Warp, rotation
from autoseg.training.augmentation.material import Material, patch
from autoseg.training.augmentation.tensors import image_on

TURN = rotation(2, np.deg2rad(-20)) @ rotation(1, np.deg2rad(9)) @ rotation(0, np.deg2rad(12))
TURNED = Warp(1.2 * TURN, None)
BENT = Warp(0.9 * TURN, Elastic(60.0, 4.0, (0, 1, 2), 5))
SHAPE, SIZE = (22, 27, 31), (18, 16, 20)


def material(warp=None, changes=(), box=None, shape=SHAPE, **other) -> Material:
    rng = np.random.default_rng(0)
    whole = tuple((0, n) for n in shape)
    wanted = tuple((2, 2 + n) for n in SIZE) if box is None else box
    needed = whole if warp is not None else tuple((max(a, 0), min(b, n)) for (a, b), n in zip(wanted, shape, strict=True))
    region = whole if other.get("whole") else needed
    values = {
        "image": rng.normal(size=(2, *(high - low for low, high in region))).astype(np.float32),
        "region": region,
        "needed": needed,
        "wanted": wanted,
        "warp": warp,
        "field": spatial.bent(warp, tuple(high - low for low, high in wanted)),
        "centre": (10.2, 13.0, 14.9),
        "changes": tuple(changes),
        "whole": False,
        "known": None,
        "orders": (3, 0),
        "conventions": "batchgenerators",
        "padding": "zero",
        "mirrored": (0, 2),
    }
    return Material(**{**values, **other})


def on_cpu(made: Material) -> np.ndarray:
    import dataclasses

    labels = np.zeros((1, *(high - low for low, high in made.needed)), np.uint8)
    return patch(dataclasses.replace(made, image=made.image.copy()), labels)[0]


@pytest.mark.parametrize("warp", [TURNED, BENT], ids=["turned", "bent"])
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("conventions", ["batchgenerators", "batchgeneratorsv2"])
def test_resampled_images_are_equal(warp, order, conventions):
    made = material(warp, orders=(order, 0), conventions=conventions)
    difference = np.abs(image_on(made, "cpu").numpy() - on_cpu(made))
    if order == 0:  # a point within rounding of the middle between two voxels may take either
        assert np.mean(difference > 0) < 1e-3
    else:
        assert difference.max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 27, 31), (2, 27, 31)])
def test_thin_volumes_are_equal(shape):
    flat = Warp(rotation(0, np.deg2rad(30)), None)
    made = material(flat, shape=shape, box=((0, 1), (3, 20), (3, 20)), centre=(0.0, 12.0, 12.5), mirrored=())
    np.testing.assert_allclose(image_on(made, "cpu").numpy(), on_cpu(made), atol=1e-4)


@pytest.mark.parametrize("padding", ["zero", "minimum"])
def test_patches_that_reach_out_are_equal(padding):
    made = material(box=((-3, 15), (20, 36), (5, 25)), padding=padding)
    np.testing.assert_array_equal(image_on(made, "cpu").numpy(), on_cpu(made))


CHANGES = [
    Change("contrast", (1.7, 0.4)),
    Change("brightness", (None, 1.3)),
    Change("gamma", (0.7, 1.4)),
    Change("gamma", (0.8, None), invert=True),
    Change("blur", ((0.6, 0.9, 0.5), (0.0, 0.7, 1.0))),
    Change("low_resolution", (None, (1.0, 0.6, 0.6))),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.do + ("-inverted" if c.invert else ""))
@pytest.mark.parametrize("conventions", ["batchgenerators", "batchgeneratorsv2"])
def test_changed_intensities_are_equal(change, conventions):
    made = material(changes=[change], conventions=conventions)
    np.testing.assert_allclose(image_on(made, "cpu").numpy(), on_cpu(made), atol=2e-5)


def test_intensities_of_the_volume_change_before_the_spatial_step():
    from autoseg.preprocessing.store import ChannelStatistics

    known = (ChannelStatistics(0.1, 1.1, -3.0, 3.0),) * 2
    made = material(TURNED, CHANGES, whole=True, known=known)
    np.testing.assert_allclose(image_on(made, "cpu").numpy(), on_cpu(made), atol=2e-4)


def test_noise_has_its_deviation_and_repeats():
    made = material(changes=[Change("noise", (0.5, None), seed=7)], mirrored=())
    plain = image_on(material(mirrored=()), "cpu")
    first, again = image_on(made, "cpu"), image_on(made, "cpu")
    assert torch.equal(first, again) and torch.equal(first[1], plain[1])
    assert float((first - plain)[0].std()) == pytest.approx(0.5, rel=0.05)
    assert intensity.normal_noise(7, (40, 40, 40)).std() == pytest.approx(1, rel=0.02)
