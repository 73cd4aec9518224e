"""One training sample, from the store to arrays: drawn, read, changed, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.errors import AutosegError, TrainingError
from autoseg.geometry import to_lps
from autoseg.planning.schema import AugmentationPlan, OversamplingPlan
from autoseg.preprocessing.store import ANNOTATED, StoredCase, open_case
from autoseg.training import augmentation as augment
from autoseg.training.previous_stage import PreviousStage
from autoseg.training.sampling import CaseOrder, PatchPlace, Ticket, chance, draw_case, draw_place, draw_voxel, is_forced

if TYPE_CHECKING:
    from autoseg.training.augmentation.material import Material


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
    """image: float32 (C, *patch), or what the device that trains makes it of. labels: class indices (*patch).

    exchanged: left has become right.
    annotated: the classes or regions that somebody annotated in the case, before any exchange; None: all.
    more_channels: float32 (c, *patch) that follow an image which is yet to be made.
    """

    case: str
    image: np.ndarray | Material
    labels: np.ndarray
    exchanged: bool
    annotated: tuple[str, ...] | None = None
    more_channels: np.ndarray | None = None


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
    plan, sides, dimension = source.augmentation, _sides(source, stored), len(source.patch)
    place = _draw_patch(source, stored, ticket, rng)
    drawn = augment.draw(plan, sides, dimension, rng) if plan else augment.Drawn()
    wanted = augment.Wanted(plan, drawn, place, dimension, source.padding, source.previous_stage is not None)
    make = _by_batchgenerators if plan and augment.in_processes(plan) else _by_our_own
    image, labels, previous = make(plan, wanted, stored, rng)
    exchanged = sides.exchanges(drawn.mirrored)
    labels = augment.exchange_sides(labels, source.side_pairs) if exchanged else labels
    channels = None if previous is None else source.previous_stage.channels(previous, exchanged, rng)
    if isinstance(image, np.ndarray) and channels is not None:
        image, channels = np.concatenate([image, channels]), None
    return Sample(stored.name, image, labels, exchanged, stored.annotated, channels)


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


def _by_batchgenerators(
    plan: AugmentationPlan, wanted: augment.Wanted, stored: StoredCase, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image, labels and the first stage's labels of the patch, mirrored, after all that draws from generators which threads share."""
    from autoseg.training.augmentation import batchgenerators_backend as backend

    if plan.backend == "native":
        image, labels, previous = _by_our_own(plan, wanted, stored, rng)
    with backend.seeded(rng):
        if plan.backend == "batchgenerators":
            image, labels, previous = backend.changed(wanted, stored, rng)
        return *backend.plugged(image, labels, plan.plug_ins, rng), previous


def _by_our_own(
    plan: AugmentationPlan | None, wanted: augment.Wanted, stored: StoredCase, rng: np.random.Generator
) -> tuple[np.ndarray | Material, np.ndarray, np.ndarray | None]:
    """The same by our own transforms; the image is left to the device that trains, as what it is made of, if the plan says so."""
    from autoseg.training.augmentation.material import labels_alone, patch, read

    material, labels = read(wanted, stored, rng)
    if plan is not None and plan.device == "training":
        image, labels = material, labels_alone(material, labels)
    else:
        image, labels = patch(material, labels)
        image = image if wanted.dimension == 3 else image[:, 0]
    labels = labels if wanted.dimension == 3 else labels[:, 0]
    return image, labels[0], labels[1] if wanted.previous else None
