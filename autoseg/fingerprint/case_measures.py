"""One case, as read, to its measures: what the fingerprint keeps of it, and the histograms that are added up over the cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.data.annotations.segments import Names, meaning
from autoseg.data.case import Case, Dataset
from autoseg.data.labels import LabelSet
from autoseg.data.reading import content_key
from autoseg.errors import DatasetError, LabelError
from autoseg.fingerprint.histogram import describe
from autoseg.fingerprint.kinds import looks_like, mended, says_ct, settle_kind
from autoseg.fingerprint.places import label_places
from autoseg.fingerprint.sides import measure_sides
from autoseg.fingerprint.signature import sign
from autoseg.fingerprint.spread import ForegroundHistograms
from autoseg.fingerprint.types import CaseMeasures, ChannelMeasures
from autoseg.geometry import Box, Grid, to_lps, whole_box


@dataclass(frozen=True)
class MeasuredCase:
    """One case: what the fingerprint keeps of it, and a histogram of each channel's foreground, None where it has none.

    combinations: see `autoseg.data.case.Case`.
    """

    measures: CaseMeasures
    histograms: tuple[ForegroundHistograms | None, ...]
    combinations: tuple[Names, ...] | None = None


def measure_case(case: Case, dataset: Dataset) -> MeasuredCase:
    """Everything that a fingerprint is made of from one case; kinds are as the case alone gives them (`merge.settled` has the last word).

    Args:
        case: as read; its foreground is every voxel that is not background, `ignore` included (peer 1.3).
        dataset: for channels and labels; labels None takes 0 for background.

    Raises:
        LabelError: values that are not declared.
        DatasetError: the case has no label map.
    """
    if case.labels is None:
        raise DatasetError("it has no label map", case=case.name, remedy="Add one, or leave the image out of the dataset")
    voxels, labels = case.image.voxels, case.labels.voxels
    counts = label_counts(labels)
    background = 0
    if dataset.labels is not None:
        _require_declared(counts, dataset.labels, case, dataset)
        background = dataset.labels.background
    foreground = labels != background
    lps = to_lps(case.image.grid)
    overlap, offset = {}, {}
    if (known := dataset.labels or meaning(case.combinations or ())) is not None:
        overlap, offset = measure_sides(lps.apply(labels), case.image.grid.oriented(lps).spacing, known)
    channels = [measure_channel(channel, foreground, name) for channel, name in zip(voxels, dataset.channels, strict=True)]
    measures = CaseMeasures(
        content_key=case.content_key,
        label_key=content_key(lps.apply(labels)[None]),
        spacing=case.image.grid.spacing,
        shape=case.image.grid.shape,
        planar=case.image.grid.planar,
        tilt=case.image.grid.tilt(),
        orientation=letters(case.stored),
        crop_box=nonzero_box(voxels),
        channels=[measured for measured, _ in channels],
        label_voxels=counts,
        side_overlap=overlap,
        side_offset=offset,
        label_places=label_places(lps.apply(labels)),
        origin=case.stored.origin,
        signature=sign(voxels[0], case.image.grid.spacing, lps),
    )
    return MeasuredCase(measures, tuple(histograms for _, histograms in channels), case.combinations)


def measure_channel(voxels: np.ndarray, foreground: np.ndarray, name: str) -> tuple[ChannelMeasures, ForegroundHistograms | None]:
    """One channel (z, y, x) of a case and its foreground (boolean)."""
    whole = describe(voxels)
    look = looks_like(whole)
    kind = settle_kind(look, is_ct=says_ct(name), channel_name=name)
    stored, in_hu = describe(voxels, foreground), None
    if stored is not None and (values := mended(voxels, whole.minimum, look.offset)) is not voxels:
        in_hu = describe(values, foreground)
    measures = ChannelMeasures(
        **kind.model_dump(),
        look=look,
        minimum=whole.minimum,
        maximum=whole.maximum,
        mean=whole.mean,
        std=whole.std,
        foreground=stored and stored.measures(),
        foreground_hu=in_hu and in_hu.measures(),
    )
    return measures, stored and ForegroundHistograms(stored.histogram, (in_hu or stored).histogram)


def label_counts(labels: np.ndarray) -> dict[int, int]:
    """Voxels of each value that occurs in an unsigned label map."""
    if labels.dtype.itemsize <= 2:
        size = int(labels.max()) + 1
        counts = sum(np.bincount(plane.ravel(), minlength=size) for plane in labels)  # plane by plane: bincount copies to 64 bits
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _require_declared(counts: Mapping[int, int], labels: LabelSet, case: Case, dataset: Dataset) -> None:
    if unknown := labels.unknown(np.array(list(counts))):
        found = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:8]) + (" and more" if len(unknown) > 8 else "")
        files = next((files for files in dataset.cases if files.case == case.name), None)
        raise LabelError(
            f"its label map has values that dataset.json does not declare: {found}; declared are {sorted(labels.file_values)}",
            case=case.name,
            file=files.label if files else None,
            remedy="Declare them under `labels`, or correct the label map",
        )


def nonzero_box(voxels: np.ndarray) -> Box:
    """The half-open box of the voxels (C, z, y, x) where any channel is not 0; all of the volume if there are none.

    The peer fills holes in the mask first (1.2), which does not move its box.
    """
    shape = voxels.shape[1:]
    inside = [np.zeros(n, dtype=bool) for n in shape]
    for channel in voxels:
        for z, plane in enumerate(channel):
            mask = plane != 0
            rows = mask.any(axis=1)
            inside[0][z] |= bool(rows.any())
            inside[1] |= rows
            inside[2] |= mask.any(axis=0)
    if not inside[0].any():
        return whole_box(shape)
    found = [np.flatnonzero(axis) for axis in inside]
    return tuple((int(f[0]), int(f[-1]) + 1) for f in found)


def letters(grid: Grid) -> str:
    """Where the stored axes x, y, z lead, in ITK's letters (LPS: to the left, to the back, to the head)."""
    orientation = to_lps(grid)
    named = {axis: pair[flip] for axis, flip, pair in zip(orientation.axes, orientation.flips, ("SI", "PA", "LR"), strict=True)}
    return "".join(named[axis] for axis in (2, 1, 0))
