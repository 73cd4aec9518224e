"""One training sample, from the store to arrays: drawn, read, changed, in that order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError, TrainingError
from autoseg.geometry import Box, to_lps, whole_box
from autoseg.planning.schema import AugmentationPlan, OversamplingPlan
from autoseg.preprocessing.store import ANNOTATED, StoredCase, open_case
from autoseg.training import augmentation as augment
from autoseg.training.previous_stage import PreviousStage, nearest
from autoseg.training.sampling import CaseOrder, PatchPlace, Ticket, chance, draw_case, draw_place, draw_voxel, is_forced


@dataclass(frozen=True)
class SampleSource:
    """All that the samples of one stream depend on, beside their tickets.

    patch: voxels, (z, y, x) inside, or (y, x) of a slice.
    augmentation: with axes inside (see augmentation.inside); None: patches are only cut out.
    padding: what stands outside of a volume, `zero` or `minimum`.
    side_pairs: class indices of (left, right); none for regions.
    transpose: axis order inside, which says where the left-right axis went.
    class_cases: class index, or number of a region from 1, -> number of training cases that show it.
    previous_stage: how a cascade's first stage is shown; None: the configuration has none.
    """

    store: Path
    order: CaseOrder
    patch: tuple[int, ...]
    oversampling: OversamplingPlan
    augmentation: AugmentationPlan | None
    padding: str
    side_pairs: tuple[tuple[int, int], ...]
    transpose: tuple[int, int, int] | None
    ignore: int | None
    class_cases: Mapping[int, int] = field(default_factory=dict)
    previous_stage: PreviousStage | None = None


@dataclass(frozen=True)
class Sample:
    """image: float32 (C, *patch). labels: class indices (*patch). exchanged: left has become right.

    annotated: the classes or regions that somebody annotated in the case, before any exchange; None: all.
    """

    case: str
    image: np.ndarray
    labels: np.ndarray
    exchanged: bool
    annotated: tuple[str, ...] | None = None


class SampleMaker:
    """Makes the sample of a ticket; it keeps its cases open, and is sent to a worker closed."""

    def __init__(self, sources: Mapping[str, SampleSource]) -> None:
        self.sources = dict(sources)
        self._opened: dict[tuple[Path, str], StoredCase] = {}

    def __reduce__(self):
        return SampleMaker, (self.sources,)

    def place_of(self, ticket: Ticket) -> tuple[str, Path]:
        """The case that a ticket asks for, and where it lies."""
        source = self.sources[ticket.stream]
        case = draw_case(source.order, ticket)
        return case, source.store / case

    def __call__(self, ticket: Ticket) -> Sample:
        """The sample; whatever fails names its case.

        Raises:
            AutosegError: the case cannot be read or changed.
        """
        case, place = self.place_of(ticket)
        try:
            return make_sample(self.sources[ticket.stream], self._open(place.parent, case), ticket)
        except AutosegError as error:
            raise error.in_case(case) from error
        except Exception as error:
            raise TrainingError(
                f"a sample could not be made ({type(error).__name__}: {error})",
                case=case,
                file=getattr(error, "filename", None) or place,
                remedy="If its stored case is damaged, delete it and run plan-and-preprocess again",
            ) from error

    def _open(self, store: Path, case: str) -> StoredCase:
        if (store, case) not in self._opened:
            self._opened[store, case] = open_case(store, case)
        return self._opened[store, case]


def make_sample(source: SampleSource, stored: StoredCase, ticket: Ticket) -> Sample:
    """The one sample of this ticket: equal arguments, equal arrays, whatever was drawn before."""
    rng = chance(source.order, ticket)
    dimension = len(source.patch)
    place = _draw_patch(source, stored, ticket, rng)
    sides = _sides(source, stored)
    plan = source.augmentation
    drawn = augment.draw(plan, sides, dimension, rng) if plan else augment.Drawn()
    with augment.seeded(rng):
        image, labels, previous = _changed(source, stored, place, drawn, rng)
    image, labels, exchanged = augment.mirror(image, labels, drawn.mirrored, sides)
    if previous is not None:
        previous = np.flip(previous, [axis - 3 + dimension for axis in drawn.mirrored])
        image = np.concatenate([image, source.previous_stage.channels(previous, exchanged, rng)])
    return Sample(stored.name, np.ascontiguousarray(image, np.float32), np.ascontiguousarray(labels), exchanged, stored.annotated)


def _draw_patch(source: SampleSource, stored: StoredCase, ticket: Ticket, rng: np.random.Generator) -> PatchPlace:
    """A forced patch shows foreground; with an ignore label, any other shows a voxel that somebody annotated (the peer, section 4.4)."""
    size = source.patch if len(source.patch) == 3 else (1, *source.patch)
    voxel = None
    if is_forced(source.oversampling, ticket.index, source.order.batch_size):
        voxel = draw_voxel(stored.locations, source.oversampling.by, source.class_cases, rng)
    elif source.ignore is not None and len(annotated := stored.locations.get(ANNOTATED, ())):
        voxel = tuple(int(v) for v in annotated[int(rng.integers(len(annotated)))])
    return draw_place(stored.shape, size, voxel, rng)


def _sides(source: SampleSource, stored: StoredCase) -> augment.Sides:
    rule = source.augmentation.mirror_sides if source.augmentation else "blind"
    as_read = to_lps(stored.origin.oriented).axes[2]
    axis = as_read if source.transpose is None else source.transpose.index(as_read)
    return augment.Sides(rule, axis, source.side_pairs)


def _changed(
    source: SampleSource, stored: StoredCase, place: PatchPlace, drawn: augment.Drawn, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image, labels and the first stage's labels of the patch, before mirroring: only the voxels that matter are read.

    Intensities change before the spatial step where they belong to the volume, after it where they belong to the patch.
    """
    plan, flat = source.augmentation, 3 - len(source.patch)  # flat: 1 for a slice, whose axis is no axis of the patch
    if drawn.spatial:
        points = augment.centred_points(drawn.spatial, source.patch, rng)
        points += np.array(place.centre[flat:]).reshape(-1, *[1] * len(source.patch))
        needed = (*place.box[:flat], *augment.needed_box(points, stored.shape[flat:], plan.interpolation[0]))
    else:
        needed = _overlap(place.box, stored.shape)
    whole = plan is not None and augment.needs_whole_volume(plan, drawn)
    region = whole_box(stored.shape) if whole else needed
    image = np.array(stored.image(region), np.float32)
    if plan and plan.statistics == "volume":
        image = augment.change_intensity(image, drawn.intensity)
    image = image[(slice(None), *_within(needed, region))]
    labels = stored.labels(needed)
    previous = None if source.previous_stage is None else stored.previous(needed)
    if drawn.spatial:
        points -= np.array([low for low, _ in needed[flat:]]).reshape(-1, *[1] * len(source.patch))
    else:
        image, labels, previous = _padded(image, labels, previous, needed, place.box, source.padding)
    if flat:
        image, labels, previous = image[:, 0], labels[0], None if previous is None else previous[0]
    if drawn.spatial:
        image, labels = augment.interpolate(image, labels, points, plan.interpolation)
        previous = None if previous is None else nearest(previous, points)
    if plan and plan.statistics == "patch":
        image = augment.change_intensity(np.array(image), drawn.intensity)
    return image, labels, previous


def _overlap(box: Box, shape: tuple[int, ...]) -> Box:
    return tuple((max(low, 0), min(high, length)) for (low, high), length in zip(box, shape, strict=True))


def _within(box: Box, region: Box) -> tuple[slice, ...]:
    return tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(box, region, strict=True))


def _padded(
    image: np.ndarray, labels: np.ndarray, previous: np.ndarray | None, read: Box, wanted: Box, padding: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image and labels of the box `wanted`, of which `read` was inside the volume; background outside."""
    widths = [(low - start, end - high) for (low, high), (start, end) in zip(read, wanted, strict=True)]
    if not any(before or after for before, after in widths):
        return image, labels, previous
    mode: Callable | str = "constant" if padding == "zero" else "minimum"
    previous = None if previous is None else np.pad(previous, widths)
    return np.pad(image, [(0, 0), *widths], mode), np.pad(labels, widths), previous
