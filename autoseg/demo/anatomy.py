"""The chest that the phantoms show: body, ribs, spine, heart, two lungs, vessels. Made shapes, of no patient.

Coordinates are LPS millimetres about the middle of the chest: x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autoseg.geometry import triple

AIR, LUNG, FAT, MUSCLE, BLOOD, LIVER, BONE = -1000.0, -860.0, -100.0, 40.0, 45.0, 60.0, 350.0
SIDES = {"left": 1, "right": -1}  # sign of x
VESSEL_STEP = 3.0  # mm


@dataclass(frozen=True)
class Space:
    """A voxel grid about the chest's middle.

    z, y, x: mm of the voxels, open (they broadcast to the grid's shape).
    spacing: mm (z, y, x).
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Space:
        z, y, x = (((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(shape, spacing, strict=True))
        return cls(z[:, None, None], y[None, :, None], x[None, None, :], spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size

    def around(self, where: np.ndarray, reach: float) -> tuple[tuple[slice, slice, slice], Space]:
        """The voxels within `reach` mm of a point (z, y, x) along each axis, as slices and as a space of their own; at least one."""
        box = []
        for axis, middle in zip((self.z.ravel(), self.y.ravel(), self.x.ravel()), where, strict=True):
            low, high = np.searchsorted(axis, [middle - reach, middle + reach])
            low = min(int(low), axis.size - 1)
            box.append(slice(low, max(int(high), low + 1)))
        return triple(box), Space(self.z[box[0]], self.y[:, box[1]], self.x[:, :, box[2]], self.spacing)

    def smooth_noise(self, rng: np.random.Generator, millimetres: float) -> np.ndarray:
        """Noise of mean 0 and deviation 1 (over all of space) that is correlated over about `millimetres`."""
        sigma = [millimetres / s for s in self.spacing]
        field = ndimage.gaussian_filter(rng.standard_normal(self.shape, dtype=np.float32), sigma, mode="wrap")
        return field / max(float(field.std()), 1e-6)


@dataclass(frozen=True)
class Chest:
    """One phantom's healthy chest.

    hu: float32 (z, y, x). left, right: lungs. depth: mm below the lung's surface, 0 outside. size: half-width, half-depth, height in mm.
    """

    hu: np.ndarray
    left: np.ndarray
    right: np.ndarray
    depth: np.ndarray
    size: tuple[float, float, float]

    @property
    def lungs(self) -> np.ndarray:
        return self.left | self.right


def make_chest(space: Space, size: tuple[float, float, float], rng: np.random.Generator) -> Chest:
    """A chest of half-width, half-depth and height `size` mm."""
    bend = 3.5
    x = space.x + bend * space.smooth_noise(rng, 22)
    y = space.y + bend * space.smooth_noise(rng, 22)
    z = space.z + bend * space.smooth_noise(rng, 22)
    hu = _body(x, y, z, size, rng)
    lungs, above = {}, np.zeros(space.shape, np.float32)
    for name, side in SIDES.items():
        lungs[name], height = _lung(x, y, z, side, size, rng)
        above = np.where(np.sign(space.x) == side, height, above)
    inside = lungs["left"] | lungs["right"]
    depth = ndimage.distance_transform_edt(inside, sampling=space.spacing).astype(np.float32)
    parenchyma = LUNG + rng.uniform(-15, 90) + 18 * space.smooth_noise(rng, 12)
    dependent = rng.uniform(60, 260) * np.exp(-np.maximum(0.72 * size[1] - y, 0) / rng.uniform(14, 26))  # blood sinks to the back
    breathing = 1 / (1 + np.exp(np.clip(above / rng.uniform(3, 6), -30, 30)))  # the diaphragm moves while the scan is taken
    tissue = parenchyma + dependent
    hu = np.where(inside, tissue + (LIVER - tissue) * breathing, hu)
    hu = _with_vessels(hu, space, inside, size, rng)
    return Chest(hu.astype(np.float32), lungs["left"], lungs["right"], depth, size)


def _body(x: np.ndarray, y: np.ndarray, z: np.ndarray, size: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    width, depth, _ = size
    skin = np.sqrt((x / width) ** 2 + (y / depth) ** 2)
    cage = np.sqrt((x / (0.87 * width)) ** 2 + (y / (0.82 * depth)) ** 2)
    hu = np.where(skin < 1, FAT, AIR)
    hu = np.where(cage < 1.09, MUSCLE, hu)
    ribs = (abs(cage - 1.03) < 0.035) & (np.cos(2 * np.pi * (z + 0.45 * y) / rng.uniform(24, 30)) > 0.35)
    hu = np.where(ribs, BONE + 120, hu)
    behind = 0.60 * depth
    vertebra = (x / 17) ** 2 + ((y - behind) / 14) ** 2 < 1
    disc = np.cos(2 * np.pi * z / 24) > 0.8
    hu = np.where(vertebra, np.where(disc, 90, BONE - 100), hu)
    hu = np.where((x / 8) ** 2 + ((y - behind - 21) / 7) ** 2 < 1, 20, hu)
    hu = np.where((abs(x) < 14) & (abs(y + 0.80 * depth) < 5), BONE, hu)  # breastbone
    trachea = (x**2 + (y - 0.12 * depth) ** 2 < 8**2) & (z > 25)
    return np.where(trachea, AIR + 30, hu)


def _lung(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, side: int, size: tuple[float, float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The lung as a mask, and mm above its diaphragm."""
    width, depth, height = size
    left = side > 0
    centre, radius = side * 0.46 * width, (0.335 if left else 0.375) * width  # the left lung makes room for the heart
    level = np.clip((z + height / 2) / height, 0, 1)
    taper = np.sqrt(np.clip(1 - np.clip(level - 0.1, 0, 1) ** 3 / 0.9**3, 0, 1))
    shape = ((x - centre * (0.85 + 0.15 * taper)) / np.maximum(radius * taper, 1)) ** 2 + (y / np.maximum(0.74 * depth * taper, 1)) ** 2
    dome = (0.20 if left else 0.27) * height * rng.uniform(0.8, 1.2)
    floor = -0.46 * height + dome * (1 - ((x - 0.8 * centre) / (0.5 * width)) ** 2 - (y / (0.9 * depth)) ** 2)
    heart = ((x - 0.16 * width) / (0.34 * width)) ** 2 + ((y + 0.22 * depth) / (0.36 * depth)) ** 2
    heart = heart + ((z + 0.16 * height) / (0.30 * height)) ** 2
    aorta = (x - 0.13 * width) ** 2 + (y - 0.40 * depth) ** 2 < 13**2
    spine = (x / 22) ** 2 + ((y - 0.60 * depth) / 19) ** 2 < 1
    lung = (shape < 1) & (z > floor) & (z < height / 2) & (heart > 1) & ~aorta & ~spine & (side * x > 0.09 * width)
    return lung, z - floor


def _with_vessels(
    hu: np.ndarray, space: Space, inside: np.ndarray, size: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    share = np.zeros(space.shape, np.float32)
    for side in SIDES.values():
        hilum = np.array([rng.uniform(-12, 6), 0.06 * size[1], side * 0.14 * size[0]])
        for _ in range(8):
            direction = np.array([rng.uniform(-1.1, 1.1), rng.uniform(-1, 1), side * rng.uniform(0.3, 1.2)])
            _grow(share, space, hilum, direction, rng.uniform(3.5, 5.5), rng)
    return np.where(inside, hu + (BLOOD - hu) * share, hu)


def _grow(share: np.ndarray, space: Space, start: np.ndarray, direction: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """A winding, thinning, branching vessel, drawn into `share` (the part of each voxel that is blood)."""
    pending = [(start, direction / np.linalg.norm(direction), radius)]
    while pending:
        point, heading, thickness = pending.pop()
        while thickness > 1.0:
            _stamp(share, space, point, thickness)
            heading = heading + rng.normal(0, 0.18, 3)
            heading /= np.linalg.norm(heading)
            point = point + VESSEL_STEP * heading
            thickness *= 0.965
            if thickness > 1.4 and rng.random() < 0.10:
                turned = heading + rng.normal(0, 0.7, 3)
                pending.append((point, turned / np.linalg.norm(turned), thickness * rng.uniform(0.6, 0.8)))


def _stamp(share: np.ndarray, space: Space, point: np.ndarray, radius: float) -> None:
    """A ball of blood with the partial volume that its voxels' size gives it."""
    blur = float(np.mean(space.spacing))
    box, near = space.around(point, radius + blur)
    distance = np.sqrt((near.z - point[0]) ** 2 + (near.y - point[1]) ** 2 + (near.x - point[2]) ** 2)
    filled = np.clip((radius - distance) / blur + 0.5, 0, 1) * min(1.0, 2 * radius / blur)
    np.maximum(share[box], filled, out=share[box])
