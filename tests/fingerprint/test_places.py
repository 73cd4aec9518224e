"""Where labels lie: centres against scipy's, in fractions of the volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from autoseg.fingerprint.places import label_places


@pytest.mark.parametrize(("shape", "tolerance"), [((30, 50, 41), 1e-4), ((1, 64, 64), 1e-4), ((100, 210, 195), 0.004)])
def test_centres_are_those_of_scipy(shape, tolerance):
    rng, labels = np.random.default_rng(0), np.zeros(shape, np.uint16)
    for value in (3, 700, 8):
        corner = [int(rng.integers(0, max(1, n - n // 3))) for n in shape]
        labels[tuple(slice(c, c + max(1, n // 3)) for c, n in zip(corner, shape, strict=True))] = value
    found = label_places(labels)
    assert set(found) == set(np.unique(labels).tolist())
    for value, place in found.items():
        expected = (np.array(center_of_mass(labels == value)) + 0.5) / shape
        assert np.abs(np.array(place) - expected).max() <= tolerance


def test_a_mirrored_label_map_has_mirrored_places():
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[2:5, 3:9, 30:38] = 1
    place, mirrored = label_places(labels)[1], label_places(labels[:, :, ::-1])[1]
    assert mirrored == pytest.approx((place[0], place[1], 1 - place[2]), abs=1e-3)
