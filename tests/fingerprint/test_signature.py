"""Signatures: a copy of an image is known again whatever was done to its numbers, another patient's is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from autoseg.data.folders.layouts import open_dataset
from autoseg.data.reading import read_case
from autoseg.fingerprint.checks.copies import LIKENESS
from autoseg.fingerprint.signature import likeness, near_duplicates, sign, unpacked
from autoseg.fingerprint.types import Signature
from autoseg.geometry import Orientation

REAL = ("hippocampus", "covid_ct_small", "lung_ct_hu", "brats_2ch", "cardiac_cine")


def textured(seed: int, shape=(40, 60, 50)) -> np.ndarray:
    """Made-up anatomy: a body in air with structures of many sizes."""
    noise = np.random.default_rng(seed).normal(size=shape)
    body = sum(gaussian_filter(noise, width) * width**1.5 for width in (1, 2, 4, 8))
    z, y, x = np.indices(shape)
    inside = sum(((i - n / 2) / (0.45 * n)) ** 2 for i, n in zip((z, y, x), shape, strict=True)) < 1
    return np.where(inside, 300 + 100 * body, 0).astype(np.float32)


def signed(voxels: np.ndarray, spacing=(1.0, 1.0, 1.0), orientation: Orientation | None = None) -> Signature:
    return sign(voxels, spacing, orientation or Orientation())


def cropped(voxels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Up to `most` voxels less at each end of the axes that have many."""
    cuts = np.random.default_rng(seed).integers(0, most + 1, size=(3, 2))
    return voxels[tuple(slice(a, n - b) if n > 6 * most else slice(None) for (a, b), n in zip(cuts, voxels.shape, strict=True))]


def resaved(voxels: np.ndarray, seed: int) -> np.ndarray:
    """Cropped, scaled, with another gray curve, noise of a twentieth of the deviation, and whole numbers."""
    values = cropped(voxels, 3, seed)
    low, high = values.min(), values.max()
    curved = ((values - low) / (high - low)) ** 1.3
    noisy = curved + np.random.default_rng(seed).normal(0, 0.05 * curved.std(), curved.shape)
    return np.round(255 * noisy).astype(np.float32)


def test_cells_are_means_of_boxes_in_the_patients_axes():
    voxels = np.random.default_rng(0).normal(size=(48, 48, 48)).astype(np.float32)
    signature = signed(voxels)
    assert (signature.shape, signature.cell_mm) == ((24, 24, 24), (2, 2, 2))
    means = voxels.reshape(24, 2, 24, 2, 24, 2).mean(axis=(1, 3, 5))
    low, high = np.percentile(means, (1, 99))
    expected = np.clip((means - low) / (high - low) * 255, 0, 255)
    assert np.abs(unpacked(signature) - expected).max() <= 0.5 + 1e-3
    turned = signed(np.flip(voxels, 1).transpose(2, 0, 1), orientation=Orientation((1, 2, 0), (False, True, False)))
    assert turned == signature
    assert Signature.model_validate_json(signature.model_dump_json()) == signature


def test_the_size_of_a_signature_is_bounded():
    assert max(signed(np.zeros((7, 600, 513), np.float32), (5, 0.7, 0.7)).shape) <= 24
    assert max(signed(np.zeros((1, 3000, 2000), np.float32)).shape) <= 64
    assert signed(np.ones((9, 9, 9), np.float32)).shape == (9, 9, 9)


@pytest.mark.parametrize("seed", range(4))
def test_a_made_up_copy_is_known_again_and_others_are_not(seed):
    voxels = textured(seed)
    assert likeness(signed(voxels), signed(resaved(voxels, seed))) > LIKENESS
    assert likeness(signed(voxels), signed(textured(seed + 10))) < 0.85, "the same outline, other anatomy"


def test_a_copy_at_another_spacing_is_known_again():
    voxels = textured(1, (48, 72, 60))
    halved = voxels.reshape(24, 2, 36, 2, 30, 2).mean(axis=(1, 3, 5))
    assert likeness(signed(voxels), signed(halved, (2.0, 2.0, 2.0))) > LIKENESS
    assert likeness(signed(voxels), signed(halved, (7.0, 7.0, 7.0))) == 0


def test_a_flat_image_is_like_nothing():
    flat = signed(np.full((20, 20, 20), 7.0, np.float32))
    assert likeness(flat, flat) == 0


@pytest.mark.parametrize("name", REAL)
def test_resaved_copies_among_real_patients_are_found_and_nothing_else(shared_data, measured_real, name):
    signatures = {case: measures.signature for case, measures in measured_real(name).fingerprint.cases.items()}
    assert near_duplicates(signatures, LIKENESS) == [], "different patients"
    dataset, copied = open_dataset(shared_data(name)), 4
    for number, files in enumerate(dataset.cases[:copied]):
        image = read_case(files, len(dataset.channels), orientation="lps").image
        signatures[f"copy of {files.case}"] = signed(resaved(image.voxels[0], number), image.grid.spacing)
    found = near_duplicates(signatures, LIKENESS)
    assert sorted(pair[:2] for pair in found) == sorted((files.case, f"copy of {files.case}") for files in dataset.cases[:copied])


def test_a_windowed_ct_is_known_as_a_copy_of_its_hounsfield_units(shared_data, measured_real):
    dataset = open_dataset(shared_data("lung_ct_hu"))
    image = read_case(dataset.cases[0], 1, orientation="lps").image
    own = measured_real("lung_ct_hu").fingerprint.cases[dataset.cases[0].case].signature
    windowed = np.round((np.clip(image.voxels[0], -1250, 250) + 1250) / 1500 * 255)
    assert likeness(own, signed(windowed, image.grid.spacing)) > LIKENESS
