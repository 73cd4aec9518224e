"""Made chest CTs with lesions and with what only looks like lesions, and the rule of thumb that they defeat.

Lesions are hazy and textured (ground-glass) or dense and grown onto the pleura (consolidation). Smooth haze, blood at the back,
the moving diaphragm, dense bands and vessels have the same Hounsfield values and belong to the lung: a threshold cannot tell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.demo.anatomy import Chest, Space, make_chest
from autoseg.files import appears_whole, write_text
from autoseg.geometry import Grid, Orientation, triple

LABELS = {"background": 0, "lung_left": 1, "lung_right": 2, "infection": 3}
GROUPS = {"lungs": ["lung_left", "lung_right"]}
WINDOW = (-1250.0, 250.0)  # of the volumes that come as 0..255
AS_NIFTI_TOOLS_STORE = Orientation((0, 1, 2), (False, True, True))  # half of the files run to the right and to the front


@dataclass(frozen=True)
class Phantom:
    """One made patient.

    image: int16 Hounsfield units or uint8 0..255 (z, y, x), LPS axes.
    labels: uint8 values of LABELS (z, y, x).
    kind: "hu" or "windowed".
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    grid: Grid
    kind: str


def make_phantom(number: int, seed: int) -> Phantom:
    """Phantom `number` of a series: always the same for the same two numbers.

    Of each twenty, the fourth is thinner than a patch (12 slices) and the seventh is not square; every second is HU.
    """
    rng = np.random.default_rng((seed, number))
    size = (rng.uniform(122, 146), rng.uniform(84, 98), rng.uniform(150, 185))
    edge, spacing = int(rng.integers(76, 89)), rng.uniform(3.6, 5.4)
    in_plane = 2 * size[0] * 1.06 / edge
    slices = int(np.clip(round(size[2] * 1.04 / spacing), 28, 44))
    rows = edge
    if number % 20 == 3:
        slices = 12
    if number % 20 == 6:
        rows = int(np.ceil(2 * size[1] * 1.05 / in_plane))
    grid = Grid((slices, rows, edge), (spacing, in_plane, in_plane), origin=triple(float(v) for v in rng.uniform(-200, 0, 3)))
    space = Space.of(grid.shape, grid.spacing)
    chest = make_chest(space, size, rng)
    hu = chest.hu.copy()
    _add_lookalikes(hu, chest, space, rng)
    infection = _add_lesions(hu, chest, space, rng)
    labels = np.where(infection, 3, np.where(chest.left, 1, np.where(chest.right, 2, 0))).astype(np.uint8)
    hu = hu + rng.uniform(10, 20) * space.smooth_noise(rng, 1.5) + rng.normal(0, 8, hu.shape)
    kind = "hu" if number % 2 == 0 else "windowed"
    return Phantom(f"phantom_{number:02d}", _as_stored(hu, kind), labels, grid, kind)


def _as_stored(hu: np.ndarray, kind: str) -> np.ndarray:
    if kind == "hu":
        return np.clip(np.round(hu), -1024, 3000).astype(np.int16)
    low, high = WINDOW
    return np.round((np.clip(hu, low, high) - low) / (high - low) * 255).astype(np.uint8)


def to_hu(image: np.ndarray, kind: str) -> np.ndarray:
    """A phantom's image in Hounsfield units, float32; `windowed` values know only those of the window."""
    low, high = WINDOW
    return image.astype(np.float32) if kind == "hu" else image.astype(np.float32) / 255 * (high - low) + low


@dataclass(frozen=True)
class Blob:
    """An irregular ellipsoid in a lung, on the box of voxels around it.

    depth: 1 at its middle, 0 at its edge, negative outside; very negative outside of the lungs.
    """

    box: tuple[slice, slice, slice]
    space: Space
    depth: np.ndarray


def _blob(space: Space, chest: Chest, radii: np.ndarray, ragged: float, rng: np.random.Generator, *, pleural: bool) -> Blob:
    where = _place(chest, space, rng, pleural=pleural)
    box, near = space.around(where, 1.6 * float(max(radii)))
    z, y, x = (axis - middle for axis, middle in zip((near.z, near.y, near.x), where, strict=True))
    distance = np.sqrt((z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2)
    return Blob(box, near, np.where(chest.lungs[box], 1 - distance + ragged * near.smooth_noise(rng, 7), -9.0))


def _place(chest: Chest, space: Space, rng: np.random.Generator, *, pleural: bool) -> np.ndarray:
    """A point (z, y, x) mm in a lung; `pleural`: near its surface, more often at the back."""
    candidates = np.argwhere(chest.lungs & (chest.depth < 12) if pleural else chest.lungs)
    at_back = candidates[:, 1] > space.shape[1] / 2
    weight = np.where(at_back, 3.0, 1.0) if pleural else np.ones(len(candidates))
    index = candidates[rng.choice(len(candidates), p=weight / weight.sum())]
    return np.array([axis.ravel()[i] for axis, i in zip((space.z, space.y, space.x), index, strict=True)])


def _thicken(hu: np.ndarray, target: np.ndarray | float, share: np.ndarray) -> None:
    """Denser tissue in place of lung: nothing that is denser already, such as a vessel, becomes lighter."""
    hu += np.maximum(target - hu, 0) * share


def _soft(depth: np.ndarray, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(depth / width, -30, 30)))


def _add_lookalikes(hu: np.ndarray, chest: Chest, space: Space, rng: np.random.Generator) -> None:
    """Smooth haze and dense bands (collapsed lung): lesion-like values, but lung."""
    for _ in range(int(rng.integers(7, 10))):
        blob = _blob(space, chest, rng.uniform(20, 40, 3), 0.12, rng, pleural=rng.random() < 0.6)
        _thicken(hu[blob.box], rng.uniform(-560, -330), _soft(blob.depth, 0.10))
    for _ in range(int(rng.integers(2, 5))):
        z, y, x = (axis - middle for axis, middle in zip((space.z, space.y, space.x), _place(chest, space, rng, pleural=True), strict=True))
        tilt, turn = rng.uniform(-0.35, 0.35), rng.uniform(0, np.pi)
        off_plane = z + tilt * (np.cos(turn) * x + np.sin(turn) * y) + 2.0 * space.smooth_noise(rng, 15)
        band = _soft(rng.uniform(2.5, 4.0) - abs(off_plane), 0.8) * (x**2 + y**2 < rng.uniform(24, 42) ** 2) * chest.lungs
        _thicken(hu, rng.uniform(-250, 20), band)


def _add_lesions(hu: np.ndarray, chest: Chest, space: Space, rng: np.random.Generator) -> np.ndarray:
    """Ground-glass and consolidation; the mask of both."""
    infection = np.zeros(space.shape, bool)
    for _ in range(int(rng.integers(4, 7))):
        blob = _blob(space, chest, rng.uniform(21, 36, 3), 0.13, rng, pleural=True)
        share = _soft(blob.depth, 0.06)
        _thicken(hu[blob.box], rng.uniform(-700, -600), share)
        septa = rng.uniform(330, 390) * blob.space.smooth_noise(rng, 5.0)  # thickened ones: "crazy paving"
        hu[blob.box] += septa * share * chest.lungs[blob.box]
        infection[blob.box] |= blob.depth > 0
    for _ in range(int(rng.integers(1, 3))):
        blob = _blob(space, chest, rng.uniform(15, 25, 3), 0.13, rng, pleural=True)
        airways = blob.space.smooth_noise(rng, 2.8) > 0.9  # air that stays in the bronchi
        _thicken(hu[blob.box], np.where(airways, -600, rng.uniform(-80, 45)), _soft(blob.depth, 0.05))
        infection[blob.box] |= blob.depth > 0
    return infection & chest.lungs


def write_phantoms(phantoms: Sequence[Phantom], images: Path, labels: Path) -> None:
    """Write each phantom as `images/NAME_0000.nii.gz` and `labels/NAME.nii.gz`."""
    for phantom in phantoms:
        turned = AS_NIFTI_TOOLS_STORE if phantom.kind == "windowed" else Orientation()
        grid = phantom.grid.oriented(turned)
        _write(images / f"{phantom.name}_0000.nii.gz", turned.apply(phantom.image), grid)
        _write(labels / f"{phantom.name}.nii.gz", turned.apply(phantom.labels), grid)


def _write(path: Path, array: np.ndarray, grid: Grid) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    with appears_whole(path) as beside:
        sitk.WriteImage(image, str(beside), useCompression=True)


def make_phantoms(folder: Path, count: int = 20, seed: int = 0, *, first: int = 0) -> list[str]:
    """A dataset of `count` phantoms in the nnU-Net layout (dataset.json, imagesTr, labelsTr); the cases' names.

    Args:
        first: the number of the first one; numbers that another dataset has not used give phantoms that it has not seen.
    """
    names = []
    for number in range(first, first + count):
        phantom = make_phantom(number, seed)
        write_phantoms([phantom], folder / "imagesTr", folder / "labelsTr")
        names.append(phantom.name)
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "label_groups": GROUPS, "numTraining": count, "file_ending": ".nii.gz"}
    write_text(folder / "dataset.json", json.dumps(content, indent=2) + "\n")
    return names
