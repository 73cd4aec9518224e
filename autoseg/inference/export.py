"""From averaged outputs on the prepared grid to a label map on the image's own grid, slab by slab.

Outputs of all classes at the original size are never held: slabs are brought to their target rows, decided, and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoseg.data.annotations.regions import write_steps
from autoseg.data.case import LabelMap
from autoseg.data.labels import LabelSet, smallest_unsigned
from autoseg.geometry import box_slices
from autoseg.inference.sliding_window import Slab
from autoseg.inference.upsampling import upsample_argmax
from autoseg.planning.schema import Interpolation, LabelInterpolation
from autoseg.preprocessing.axes import Cells, linear_cells, nearest_cells
from autoseg.preprocessing.prepared import Origin
from autoseg.preprocessing.resampling import across_axis, resample_labels

BLOCK_VALUES = 2**25
"""How many float32 outputs are brought to target rows at once."""


@dataclass(frozen=True)
class Target:
    """The cropped original grid that a prepared volume returns to, in slab order: `axes` of the prepared array, the slabs' first.

    source: voxels of the prepared volume.
    shape: voxels of the cropped original volume.
    spacing, source_spacing: mm.
    """

    axes: tuple[int, int, int]
    source: tuple[int, int, int]
    shape: tuple[int, int, int]
    source_spacing: tuple[float, float, float]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, origin: Origin, source: tuple[int, int, int], source_spacing: tuple[float, float, float], axis: int) -> Target:
        """The target of a prepared volume whose slabs are cut along `axis`; shape and spacing as prepared."""
        inside = origin.transpose or (0, 1, 2)
        axes = (axis, *(a for a in range(3) if a != axis))
        cropped = [origin.box[a][1] - origin.box[a][0] for a in inside]
        spacing = [origin.oriented.spacing[a] for a in inside]
        return cls(axes, *(tuple(values[a] for a in axes) for values in (source, cropped, source_spacing, spacing)))

    def across(self, interpolation: Interpolation | LabelInterpolation, origin: Origin) -> int | None:
        """The axis, in slab order, that is resampled apart."""
        spacings = ([values[self.axes.index(a)] for a in range(3)] for values in (self.source_spacing, self.spacing))
        inside = across_axis(interpolation.across, *spacings, origin.transpose)
        return None if inside is None else self.axes.index(inside)


def labels_from_logits(
    slabs: Iterable[Slab], target: Target, *, across: int | None, order_across: int, labels: LabelSet, threshold: float
) -> np.ndarray:
    """Class indices at the target's shape, in slab order: outputs are interpolated linearly, then compared (DESIGN 6.2).

    Args:
        slabs: averaged outputs, one after the other.
        across: the axis that is resampled apart, by splines of `order_across` (0 or 1).
        threshold: what a region's output must exceed; exclusive classes are compared with each other.
    """
    indices = np.empty(target.shape, smallest_unsigned(len(labels.file_values)))
    inner = None if across == 0 else across
    for start, block in target_rows(slabs, target, order_across if across == 0 else 1):
        shape = (block.shape[1], *target.shape[1:])
        indices[start : start + block.shape[1]] = decide(block, shape, labels, threshold, across=inner, order_across=order_across)
    return indices


def labels_from_labels(
    slabs: Iterable[Slab], target: Target, rule: LabelInterpolation, *, across: int | None, labels: LabelSet, threshold: float
) -> np.ndarray:
    """Class indices at the target's shape, in slab order: decided on the prepared grid, then resized (paper.md item 17)."""
    indices = np.empty(target.source, smallest_unsigned(len(labels.file_values)))
    for slab in slabs:
        rows = slice(slab.start, slab.start + slab.values.shape[1])
        indices[rows] = decide(slab.values, tuple(slab.values.shape[1:]), labels, threshold)
    if target.source == target.shape:
        return indices
    return resample_labels(indices, target.shape, order=rule.order, rule=rule.rule, across=across, order_across=rule.order_across)


def decide(
    outputs: Tensor, shape: tuple[int, ...], labels: LabelSet, threshold: float, *, across: int | None = None, order_across: int = 0
) -> np.ndarray:
    """Class indices of outputs (output, ., ., .) that are interpolated to `shape`."""
    decided = upsample_argmax(
        outputs,
        shape,
        across=across,
        order_across=order_across,
        region_order=labels.write_order,
        region_steps=write_steps(labels),
        threshold=threshold,
    )
    return decided.cpu().numpy()


def target_rows(slabs: Iterable[Slab], target: Target, order: int) -> Iterator[tuple[int, Tensor]]:
    """The slabs with their first axis at the target's rows: (first target row, block (output, rows, ., .)).

    A target row leaves as soon as the prepared rows that it lies between are there; only those are kept for the next slab.
    """
    cells = _cells(target.source[0], target.shape[0], order)
    kept, kept_start, row = None, 0, 0
    for slab in slabs:
        kept = slab.values if kept is None else torch.cat([kept, slab.values], dim=1)
        there = slab.start + slab.values.shape[1]
        ready = int(np.searchsorted(cells.high, there))
        block = max(1, BLOCK_VALUES // max(1, slab.values[:, 0].numel()))
        for start in range(row, ready, block):
            yield start, _mixed(kept, cells.part(start, min(start + block, ready)), kept_start)
        row = ready
        if row < cells.new:
            first = min(int(cells.low[row]), there)
            kept, kept_start = kept[:, first - kept_start :].clone(), first


def stretched(values: Tensor, axis: int, length: int, order: int) -> Tensor:
    """Values (output, ., ., .) with spatial axis `axis` linearly (order 1) or by the nearest (order 0) brought to `length`."""
    moved = values.movedim(1 + axis, 1)
    return _mixed(moved, _cells(moved.shape[1], length, order), 0).movedim(1, 1 + axis)


def _cells(source: int, target: int, order: int) -> Cells:
    return nearest_cells(source, target) if order == 0 else linear_cells(source, target)


def _mixed(values: Tensor, cells: Cells, first: int) -> Tensor:
    """New rows (axis 1) of values whose first row is source row `first`."""
    low, high = cells.low - first, cells.high - first
    if cells.alone and np.array_equal(low, np.arange(values.shape[1])):
        return values
    below = values.index_select(1, torch.from_numpy(low).to(values.device))
    if cells.alone:
        return below
    share = torch.from_numpy((cells.upper / cells.unit).astype(np.float32)).to(values.device)[:, None, None]
    return torch.lerp(below, values.index_select(1, torch.from_numpy(high).to(values.device)), share)


def probabilities_from(
    slabs: Iterable[Slab], target: Target, *, across: int | None, order_across: int, labels: LabelSet, average: str
) -> np.ndarray:
    """Probabilities float32 (output, ...) at the target's shape, in slab order; all of them are held."""
    volume = np.empty((labels.outputs, *target.shape), np.float32)
    orders = [order_across if axis == across else 1 for axis in range(3)]
    for start, block in target_rows(slabs, target, orders[0]):
        for axis in (1, 2):
            block = stretched(block, axis, target.shape[axis], orders[axis])
        if average == "logits":
            block = block.sigmoid() if labels.regions else block.softmax(0)
        volume[:, start : start + block.shape[1]] = block.cpu().numpy()
    return volume


def on_oriented_grid(indices: np.ndarray, target: Target, origin: Origin, labels: LabelSet) -> LabelMap:
    """The label map in file values on the oriented grid: axes moved back, put into the crop's box, background around it.

    Args:
        indices: class indices in slab order, of the target's shape.
    """
    background = labels.decode(np.zeros(1, np.uint8))
    voxels = np.full(origin.oriented.shape, background[0], background.dtype)
    inside = voxels[box_slices(origin.box)].transpose(origin.transpose or (0, 1, 2)).transpose(target.axes)
    for row, plane in zip(inside, indices, strict=True):  # row by row: indexing by a whole volume would need eight bytes a voxel
        row[...] = labels.decode(plane)
    return LabelMap(voxels, origin.oriented)


def probabilities_on_oriented_grid(volume: np.ndarray, target: Target, origin: Origin, labels: LabelSet) -> np.ndarray:
    """Probabilities float32 (output, z, y, x) on the oriented grid; outside of the box all is background (peer 5.6)."""
    whole = np.zeros((labels.outputs, *origin.oriented.shape), np.float32)
    if not labels.regions:
        whole[0] = 1
    inside = origin.transpose or (0, 1, 2)
    box = whole[(slice(None), *box_slices(origin.box))].transpose(0, *(1 + a for a in inside)).transpose(0, *(1 + a for a in target.axes))
    box[...] = volume
    return whole
