"""A volume through networks, tile by tile, in bounded memory.

Tiles go in order along one axis, all networks of a tile together. Accumulators exist only for the rows that tiles still reach;
rows that no later tile touches are averaged and leave.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.errors import ModelError
from autoseg.geometry import Box
from autoseg.inference.tiles import axis_weight, covered_weight, pad_to, tile_starts
from autoseg.network.precision import autocast, memory_format
from autoseg.planning.schema import PredictionPlan
from autoseg.preprocessing.previous_stage import as_channels


@dataclass(frozen=True)
class View:
    """One way in which a tile is shown to the networks.

    axes: the tile's spatial axes that are reversed.
    outputs: the order of the outputs once the result is reversed back, where classes have a side; None: as they are.
    inputs: the order of the channels that are shown, where those of a cascade's first stage have a side; None: as they are.
    """

    axes: tuple[int, ...] = ()
    outputs: tuple[int, ...] | None = None
    inputs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Ensemble:
    """Networks that share their task, on one device, in evaluation mode.

    outputs: channels that each gives.
    regions: whether outputs may overlap, which makes probabilities sigmoids.
    """

    networks: tuple[nn.Module, ...]
    outputs: int
    regions: bool
    device: str
    precision: Literal["float32", "bfloat16", "float16"]
    memory_layout: Literal["contiguous", "channels_last"]


@dataclass(frozen=True)
class Window:
    """How a volume is cut into tiles and put together again.

    patch: voxels of a tile, (z, y, x), or (y, x) for slices.
    fill: what stands around a volume that is smaller than a tile.
    views: what is averaged of each tile, besides the networks.
    """

    patch: tuple[int, ...]
    fill: Literal["zero", "minimum"]
    plan: PredictionPlan
    views: tuple[View, ...] = (View(),)


@dataclass(frozen=True)
class FirstStage:
    """What a cascade's first stage found of a volume; its second sees it as further channels.

    indices: class indices (z, y, x), on the volume's grid.
    members: the class indices that each of these channels stands for.
    """

    indices: np.ndarray
    members: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Slab:
    """Averaged outputs, float32 (output, rows, ., .), of the rows from `start` on."""

    start: int
    values: Tensor


@dataclass(frozen=True)
class _Layout:
    """The tiles of one volume whose axes were brought to the order `axes`, so that slabs are cut along the first."""

    axes: tuple[int, int, int]
    patch: tuple[int, int, int]
    shape: tuple[int, int, int]
    box: Box
    starts: tuple[tuple[int, ...], ...]
    rows_together: int
    """Starts along the first axis that are worked on together."""

    @property
    def rows(self) -> int:
        """Rows that the accumulators hold."""
        groups = self.groups()
        return max(group[-1] - group[0] for group in groups) + self.patch[0]

    def groups(self) -> list[tuple[int, ...]]:
        first = self.starts[0]
        return [first[i : i + self.rows_together] for i in range(0, len(first), self.rows_together)]


def mirrored_views(
    axes: Sequence[int], side_axis: int | None, exchange: tuple[int, ...] | None, inputs: tuple[int, ...] | None = None
) -> tuple[View, ...]:
    """A view for every subset of `axes`, the empty one first.

    Args:
        axes: the tile's spatial axes that may be reversed.
        side_axis: the one of them that runs from left to right.
        exchange: the order of the outputs in which left and right have changed places; None where sides don't matter.
        inputs: the like order of the channels; None where none has a side.
    """
    subsets = itertools.chain.from_iterable(itertools.combinations(sorted(axes), n) for n in range(len(axes) + 1))
    return tuple(View(subset, exchange, inputs) if side_axis in subset else View(subset) for subset in subsets)


def slab_axis(shape: Sequence[int], patch: Sequence[int]) -> int:
    """The axis along which slabs are cut: the longest, so that a slab is small; slices are always taken along axis 0."""
    return 0 if len(patch) == 2 else int(np.argmax(shape))


def tile_count(shape: Sequence[int], patch: Sequence[int], plan: PredictionPlan) -> int:
    """How many tiles a volume (z, y, x) has; each slice of a 2D network's is one more volume of tiles."""
    slices = shape[0] if len(patch) == 2 else 1
    axes = zip(shape[-len(patch) :], patch, strict=True)
    return slices * math.prod(len(tile_starts(max(size, edge), edge, plan.overlap, plan.tiles)) for size, edge in axes)


def predict_slabs(
    image: np.ndarray,
    ensemble: Ensemble,
    window: Window,
    *,
    axis: int,
    first_stage: FirstStage | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Slab]:
    """Averaged outputs of all networks and views, slab by slab.

    Args:
        image: float32 (channel, z, y, x).
        axis: the spatial axis along which slabs are cut; it comes first in the slabs, the others follow in their order.
        first_stage: what the second of a cascade's networks see beside the image.
        progress: called with the tiles done and the tiles in all.

    Yields:
        Slabs, on the ensemble's device, that follow each other without gap: the mean over networks, views and tiles, weighted
        by `plan.weighting`, of logits or (`plan.average`) of probabilities.

    Raises:
        ModelError: a network gave values that are not finite.
    """
    padded, layout = _laid_out(image, window, axis)
    image_first = padded.transpose(0, *(1 + a for a in layout.axes))
    first_stage = None if first_stage is None else _padded_first_stage(first_stage, layout)
    weight = [torch.from_numpy(axis_weight(n, window.plan.weighting)).to(ensemble.device) for n in layout.patch]
    weight_of_tile = weight[0][:, None, None] * weight[1][:, None] * weight[2]
    sums = torch.zeros((ensemble.outputs, layout.rows, *layout.shape[1:]), device=ensemble.device)
    step = max(1, layout.rows - round(window.plan.overlap * layout.patch[0]))
    first, done, count = 0, 0, math.prod(map(len, layout.starts))
    groups = layout.groups()
    for group, following in itertools.zip_longest(groups, groups[1:]):
        for places in _batched(itertools.product(group, *layout.starts[1:]), window.plan.batch_tiles):
            outputs = _predict_tiles(_tiles(image_first, first_stage, places, layout), layout, ensemble, window)
            for (z, y, x), output in zip(places, outputs, strict=True):
                region = sums[:, z - first : z - first + layout.patch[0], y : y + layout.patch[1], x : x + layout.patch[2]]
                region.addcmul_(output, weight_of_tile)
            done += len(places)
            if progress:
                progress(done, count)
        last = layout.shape[0] if following is None else following[0]
        for start in range(first, last, step):
            slab = _finished(sums, first, range(start, min(start + step, last)), layout, window)
            if slab is not None:
                yield slab
        if following is not None:
            _advance(sums, last - first)
            first = last


def _laid_out(image: np.ndarray, window: Window, axis: int) -> tuple[np.ndarray, _Layout]:
    flat = len(window.patch) == 2
    patch = (1, *window.patch) if flat else tuple(window.patch)
    padded, box = pad_to(image, patch, window.fill)
    axes = (axis, *(a for a in range(3) if a != axis))
    starts = tuple(tile_starts(padded.shape[1 + a], patch[a], window.plan.overlap, window.plan.tiles) for a in axes)
    tiles_a_row = len(starts[1]) * len(starts[2])
    return padded, _Layout(
        axes=axes,
        patch=tuple(patch[a] for a in axes),
        shape=tuple(padded.shape[1 + a] for a in axes),
        box=tuple(box[a] for a in axes),
        starts=starts,
        rows_together=math.ceil(window.plan.batch_tiles / tiles_a_row) if flat else 1,
    )


def _batched(places: Iterator[tuple[int, int, int]], size: int) -> Iterator[list[tuple[int, int, int]]]:
    places = iter(places)
    while batch := list(itertools.islice(places, size)):
        yield batch


def _padded_first_stage(found: FirstStage, layout: _Layout) -> FirstStage:
    """In the layout's axis order, with background around it."""
    widths = [(low, size - high) for size, (low, high) in zip(layout.shape, layout.box, strict=True)]
    return FirstStage(np.pad(found.indices.transpose(layout.axes), widths), found.members)


def _tiles(image: np.ndarray, first_stage: FirstStage | None, places: list[tuple[int, int, int]], layout: _Layout) -> np.ndarray:
    """Float32 (tile, channel, ...) of the tiles that start at `places` in the layout's axis order, in the networks' axis order."""
    pz, py, px = layout.patch
    back = [layout.axes.index(a) for a in range(3)]
    boxes = [(slice(z, z + pz), slice(y, y + py), slice(x, x + px)) for z, y, x in places]
    tiles = np.stack([image[(slice(None), *box)].transpose(0, *(1 + a for a in back)) for box in boxes])
    if first_stage is None:
        return tiles
    found = np.stack([first_stage.indices[box].transpose(back) for box in boxes])
    return np.concatenate([tiles, as_channels(found, first_stage.members).swapaxes(0, 1)], axis=1)


def _predict_tiles(tiles: np.ndarray, layout: _Layout, ensemble: Ensemble, window: Window) -> Tensor:
    """Outputs (tile, output, ...), in the layout's axis order, of tiles in the networks'."""
    batch = torch.from_numpy(tiles).to(ensemble.device)
    flat = len(window.patch) == 2
    outputs = _average(batch.squeeze(2) if flat else batch, ensemble, window)
    return (outputs.unsqueeze(2) if flat else outputs).permute(0, 1, *(2 + a for a in layout.axes))


@torch.inference_mode()
def _average(batch: Tensor, ensemble: Ensemble, window: Window) -> Tensor:
    """The mean (tile, output, ...) over networks and views, float32."""
    layout = memory_format(ensemble.memory_layout, batch.ndim - 2)
    total = None
    for view in window.views:
        turned = [2 + a for a in view.axes]
        ordered = batch if view.inputs is None else batch[:, list(view.inputs)]
        shown = (ordered.flip(turned) if turned else ordered).contiguous(memory_format=layout)
        for network in ensemble.networks:
            with autocast(ensemble.precision, ensemble.device):
                output = network(shown)
            output = output.float()
            if window.plan.average == "probabilities":
                output = output.sigmoid() if ensemble.regions else output.softmax(1)
            if turned:
                output = output.flip(turned)
            if view.outputs is not None:
                output = output[:, list(view.outputs)]
            total = output if total is None else total + output
    return total / (len(window.views) * len(ensemble.networks))


def _finished(sums: Tensor, first: int, rows: range, layout: _Layout, window: Window) -> Slab | None:
    """The averages of rows that no later tile reaches, without the padding; None if all of them are padding."""
    (low, high), inner_y, inner_x = layout.box
    kept = range(max(rows.start, low), min(rows.stop, high))
    if not kept:
        return None
    totals = [
        torch.from_numpy(covered_weight(n, p, s, window.plan.weighting)).to(sums.device)
        for n, p, s in zip(layout.shape, layout.patch, layout.starts, strict=True)
    ]
    along = totals[0][kept.start : kept.stop]
    inner = totals[1][slice(*inner_y), None] * totals[2][slice(*inner_x)]
    values = sums[:, kept.start - first : kept.stop - first, slice(*inner_y), slice(*inner_x)] / (along[:, None, None] * inner)
    if not torch.isfinite(values).all():
        raise ModelError(
            "the network gave values that are not finite",
            remedy="Predict with --device cpu, which computes in float32; if that gives the same, train the fold anew",
        )
    return Slab(kept.start - low, values)


def _advance(sums: Tensor, rows: int) -> None:
    """Drop the first rows of the accumulators and make room, with zeros, at the end."""
    left = max(sums.shape[1] - rows, 0)
    if left:
        sums[:, :left] = sums[:, rows:].clone()
    sums[:, left:] = 0
