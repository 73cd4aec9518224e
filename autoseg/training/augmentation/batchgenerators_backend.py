"""The transforms by batchgenerators' functions, and any of its own transforms plugged in.

What it doesn't take as an argument it draws from numpy's and Python's global generators, which `seeded` lends it and restores: samples
are therefore made by processes, not by threads.

Sources: paper.md items 9 and 10.
"""

from __future__ import annotations

import contextlib
import importlib
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from autoseg.errors import PlanError
from autoseg.geometry import Box, whole_box
from autoseg.planning.schema import PlugInPlan, TransformPlan
from autoseg.training.augmentation.boxes import Volume, overlap, reached, spline_reach, within
from autoseg.training.augmentation.drawing import AXES, SPATIAL, Wanted, draw_factor


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


def changed(wanted: Wanted, stored: Volume, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image (C, *patch), labels and, where they are wanted, the first stage's labels, mirrored: only the voxels that matter are read.

    Intensities change before the spatial step where they belong to the volume, after it where they belong to the patch. Call it inside
    `seeded`.
    """
    plan, place, spatial = wanted.plan, wanted.place, wanted.drawn.spatial
    flat = 3 - wanted.dimension  # 1 for a slice, whose axis is no axis of the patch
    if spatial:
        points = centred_points(spatial, place.size[flat:], rng, wanted.thick_axis)
        points += np.array(wanted.centre[flat:]).reshape(-1, *[1] * wanted.dimension)
        needed = (*place.box[:flat], *needed_box(points, stored.shape[flat:], plan.interpolation[0]))
    else:
        needed = overlap(place.box, stored.shape)
    region = whole_box(stored.shape) if wanted.needs_whole_volume else needed
    image = np.array(stored.image(region), np.float32)
    if plan.statistics == "volume":
        image = change_intensity(image, wanted.drawn.intensity, wanted.thick_axis)
    image = image[(slice(None), *within(needed, region))]
    labels = [stored.labels(needed), *([stored.previous(needed)] if wanted.previous else [])]
    if spatial:
        points -= np.array([low for low, _ in needed[flat:]]).reshape(-1, *[1] * wanted.dimension)
    else:
        image, labels = _padded(image, labels, needed, place.box, wanted.padding)
    if flat:
        image, labels = image[:, 0], [each[0] for each in labels]
    if spatial:
        image, labels = interpolate(image, labels, points, plan.interpolation)
    if plan.statistics == "patch":
        image = change_intensity(np.array(image), wanted.drawn.intensity, wanted.thick_axis)
    axes = [axis - flat for axis in wanted.drawn.mirrored]
    labels = [np.ascontiguousarray(np.flip(each, axes)) for each in labels]
    image = np.ascontiguousarray(np.flip(image, [axis + 1 for axis in axes]), np.float32)
    return image, labels[0], labels[1] if wanted.previous else None


def plugged(
    image: np.ndarray, labels: np.ndarray, plug_ins: Sequence[PlugInPlan], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Image (C, *patch) and labels (*patch) after batchgenerators' own transforms. Call it inside `seeded`.

    Raises:
        PlanError: a transform changed the patch's size.
    """
    for plug_in in plug_ins:
        if rng.random() >= plug_in.probability:
            continue
        made = plugged_class(plug_in)(**plug_in.arguments)(data=image[None], seg=labels[None, None])
        now, now_labels = made["data"][0], made["seg"][0, 0]
        if now.shape != image.shape or now_labels.shape != labels.shape:
            raise PlanError(
                f"training.augmentation.plug_ins: {plug_in.transform} made a patch of {now.shape} out of {image.shape}",
                remedy="Leave it out; size is the patch's own",
            )
        image, labels = np.ascontiguousarray(now, np.float32), np.ascontiguousarray(now_labels).astype(labels.dtype)
    return image, labels


def plugged_class(plug_in: PlugInPlan) -> Callable[..., Callable[..., dict]]:
    """The class in batchgenerators.transforms.

    Raises:
        PlanError: it isn't there.
    """
    module, name = plug_in.transform.split(".")
    try:
        return getattr(importlib.import_module(f"batchgenerators.transforms.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise PlanError(
            f"training.augmentation.plug_ins names {plug_in.transform}, which batchgenerators.transforms lacks ({error})",
            remedy="Give module and class, such as noise_transforms.RicianNoiseTransform",
        ) from error


def centred_points(
    spatial: Sequence[TransformPlan], size: Sequence[int], rng: np.random.Generator, thick_axis: int | None = None
) -> np.ndarray:
    """Where each voxel of the patch comes from, relative to the patch's centre: (dimension, *size), in voxels.

    The grid is bent, then turned, then stretched (paper.md item 9), a thick axis neither bent nor stretched. Call it inside `seeded`:
    the elastic field is numpy's.
    """
    from batchgenerators.augmentations import utils

    points = utils.create_zero_centered_coordinate_mesh(tuple(size))
    for transform in sorted(spatial, key=lambda t: SPATIAL.index(t.do)):
        if transform.do == "elastic":
            alpha, sigma = (rng.uniform(*transform.ranges[key]) for key in ("alpha", "sigma"))
            bent = utils.elastic_deform_coordinates(points, alpha, sigma)
            if thick_axis is not None:
                bent[thick_axis] = points[thick_axis]
            points = bent
        elif transform.do == "rotate":
            angles = [np.deg2rad(rng.uniform(*transform.ranges.get(axis, (0, 0)))) for axis in AXES]
            points = utils.rotate_coords_3d(points, *angles) if len(size) == 3 else utils.rotate_coords_2d(points, angles[0])
        else:
            factors = np.full(len(size), draw_factor(*transform.ranges["factor"], rng))
            if thick_axis is not None:
                factors[thick_axis] = 1
            points = utils.scale_coords(points, factors)
    return points


def needed_box(points: np.ndarray, shape: Sequence[int], order: int) -> tuple[tuple[int, int], ...]:
    """The part of a volume of `shape` that interpolating at `points` (dimension, ...) depends on."""
    flat = points.reshape(len(points), -1)
    ends = zip(flat.min(1), flat.max(1), shape, strict=True)
    return tuple(reached(low, high, spline_reach(order), length) for low, high, length in ends)


def interpolate(
    image: np.ndarray, labels: Sequence[np.ndarray], points: np.ndarray, orders: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Image (C, ...) and label volumes (...) at `points`, which are indices of these arrays; 0 and background outside."""
    from batchgenerators.augmentations.utils import interpolate_img

    moved = np.stack([interpolate_img(channel, points, orders[0], "constant", 0.0) for channel in image])
    return moved, [interpolate_img(each, points, orders[1], "constant", 0, is_seg=True) for each in labels]


def _padded(
    image: np.ndarray, labels: Sequence[np.ndarray], read: Box, wanted: Box, padding: str
) -> tuple[np.ndarray, Sequence[np.ndarray]]:
    """Image and labels of the box `wanted`, of which `read` was inside the volume; background outside."""
    widths = [(low - start, end - high) for (low, high), (start, end) in zip(read, wanted, strict=True)]
    if not any(before or after for before, after in widths):
        return image, labels
    mode = "constant" if padding == "zero" else "minimum"
    return np.pad(image, [(0, 0), *widths], mode), [np.pad(each, widths) for each in labels]


def change_intensity(image: np.ndarray, transforms: Sequence[TransformPlan], thick_axis: int | None = None) -> np.ndarray:
    """The image (C, ...) after these transforms, in their order. Call it inside `seeded`."""
    for transform in transforms:
        image = (
            _low_resolution(image, transform, thick_axis)
            if transform.do == "low_resolution"
            else _INTENSITY[transform.do](image, transform)
        )
    return image


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


def _low_resolution(image: np.ndarray, transform: TransformPlan, thick_axis: int | None) -> np.ndarray:
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy

    return augment_linear_downsampling_scipy(
        image,
        transform.ranges["factor"],
        per_channel=True,
        p_per_channel=transform.channel_probability,
        order_downsample=0,
        order_upsample=1,
        ignore_axes=None if thick_axis is None else (thick_axis,),
    )


_INTENSITY: dict[str, Callable[[np.ndarray, TransformPlan], np.ndarray]] = {
    "contrast": _contrast,
    "brightness": _brightness,
    "gamma": _gamma,
    "noise": _noise,
    "blur": _blur,
}
