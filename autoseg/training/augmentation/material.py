"""What one sample is made of: the voxels that were read for it and all that was drawn, and the patch that comes of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.geometry import Box, whole_box
from autoseg.planning.schema import AugmentationPlan
from autoseg.training.augmentation.boxes import Volume, overlap, within
from autoseg.training.augmentation.drawing import Change, Drawn, Warp, draw_changes, draw_warp, needs_whole_volume
from autoseg.training.augmentation.intensity import Statistics, change_intensity
from autoseg.training.augmentation.spatial import bent, needed_box, resample
from autoseg.training.sampling import PatchPlace


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


def read(
    plan: AugmentationPlan | None,
    drawn: Drawn,
    stored: Volume,
    place: PatchPlace,
    dimension: int,
    padding: str,
    previous: bool,
    rng: np.random.Generator,
) -> tuple[Material, np.ndarray]:
    """What a patch at `place` is made of, and its labels (L, *needed box), the first stage's second if `previous`.

    All that is left to chance is drawn before the first voxel is read.

    Args:
        plan: None: the patch is cut out as it is.
    """
    warp = draw_warp(drawn.spatial, plan, dimension, rng) if drawn.spatial else None
    changes = draw_changes(drawn.intensity, plan, stored.channels, dimension, rng) if drawn.intensity else ()
    centre = tuple(_centre(place, axis, plan, dimension) for axis in range(3))
    field = bent(warp, place.size)
    if warp is None:
        needed = overlap(place.box, stored.shape)
    else:
        needed = needed_box(warp, field, place.size, centre, stored.shape, plan.interpolation[0])
    region = whole_box(stored.shape) if plan is not None and needs_whole_volume(plan, drawn) else needed
    whole = plan is not None and plan.statistics == "volume"
    labels = [stored.labels(needed), *([stored.previous(needed)] if previous else [])]
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
        padding=padding,
        mirrored=drawn.mirrored,
    ), np.stack(labels)


def _centre(place: PatchPlace, axis: int, plan: AugmentationPlan | None, dimension: int) -> float:
    """Where the patch's middle lies along an axis: between voxels, but for slices, which are not mixed with their neighbours."""
    apart = 0 if dimension == 2 else plan and plan.thick_axis
    return place.start[axis] + (place.size[axis] - 1) / 2 if axis == apart else place.centre[axis]


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
    """Image (C, ...) and labels (L, ...) of the needed box, resampled or cut out, mirrored. C or L may be 0."""
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
    if material.padding == "minimum":
        widths = [(part.start, size - part.stop) for part, size in zip(inner, material.size, strict=True)]
        image, image_inner = np.pad(image, [(0, 0), *widths], "minimum") if len(image) else image, (slice(None),) * 3
    else:
        image_inner = inner
    new_image, new_labels = np.zeros((len(image), *material.size), np.float32), np.zeros((len(labels), *material.size), labels.dtype)
    axes = [axis + 1 for axis in material.mirrored]
    np.flip(new_image, axes)[(slice(None), *image_inner)] = image
    np.flip(new_labels, axes)[(slice(None), *inner)] = labels
    return new_image, new_labels
