"""What is changed at random in a training sample, by batchgenerators' functions.

Everything that decides which voxels are needed is drawn first, by the sample's own generator; most samples then need no
interpolation and no more than their patch. batchgenerators draws its remaining parameters from numpy's and Python's global
generators, which `seeded` lends it and restores.

Sources: paper.md items 9 and 10; the peer's section 4.6.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.errors import PlanError
from autoseg.geometry import Box
from autoseg.planning.schema import AugmentationPlan, TransformPlan

SPATIAL = ("elastic", "rotate", "scale")

# What each transform draws, by the keys of its `ranges`; `rotate` may leave out axes that it doesn't turn about.
RANGES: dict[str, tuple[str, ...]] = {
    "elastic": ("alpha", "sigma"),
    "rotate": ("z", "y", "x"),
    "scale": ("factor",),
    "contrast": ("factor",),
    "brightness": ("factor",),
    "gamma": ("exponent",),
    "noise": ("deviation",),
    "blur": ("sigma",),
    "low_resolution": ("factor",),
}
_AXES = "zyx"
_LOOK_AROUND = frozenset({"contrast", "gamma", "blur", "low_resolution"})  # what a voxel becomes depends on others
_SPLINE_REACH = {0: 1, 1: 1}  # voxels beyond the outermost point; a cubic prefilter decays to 1e-7 within 12


@dataclass(frozen=True)
class Drawn:
    """What happens to one sample; the axes are those of the volume inside, (z, y, x)."""

    intensity: tuple[TransformPlan, ...] = ()
    spatial: tuple[TransformPlan, ...] = ()
    mirrored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sides:
    """What a mirror image does to labels with a side.

    rule: `exchange` swaps the pairs, `keep` never mirrors left to right, `blind` takes no notice.
    axis: the volume's left-right axis, inside.
    pairs: class indices of (left, right); none where outputs are regions, which the loss's targets exchange.
    """

    rule: str
    axis: int
    pairs: tuple[tuple[int, int], ...]


def check(plan: AugmentationPlan) -> None:
    """Whether every transform names the ranges that it draws from.

    Raises:
        PlanError: one is missing or unknown.
    """
    for number, transform in enumerate(plan.transforms):
        wanted, found = set(RANGES[transform.do]), set(transform.ranges)
        fewer_axes = transform.do == "rotate" and found and found < wanted
        if found != wanted and not fewer_axes:
            raise PlanError(
                f"training.augmentation.transforms.{number} ({transform.do}) has ranges {sorted(found)}, it draws from {sorted(wanted)}",
                remedy="Name exactly these ranges, each as [lowest, highest]",
            )


def inside(plan: AugmentationPlan, position: Callable[[int], int]) -> AugmentationPlan:
    """The plan with its array axes as read replaced by the volume's axes inside, which `position` gives."""

    def moved(transform: TransformPlan) -> TransformPlan:
        if transform.do != "rotate":
            return transform
        return transform.model_copy(update={"ranges": {_AXES[position(_AXES.index(axis))]: r for axis, r in transform.ranges.items()}})

    return plan.model_copy(
        update={
            "transforms": [moved(t) for t in plan.transforms],
            "mirror_axes": sorted(position(a) for a in plan.mirror_axes),
        }
    )


def draw(plan: AugmentationPlan, sides: Sides, dimension: int, rng: np.random.Generator) -> Drawn:
    """Which transforms and mirrors happen; each is drawn for itself, in the plan's order.

    Args:
        dimension: 2 mirrors no slices' axis.
    """
    fires = [t for t in plan.transforms if rng.random() < t.probability]
    mirrored = [axis for axis in plan.mirror_axes if rng.random() < plan.mirror_probability]
    return Drawn(
        intensity=tuple(t for t in fires if t.do not in SPATIAL),
        spatial=tuple(t for t in fires if t.do in SPATIAL),
        mirrored=tuple(a for a in mirrored if a >= 3 - dimension and not (sides.rule == "keep" and a == sides.axis)),
    )


def needs_whole_volume(plan: AugmentationPlan, drawn: Drawn) -> bool:
    """Whether an intensity transform must see all of the volume to change a patch of it as the plan says."""
    return plan.statistics == "volume" and any(t.do in _LOOK_AROUND for t in drawn.intensity)


@contextlib.contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Lend numpy's and Python's global generators, which batchgenerators draws from, a seed of `rng`; restore them after."""
    seed = rng.integers(2**32, size=4, dtype=np.uint32)
    before, before_python = np.random.get_state(), random.getstate()
    try:
        np.random.seed(seed)
        random.seed(seed.tobytes())
        yield
    finally:
        np.random.set_state(before)
        random.setstate(before_python)


def centred_points(spatial: Sequence[TransformPlan], size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Where each voxel of the patch comes from, relative to the patch's centre: (dimension, *size), in voxels.

    The grid is bent, then turned, then stretched (paper.md item 9). Call it inside `seeded`: the elastic field is numpy's.
    """
    from batchgenerators.augmentations import utils

    points = utils.create_zero_centered_coordinate_mesh(tuple(size))
    for transform in sorted(spatial, key=lambda t: SPATIAL.index(t.do)):
        if transform.do == "elastic":
            alpha, sigma = (rng.uniform(*transform.ranges[key]) for key in ("alpha", "sigma"))
            points = utils.elastic_deform_coordinates(points, alpha, sigma)
        elif transform.do == "rotate":
            angles = [np.deg2rad(rng.uniform(*transform.ranges.get(axis, (0, 0)))) for axis in _AXES]
            points = utils.rotate_coords_3d(points, *angles) if len(size) == 3 else utils.rotate_coords_2d(points, angles[0])
        else:
            points = utils.scale_coords(points, draw_factor(*transform.ranges["factor"], rng))
    return points


def draw_factor(low: float, high: float, rng: np.random.Generator) -> float:
    """A factor that shrinks or stretches with equal chance, uniform on either side of 1 (paper.md item 9)."""
    if rng.random() < 0.5 and low < 1:
        return float(rng.uniform(low, min(high, 1)))
    return float(rng.uniform(max(low, 1), high)) if high > 1 else float(rng.uniform(low, high))


def needed_box(points: np.ndarray, shape: Sequence[int], order: int) -> Box:
    """The part of a volume of `shape` that interpolating at `points` (dimension, ...) depends on."""
    reach = _SPLINE_REACH.get(order, 12)
    flat = points.reshape(len(points), -1)
    box = []
    for low, high, length in zip(flat.min(1), flat.max(1), shape, strict=True):
        first = min(max(int(np.floor(low)) - reach, 0), length - 1)
        box.append((first, min(max(int(np.ceil(high)) + reach + 1, first + 1), length)))
    return tuple(box)


def interpolate(image: np.ndarray, labels: np.ndarray, points: np.ndarray, orders: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image (C, ...) and labels (...) at `points`, which are indices of these arrays; 0 and background outside."""
    from batchgenerators.augmentations.utils import interpolate_img

    moved = np.stack([interpolate_img(channel, points, orders[0], "constant", 0.0) for channel in image])
    return moved, interpolate_img(labels, points, orders[1], "constant", 0, is_seg=True)


def change_intensity(image: np.ndarray, transforms: Sequence[TransformPlan]) -> np.ndarray:
    """The image (C, ...) after these transforms, in their order. Call it inside `seeded`."""
    for transform in transforms:
        image = _INTENSITY[transform.do](image, transform)
    return image


def mirror(image: np.ndarray, labels: np.ndarray, axes: Sequence[int], sides: Sides) -> tuple[np.ndarray, np.ndarray, bool]:
    """Image (C, ...) and labels (...) reversed along `axes` of the volume, and whether left and right were exchanged by that."""
    network_axes = tuple(a - 3 + labels.ndim for a in axes)
    image, labels = np.flip(image, tuple(a + 1 for a in network_axes)), np.flip(labels, network_axes)
    exchanged = sides.rule == "exchange" and sides.axis in axes
    return image, exchange_sides(labels, sides.pairs) if exchanged else labels, exchanged


def exchange_sides(labels: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """The labels with left and right of each pair of class indices swapped."""
    table = np.arange(np.iinfo(labels.dtype).max + 1, dtype=labels.dtype)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table[labels]


def _each_channel(image: np.ndarray, probability: float, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    for c in range(len(image)):
        if np.random.uniform() < probability:
            image[c : c + 1] = change(image[c : c + 1])
    return image


def _contrast(image: np.ndarray, transform: TransformPlan) -> np.ndarray:
    from batchgenerators.augmentations.color_augmentations import augment_contrast

    factor = transform.ranges["factor"]
    return augment_contrast(image, factor, preserve_range=True, per_channel=True, p_per_channel=transform.channel_probability)


def _brightness(image: np.ndarray, transform: TransformPlan) -> np.ndarray:
    from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative

    factor = transform.ranges["factor"]
    return _each_channel(image, transform.channel_probability, lambda channel: augment_brightness_multiplicative(channel, factor))


def _gamma(image: np.ndarray, transform: TransformPlan) -> np.ndarray:
    from batchgenerators.augmentations.color_augmentations import augment_gamma

    exponent = transform.ranges["exponent"]
    return _each_channel(
        image,
        transform.channel_probability,
        lambda channel: augment_gamma(channel, exponent, transform.invert, per_channel=True, retain_stats=True),
    )


def _noise(image: np.ndarray, transform: TransformPlan) -> np.ndarray:
    """batchgenerators calls it a variance and uses it as the standard deviation, one for all channels (paper.md item 10)."""
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_noise

    return augment_gaussian_noise(image, transform.ranges["deviation"], p_per_channel=transform.channel_probability, per_channel=False)


def _blur(image: np.ndarray, transform: TransformPlan) -> np.ndarray:
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur

    return augment_gaussian_blur(
        image, transform.ranges["sigma"], per_channel=True, p_per_channel=transform.channel_probability, different_sigma_per_axis=True
    )


def _low_resolution(image: np.ndarray, transform: TransformPlan) -> np.ndarray:
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy

    return augment_linear_downsampling_scipy(
        image,
        transform.ranges["factor"],
        per_channel=True,
        p_per_channel=transform.channel_probability,
        order_downsample=0,
        order_upsample=1,
    )


_INTENSITY: dict[str, Callable[[np.ndarray, TransformPlan], np.ndarray]] = {
    "contrast": _contrast,
    "brightness": _brightness,
    "gamma": _gamma,
    "noise": _noise,
    "blur": _blur,
    "low_resolution": _low_resolution,
}
