"""One case as one configuration wants it: cropped, its intensities adapted, on the configuration's spacing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap

import numpy as np

from autoseg.data.case import Case
from autoseg.data.labels import LabelSet, smallest_unsigned
from autoseg.errors import PlanError
from autoseg.fingerprint.case_measures import nonzero_box
from autoseg.fingerprint.kinds import mended, mending
from autoseg.geometry import Box, Triple, box_slices, whole_box
from autoseg.planning.schema import ConfigurationPlan, IntensityPlan, IntensityStep, ZScore
from autoseg.preprocessing.intensity import apply_steps_in_place
from autoseg.preprocessing.prepared import Origin, PreparedCase
from autoseg.preprocessing.resampling import across_axis, new_shape, resample_image, resample_labels

Mending = tuple[float, float]
"""Minimum and offset of a channel, which say how its values become HU; see `autoseg.fingerprint.kinds.mended`."""


def prepare_case(
    case: Case,
    configuration: ConfigurationPlan,
    intensity: Mapping[str, Mapping[str, IntensityPlan]],
    channels: Sequence[str],
    kinds: Sequence[str],
    labels: LabelSet | None,
    *,
    mendings: Sequence[Mending | None] | None = None,
    threads: int | None = None,
) -> PreparedCase:
    """Crop, intensity steps, transpose, resampling, intensity steps (peer section 3, paper.md items 4 to 7).

    Args:
        case: as read, in the dataset's orientation; it is not changed.
        configuration: as the plan has it, its triples in the order of the volume as read.
        intensity: channel name -> kind -> steps.
        channels: the channels' names, in the order of the case.
        kinds: the kind of each channel.
        labels: None leaves the label map out.
        mendings: (minimum, offset) of each channel, of which those of kind `hu` are mended, as the fingerprint has them
            (`autoseg.fingerprint.kinds.mended`); None, for all or for one: they are found from the channel's values.
        threads: for resampling; None takes one a core.

    Raises:
        PlanError: the plan has no steps for a channel's kind.
    """
    configuration = configuration.inside()
    geometry = _geometry(case, configuration)
    plans = [_steps(intensity, *each, case.name) for each in zip(channels, kinds, strict=True)]
    steps = _masked_steps(plans, configuration.normalise_in_mask)
    crops_label = labels is not None and case.labels is not None and configuration.crop == "nonzero"
    mask = _inside_mask(case.image.voxels, geometry) if crops_label or _needs_mask(steps) else None
    mask_after = mask
    if mask is not None and mask.shape != geometry.shape and _needs_mask([([], after) for _, after in steps]):
        mask_after = resample_labels(mask.view(np.uint8), geometry.shape, order=0).view(bool)
    rule = configuration.resampling.image
    across = across_axis(rule.across, geometry.spacing, geometry.target, configuration.transpose)

    def prepared(
        channel: np.ndarray, kind: str, known: Mending | None, before: list[IntensityStep], after: list[IntensityStep]
    ) -> np.ndarray:
        values = np.array(geometry.cropped(channel), np.float32, order="C")
        if kind == "hu":
            mended(values, *(known or mending(channel)), out=values)
        apply_steps_in_place(before, values, mask=mask)
        if values.shape != geometry.shape:  # the same shape would only be copied
            (values,) = resample_image(
                values[None], geometry.shape, order=rule.order, across=across, order_across=rule.order_across, threads=threads
            )
        apply_steps_in_place(after, values, mask=mask_after)
        return values

    every = zip(case.image.voxels, kinds, mendings or [None] * len(kinds), *zip(*steps, strict=True), strict=True)
    image = _joined(starmap(prepared, every), len(kinds), geometry.shape)
    indices = None if labels is None or case.labels is None else _labels(case, configuration, labels, geometry, mask, threads)
    origin = Origin(case.stored, case.orientation, case.image.grid, geometry.box, configuration.transpose, case.content_key)
    return PreparedCase(case.name, image, indices, geometry.target, origin)


@dataclass(frozen=True)
class _Geometry:
    """Where a case's voxels go: cropped to `box`, transposed by `orders`, from `spacing` to `target` mm, where they are of `shape`.

    The last three are in the order inside.
    """

    box: Box
    orders: Triple
    spacing: Sequence[float]
    target: tuple[float, float, float]
    shape: Triple

    def cropped(self, volume: np.ndarray) -> np.ndarray:
        """The part of a volume as read that is wanted, in the order inside: a view."""
        return volume[box_slices(self.box)].transpose(self.orders)


def _geometry(case: Case, configuration: ConfigurationPlan) -> _Geometry:
    """configuration: in the order inside."""
    grid, orders = case.image.grid, configuration.transpose or (0, 1, 2)
    box = nonzero_box(case.image.voxels) if configuration.crop == "nonzero" else whole_box(grid.shape)
    spacing = tuple(grid.spacing[a] for a in orders)
    target = target_spacing(configuration, spacing)
    shape = new_shape([box[a][1] - box[a][0] for a in orders], spacing, target, configuration.resampling.size)
    return _Geometry(box, orders, spacing, target, shape)


def _joined(channels: Iterable[np.ndarray], count: int, shape: Triple) -> np.ndarray:
    """Float32 (C, z, y, x) of volumes that are made one after the other; a single one is not copied."""
    if count == 1:
        return next(iter(channels))[None]
    image = np.empty((count, *shape), np.float32)
    for number, values in enumerate(channels):
        image[number] = values
    return image


def target_spacing(configuration: ConfigurationPlan, spacing: Sequence[float]) -> tuple[float, float, float]:
    """mm that a case of `spacing` is brought to, in the order inside: a 2D configuration leaves the slices' distance alone.

    Args:
        configuration: in the order inside.
        spacing: of the case, in the order inside.
    """
    wanted = configuration.spacing if configuration.network.dimension == 3 else [spacing[0], *configuration.spacing]
    return tuple(float(mm) for mm in wanted)


def _labels(
    case: Case,
    configuration: ConfigurationPlan,
    labels: LabelSet,
    geometry: _Geometry,
    mask: np.ndarray | None,
    threads: int | None,
) -> np.ndarray:
    """Class indices on the prepared grid, in the smallest unsigned type; the ignore label is a class like others here."""
    rule = configuration.resampling.labels
    across = across_axis(rule.across, geometry.spacing, geometry.target, configuration.transpose)
    indices = labels.encode(geometry.cropped(case.labels.voxels))
    kept = smallest_unsigned(len(labels.file_values))
    outside = mask is not None and configuration.crop == "nonzero"
    if outside:  # the peer's class -1 of voxels outside the non-zero mask, here 0 below the others, so that no signed type is needed
        indices = indices.astype(smallest_unsigned(len(labels.file_values) + 1), copy=False)
        indices += 1
        for plane, inside in zip(indices, mask, strict=True):
            plane[(plane == 1) & ~inside] = 0
    indices = resample_labels(
        indices, geometry.shape, order=rule.order, rule=rule.rule, across=across, order_across=rule.order_across, threads=threads
    )
    if outside:
        np.maximum(indices, 1, out=indices)
        indices -= 1
    return indices.astype(kept, copy=False)


def _steps(intensity: Mapping[str, Mapping[str, IntensityPlan]], channel: str, kind: str, case: str) -> IntensityPlan:
    if kind not in intensity[channel]:
        known = ", ".join(intensity[channel])
        raise PlanError(
            f"the plan has no intensity steps for kind {kind!r} of channel {channel!r} (it has {known})",
            case=case,
            remedy="Set the kind with `intensity_kind` in dataset.json, or plan again with --replan",
        )
    return intensity[channel][kind]


def _masked_steps(plans: Sequence[IntensityPlan], in_mask: Sequence[bool]) -> list[tuple[list[IntensityStep], list[IntensityStep]]]:
    """(before, after) of each channel; `normalise_in_mask` turns the channel's z-scores to the mask."""

    def turned(steps: Sequence[IntensityStep], mask: bool) -> list[IntensityStep]:
        return [step.model_copy(update={"mask": "nonzero"}) if mask and isinstance(step, ZScore) else step for step in steps]

    return [(turned(p.before_resampling, m), turned(p.after_resampling, m)) for p, m in zip(plans, in_mask, strict=True)]


def _needs_mask(steps: Sequence[tuple[list[IntensityStep], list[IntensityStep]]]) -> bool:
    return any(isinstance(step, ZScore) and step.mask == "nonzero" for pair in steps for part in pair for step in part)


def _inside_mask(voxels: np.ndarray, geometry: _Geometry) -> np.ndarray | None:
    """Where any channel is not 0, its holes filled (peer 1.2), in the crop; None where that is everywhere."""
    mask = np.zeros([high - low for low, high in geometry.box], bool)
    for channel in voxels:
        for plane, values in zip(mask, channel[box_slices(geometry.box)], strict=True):
            plane |= values != 0
    if mask.all():
        return None
    import cc3d

    np.logical_not(mask, out=mask)
    outside = cc3d.connected_components(mask.view(np.uint8), connectivity=6, binary_image=True)
    faces = [face for axis in range(3) for face in (outside.take(0, axis), outside.take(-1, axis))]
    encloses = np.ones(int(outside.max()) + 1, bool)
    for face in faces:
        encloses[np.unique(face)] = False
    encloses[0] = True
    for plane, numbers in zip(mask, outside, strict=True):  # plane by plane: numpy's look-up copies the numbers to 64 bits
        plane[...] = encloses[numbers]
    return None if mask.all() else np.ascontiguousarray(mask.transpose(geometry.orders))
