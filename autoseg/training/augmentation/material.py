"""What one sample is made of: the voxels that were read for it and all that was drawn, and the patch that comes of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.geometry import Box, whole_box
from autoseg.training.augmentation.boxes import Volume, overlap, within
from autoseg.training.augmentation.drawing import Change, Wanted, Warp, draw_changes, draw_warp
from autoseg.training.augmentation.intensity import Statistics, change_intensity
from autoseg.training.augmentation.spatial import bent, needed_box, resample


@dataclass(frozen=True)
class Material:
    """Everything that a patch's image depends on. Axes are (z, y, x); a slice is a volume of one voxel along the first.

    image: float32 (C, z, y, x), the voxels of `region`; it may be changed in place.
    region, needed: boxes of the volume that were read for intensities, and that the patch depends on.
    wanted: the patch's box, which may reach out of the volume.
    warp, field, centre: of the spatial step, centre being the patch's middle in the volume; warp None: the patch is cut out.
    changes: of intensities, before the spatial step where `whole` (they belong to the volume), after it otherwise.
    known: of the volume's channels, for a first contrast; None: unknown.
    orders, conventions: as the plan says.
    padding: what stands outside of the volume where a patch is cut out, `zero` or `minimum`.
    mirrored: axes along which the patch is reversed.
    """

    image: np.ndarray
    region: Box
    needed: Box
    wanted: Box
    warp: Warp | None
    field: np.ndarray
    centre: tuple[float, float, float]
    changes: tuple[Change, ...]
    whole: bool
    known: Sequence[Statistics] | None
    orders: tuple[int, int]
    conventions: str
    padding: str
    mirrored: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels of the patch."""
        return tuple(high - low for low, high in self.wanted)

    @property
    def fades(self) -> bool:
        """Whether the volume goes over into zeros at its edge (see `spatial.resample`)."""
        return self.conventions == "batchgeneratorsv2"

    @property
    def middle(self) -> tuple[float, ...]:
        """The patch's middle in the needed voxels."""
        return tuple(c - low for c, (low, _) in zip(self.centre, self.needed, strict=True))


def read(wanted: Wanted, stored: Volume, rng: np.random.Generator) -> tuple[Material, np.ndarray]:
    """What a patch is made of, and its labels (L, *needed box), the first stage's second where they are wanted.

    All that is left to chance is drawn before the first voxel is read.
    """
    plan, place = wanted.plan, wanted.place
    warp, changes = draw_warp(wanted, rng), draw_changes(wanted, stored.channels, rng)
    field, centre = bent(warp, place.size), wanted.centre
    if warp is None:
        needed = overlap(place.box, stored.shape)
    else:
        needed = needed_box(warp, field, place.size, centre, stored.shape, plan.interpolation[0])
    region = whole_box(stored.shape) if wanted.needs_whole_volume else needed
    whole = plan is not None and plan.statistics == "volume"
    labels = [stored.labels(needed), *([stored.previous(needed)] if wanted.previous else [])]
    return Material(
        image=np.require(stored.image(region), np.float32, ["C", "OWNDATA", "WRITEABLE"]),  # it will be changed in place
        region=region,
        needed=needed,
        wanted=place.box,
        warp=warp,
        field=field,
        centre=centre,
        changes=changes,
        whole=whole,
        known=stored.statistics if whole else None,
        orders=(0, 0) if plan is None else plan.interpolation,
        conventions="batchgenerators" if plan is None else plan.conventions,
        padding=wanted.padding,
        mirrored=wanted.drawn.mirrored,
    ), np.stack(labels)


def patch(material: Material, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The patch's image and labels, made on the CPU.

    Args:
        labels: integers (L, *needed box).

    Returns:
        float32 (C, *size), labels (L, *size).
    """
    image = material.image
    if material.whole:
        change_intensity(image, material.changes, material.conventions, material.known)
    image = image[(slice(None), *within(material.needed, material.region))]
    image, labels = moved(material, image, labels)
    if not material.whole:
        change_intensity(image, material.changes, material.conventions)
    return image, labels


def moved(material: Material, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image (C, ...) and labels (L, ...) of the needed box, resampled or cut out, mirrored. C may be 0."""
    if material.warp is not None:
        return resample(
            image,
            labels,
            material.warp,
            material.field,
            material.size,
            material.middle,
            material.orders,
            fades=material.fades,
            mirrored=material.mirrored,
        )
    inner = within(material.needed, material.wanted)
    new_image, new_labels = np.zeros((len(image), *material.size), np.float32), np.zeros((len(labels), *material.size), labels.dtype)
    axes = [axis + 1 for axis in material.mirrored]
    np.flip(new_labels, axes)[(slice(None), *inner)] = labels
    if material.padding == "minimum" and len(image):
        widths = [(part.start, size - part.stop) for part, size in zip(inner, material.size, strict=True)]
        image, inner = np.pad(image, [(0, 0), *widths], "minimum"), (slice(None),) * 3
    np.flip(new_image, axes)[(slice(None), *inner)] = image
    return new_image, new_labels


def labels_alone(material: Material, labels: np.ndarray) -> np.ndarray:
    """The patch's labels (L, *size), where the image is left to the device that trains."""
    nothing = np.zeros((0, *labels.shape[1:]), np.float32)
    return moved(material, nothing, labels)[1]
