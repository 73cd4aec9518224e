"""Serial sections are known by their numbers and by how alike neighbours are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from autoseg.data.folders.layouts import open_dataset
from autoseg.data.reading import read_case
from autoseg.fingerprint.numbering import stacks
from autoseg.fingerprint.sections import serial_sections
from autoseg.fingerprint.signature import sign
from autoseg.geometry import Orientation


class Measured:
    """What `serial_sections` looks at."""

    def __init__(self, image: np.ndarray, planar: bool = True):
        self.planar, self.signature = planar, sign(image, (1.0, 1.0, 1.0), Orientation())


def images(count: int, along: float, seed: int = 0) -> list[np.ndarray]:
    """(1, y, x) sections of one block; `along`: over how many sections it changes, 0 for images that have nothing in common."""
    block = np.random.default_rng(seed).normal(size=(count, 120, 120))
    return [image[None].astype(np.float32) for image in gaussian_filter(block, (along, 3, 3))]


def test_names_are_ordered_by_their_last_number():
    assert stacks(["s10", "s9", "s1", "b_2_x", "b_1_x", "lone"]) == [("b_1_x", "b_2_x"), ("lone",), ("s1", "s9", "s10")]
    assert stacks(["p1_s2", "p1_s1", "p2_s1"]) == [("p1_s1", "p1_s2"), ("p2_s1",)]


def test_sections_of_one_block_are_alike_where_their_numbers_are():
    found = serial_sections({f"em_{i}": Measured(image) for i, image in enumerate(images(24, 1.5))})
    assert found.stacks == (tuple(f"em_{i}" for i in range(24)),)
    assert found.gain > 0.4 and abs(found.apart) < 0.1


def test_shuffled_numbers_independent_images_and_volumes_are_no_sections():
    blocks = images(24, 1.5)
    assert serial_sections({f"em_{7 * i % 24}": Measured(image) for i, image in enumerate(blocks)}).gain < 0.1, "neighbours lie 7 apart"
    assert abs(serial_sections({f"case_{i}": Measured(image) for i, image in enumerate(images(24, 0))}).gain) < 0.1
    assert serial_sections({f"em_{i}": Measured(image, planar=False) for i, image in enumerate(blocks)}) is None
    assert serial_sections({f"em_{97 * i}": Measured(image) for i, image in enumerate(blocks)}) is None, "no neighbours by number"
    assert serial_sections({f"em_{i}": Measured(image) for i, image in enumerate(blocks[:4])}) is None


def test_slices_of_several_volumes_are_several_stacks():
    cases = {f"p{p}_{i:02d}": Measured(image) for p in range(3) for i, image in enumerate(images(12, 1.5, p))}
    found = serial_sections(cases)
    assert [len(stack) for stack in found.stacks] == [12, 12, 12]
    assert found.gain > 0.4


def test_the_real_stack_is_one_and_numbered_patients_are_none(measured_real):
    found = serial_sections(measured_real("em_2d").fingerprint.cases)
    assert found.stacks == (tuple(f"em_{i:02d}" for i in range(30)),)
    assert found.neighbours == pytest.approx(0.43, abs=0.02) and abs(found.apart) < 0.05
    assert serial_sections(measured_real("hippocampus").fingerprint.cases) is None


def test_middle_slices_of_numbered_patients_are_no_sections(shared_data):
    """2D images of 100 patients in the order of their numbers: neighbours are hardly more alike than others."""
    dataset, cases = open_dataset(shared_data("hippocampus")), {}
    for number, files in enumerate(dataset.cases):
        voxels = read_case(files, 1, orientation="lps").image.voxels[0]
        (_, y, x), middle = voxels.shape, len(voxels) // 2
        cases[f"case_{number:03d}"] = Measured(voxels[middle : middle + 1, (y - 32) // 2 : (y + 32) // 2, (x - 28) // 2 : (x + 28) // 2])
    assert serial_sections(cases).gain < 0.15
