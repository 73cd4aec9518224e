"""Which patch of which case becomes which training sample: all chance comes from (seed, fold, step, index).

A sample is a pure function of its ticket, so that the number of data workers, the order in which they finish and an
interruption change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autoseg.files import digest
from autoseg.geometry import Box
from autoseg.planning.schema import OversamplingPlan

Stream = Literal["train", "held_out"]
_STREAMS: dict[str, int] = {"train": 0, "held_out": 1}
_SAMPLE, _QUEUE, _CASE = 0, 1, 2  # kinds of chance, so that a case, its patch and a queue never share a seed


@dataclass(frozen=True)
class Ticket:
    """One sample that is wanted: element `index` of the batch of `step`, counted over the whole run."""

    stream: Stream
    step: int
    index: int


@dataclass(frozen=True)
class CaseOrder:
    """How the cases of one stream follow each other.

    fold_key: a number that tells folds apart (see `fold_key`).
    rule: `shuffled_queue` (paper.md item 8) or `with_replacement` (the peer, section 4.4).
    """

    cases: tuple[str, ...]
    rule: Literal["shuffled_queue", "with_replacement"]
    seed: int
    fold_key: int
    batch_size: int
    steps_per_epoch: int


@dataclass(frozen=True)
class PatchPlace:
    """Where a patch lies in its volume.

    start: first voxel (z, y, x); negative, or beyond the end less the patch, where the volume is smaller than the patch.
    centre: continuous index of the patch's middle, for patches that are interpolated.
    """

    start: tuple[int, int, int]
    centre: tuple[float, float, float]
    size: tuple[int, int, int]

    @property
    def box(self) -> Box:
        """The half-open box, which may reach out of the volume."""
        return tuple((start, start + size) for start, size in zip(self.start, self.size, strict=True))


def fold_key(configuration: str, fold: int | str) -> int:
    """A number that differs between folds and configurations, the same on every machine."""
    return int(digest(configuration, str(fold))[:12], 16)


def chance(order: CaseOrder, ticket: Ticket) -> np.random.Generator:
    """The one generator that this sample's patch and augmentation are drawn from."""
    return np.random.default_rng([order.seed, order.fold_key, _STREAMS[ticket.stream], _SAMPLE, ticket.step, ticket.index])


def draw_case(order: CaseOrder, ticket: Ticket) -> str:
    """The case of this sample.

    `shuffled_queue`: a batch takes its cases from the head of a queue and puts them back at the end; each epoch begins with a
    new shuffle. So the k-th sample of an epoch is the k-th of the shuffled cases, counted round.
    """
    if order.rule == "with_replacement":
        pick = np.random.default_rng([order.seed, order.fold_key, _STREAMS[ticket.stream], _CASE, ticket.step, ticket.index])
        return order.cases[int(pick.integers(len(order.cases)))]
    epoch, step = divmod(ticket.step, order.steps_per_epoch)
    shuffle = np.random.default_rng([order.seed, order.fold_key, _STREAMS[ticket.stream], _QUEUE, epoch])
    queue = shuffle.permutation(len(order.cases))
    return order.cases[int(queue[(step * order.batch_size + ticket.index) % len(queue)])]


def is_forced(oversampling: OversamplingPlan, index: int, batch_size: int) -> bool:
    """Whether this element of the batch must show foreground: the last `foreground` share of it (the peer, section 4.4)."""
    return index >= round(batch_size * (1 - oversampling.foreground))


def draw_voxel(
    locations: Mapping[int, np.ndarray], by: str, class_cases: Mapping[int, int], rng: np.random.Generator
) -> tuple[int, int, int] | None:
    """A foreground voxel (z, y, x) to centre a patch on; None if the case has no foreground.

    Args:
        locations: class index, or number of a region from 1, -> (n, 3) voxels, as the store keeps them: none of voxels to ignore, nor of
            what nobody annotated in this case.
        by: `class`: of a class or region drawn evenly among those of the case; `voxel`: any of the kept voxels; `rarity`: of a class or
            region drawn by the inverse of the number of training cases that show it.
        class_cases: class index or region -> that number; only `rarity` looks at it.
    """
    present = sorted(c for c, voxels in locations.items() if c > 0 and len(voxels))
    if not present:
        return None
    if by == "voxel":
        weights = np.array([len(locations[c]) for c in present], dtype=float)
    elif by == "rarity":
        weights = np.array([1.0 / max(class_cases.get(c, 1), 1) for c in present])
    else:
        weights = np.ones(len(present))
    voxels = locations[present[int(rng.choice(len(present), p=weights / weights.sum()))]]
    return tuple(int(v) for v in voxels[int(rng.integers(len(voxels)))])


def draw_place(shape: Sequence[int], size: Sequence[int], voxel: Sequence[int] | None, rng: np.random.Generator) -> PatchPlace:
    """Where the patch lies: anywhere inside the volume, or around `voxel` as far as the volume allows.

    Along an axis that is shorter than the patch the volume stands in its middle. The continuous centre of a free patch is
    uniform in [size / 2, shape - size / 2] counted from the volume's edge (paper.md item 9); the whole-voxel start follows the same number.

    Args:
        shape: of the volume, (z, y, x).
        size: of the patch, (z, y, x); 1 along the first axis for a slice.
    """
    free = rng.random(3)
    start, centre = [], []
    for axis in range(3):
        room = int(shape[axis]) - int(size[axis])
        half = (size[axis] - 1) / 2
        if room <= 0:
            start.append(room // 2)
            centre.append((shape[axis] - 1) / 2)
        elif voxel is not None:
            start.append(min(max(int(voxel[axis]) - int(size[axis]) // 2, 0), room))
            centre.append(start[-1] + half)
        else:
            start.append(min(int(free[axis] * (room + 1)), room))
            centre.append(half + float(free[axis]) * room)
    return PatchPlace(tuple(start), tuple(centre), tuple(int(s) for s in size))


def tickets(
    epoch: int, done: int, steps_per_epoch: int, last_epoch: int | None, batch_size: int, held_out_batches: int
) -> Iterator[Ticket]:
    """The samples of a run in the order in which it uses them: each epoch's training batches, then its held-out batches.

    Args:
        epoch: where to begin, counted from 0.
        done: steps of that epoch that are behind already, perhaps all.
        last_epoch: how many epochs there are at most; None: without end.
    """
    while last_epoch is None or epoch < last_epoch:
        for step in range(done, steps_per_epoch):
            yield from (Ticket("train", epoch * steps_per_epoch + step, index) for index in range(batch_size))
        for batch in range(held_out_batches):
            yield from (Ticket("held_out", epoch * held_out_batches + batch, index) for index in range(batch_size))
        epoch, done = epoch + 1, 0
