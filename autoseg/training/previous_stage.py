"""What a cascade's second stage sees of the first in training: one channel a class or region, now and then spoilt.

The first stage errs on new cases, and sometimes coarsely. A second one that was shown its results as they are would learn to repeat
them; the changes here teach it to look at the image too (the peer, section 4.6, step 12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.planning.schema import PreviousStageChange
from autoseg.preprocessing.previous_stage import as_channels


@dataclass(frozen=True)
class PreviousStage:
    """How class indices of the first stage become channels of the second's samples.

    members: the class indices that each channel stands for.
    exclusive: whether no voxel belongs to two channels.
    exchange: the order of the channels in which left and right have changed places; None where no label has a side.
    changes: what spoils them, in this order; none for samples that are not augmented.
    """

    members: tuple[tuple[int, ...], ...]
    exclusive: bool
    exchange: tuple[int, ...] | None
    changes: tuple[PreviousStageChange, ...]

    def channels(self, indices: np.ndarray, exchanged: bool, rng: np.random.Generator) -> np.ndarray:
        """Float32 (channel, *patch) of 0 and 1.

        Args:
            indices: class indices (*patch), moved and mirrored as the image was.
            exchanged: whether the sample was mirrored left to right with its sides exchanged.
        """
        masks = as_channels(indices, self.members)
        if exchanged and self.exchange is not None:
            masks = masks[list(self.exchange)]
        for change in self.changes:
            if rng.random() < change.probability:
                spoil(masks, change, self.exclusive, rng)
        return masks.astype(np.float32)


def nearest(indices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Class indices at `points` (dimension, *patch), which are indices of this array: the nearest voxel's; background outside."""
    places = np.rint(points).astype(np.intp)
    last = np.array(indices.shape).reshape(-1, *[1] * (points.ndim - 1)) - 1
    inside = ((places >= 0) & (places <= last)).all(0)
    return np.where(inside, indices[tuple(np.clip(places, 0, last))], 0).astype(indices.dtype)


def spoil(masks: np.ndarray, change: PreviousStageChange, exclusive: bool, rng: np.random.Generator) -> None:
    """Make one change to some of the channels (channel, *patch), in place and in an order that is drawn."""
    low, high = next(iter(change.ranges.values()))
    for channel in rng.permutation(len(masks)):
        if rng.random() >= change.channel_probability:
            continue
        if change.do == "remove_component":
            remove_component(masks[channel], low, high, rng)
            continue
        act = (dilated, eroded, closed, opened)[int(rng.integers(4))]
        changed = _near(masks[channel], rng.uniform(low, high), act)
        if exclusive:
            masks[:, changed & ~masks[channel]] = False
        masks[channel] = changed


def dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """The voxels within `radius` voxels of the mask."""
    return _distance(~mask) <= radius if mask.any() else mask


def eroded(mask: np.ndarray, radius: float) -> np.ndarray:
    """The voxels of the mask that are farther than `radius` voxels from any outside it; what lies beyond the patch is not known to be."""
    return _distance(mask) > radius if not mask.all() else mask


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Dilated, then eroded: gaps are filled."""
    return eroded(dilated(mask, radius), radius)


def opened(mask: np.ndarray, radius: float) -> np.ndarray:
    """Eroded, then dilated: thin parts go."""
    return dilated(eroded(mask, radius), radius)


def remove_component(mask: np.ndarray, low: float, high: float, rng: np.random.Generator) -> None:
    """Take one of the components, drawn evenly from those that cover between `low` and `high` of the patch, out of the mask, in place."""
    import cc3d

    components = cc3d.connected_components(mask.view(np.uint8), connectivity=26 if mask.ndim == 3 else 8, binary_image=True)
    share = np.bincount(components.ravel())[1:] / mask.size
    fitting = np.flatnonzero((share >= low) & (share <= high)) + 1
    if len(fitting):
        mask[components == rng.choice(fitting)] = False


def _distance(mask: np.ndarray) -> np.ndarray:
    """Of each voxel of the mask to the nearest one outside it, in voxels; 0 outside."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(mask)


def _near(mask: np.ndarray, radius: float, act: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """`act(mask, radius)`, worked out only where it can differ from the mask."""
    if not mask.any():
        return mask
    room = 2 * int(np.ceil(radius)) + 1
    box = tuple(slice(max(low - room, 0), high + room + 1) for low, high in _extent(mask))
    changed = np.zeros_like(mask)
    changed[box] = act(mask[box], radius)
    return changed


def _extent(mask: np.ndarray) -> Sequence[tuple[int, int]]:
    """First and last index of the mask along each axis."""
    rest = tuple(range(mask.ndim))
    places = [np.flatnonzero(mask.any(axis=rest[:axis] + rest[axis + 1 :])) for axis in rest]
    return [(int(where[0]), int(where[-1])) for where in places]
