"""Which class wins at each voxel of the full grid, without bringing the logits there.

Linear interpolation keeps order: in a cell whose corners all prefer the same class that class wins everywhere inside. Only cells
with disagreeing corners are interpolated, slab by slab, so that classes x full size are never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from autoseg.data.annotations.regions import WriteSteps
from autoseg.preprocessing.axes import Cells, linear_cells, nearest_cells
from autoseg.preprocessing.cells import agreement, as_float32, corners, library, units
from autoseg.preprocessing.threads import map_slabs, slabs

if TYPE_CHECKING:
    import torch

    Array = TypeVar("Array", np.ndarray, torch.Tensor)
else:
    Array = TypeVar("Array")

Rule = Callable[[Iterable[Array]], Array]  # the code of each voxel by the scores of all outputs there
_SOURCE_SLAB = 1 << 16  # old voxels whose winners are found at once
_SLAB = 1 << 20  # new voxels of a slab
_CHUNK = 1 << 13  # new voxels that are interpolated at once, so that their corners stay in the cache
_DEVICE_SLAB, _DEVICE_CHUNK = 1 << 25, 1 << 22


def upsample_argmax(
    logits: Array,
    shape: Sequence[int],
    *,
    across: int | None = None,
    order_across: int = 0,
    region_order: Sequence[int] | None = None,
    region_steps: WriteSteps | None = None,
    rows: tuple[int, int] | None = None,
    threshold: float = 0.0,
    threads: int | None = None,
) -> Array:
    """Labels on a grid of another size: linear interpolation of the logits and their argmax, in one (DESIGN 6.2).

    Equal to `skimage.transform.resize(order=1, mode="edge", anti_aliasing=False)` of every class (with `across`: of every slice, then
    `order_across` through the slices) and argmax, but where classes tie within float32 rounding.

    Args:
        logits: (K, z, y, x) floats, numpy or torch, on any device; scores or probabilities.
        shape: voxels wanted, (z, y, x); smaller sizes are allowed too.
        across: axis of thick slices, which are interpolated apart; None: all axes alike.
        order_across: 0: the nearest slice; 1: linear through the slices too.
        region_order: the value that each of K overlapping outputs writes where it exceeds `threshold`, later ones over earlier ones,
            0 elsewhere; None: exclusive classes, the value is the index of the largest (the first of equal ones).
        region_steps: instead of `region_order`, for regions that overlap in part: what is written then depends on all that are there.
        rows: (start, stop) of the first axis; None: all. Equals that slice of the full result.
        threshold: 0 for logits of regions, 0.5 for probabilities.
        threads: for numpy and CPU tensors; None takes one a core.

    Returns:
        (stop - start, y, x) in the library of `logits`, uint8, or uint16 where a value exceeds 255 (int32 from a CUDA tensor, for
        which torch has few uint16 operations).

    Raises:
        ValueError: an axis, order, shape, rows or number of regions that does not fit.
    """
    shape, rows = _checked(logits, shape, across, order_across, region_order, region_steps, rows)
    merged = ()
    if region_steps is not None:
        values, merged = np.array(region_steps.values), region_steps.merged
        rule = partial(_state, limit=threshold, steps=region_steps.steps)
    else:
        values = np.arange(len(logits)) if region_order is None else np.array([0, *region_order])
        rule = partial(_winner, limit=None if region_order is None else threshold)
    values = values.astype(np.uint8 if values.max() < 256 else np.uint16)
    cells = [
        nearest_cells(old, new) if axis == across and order_across == 0 else linear_cells(old, new)
        for axis, (old, new) in enumerate(zip(logits.shape[1:], shape, strict=True))
    ]
    cells[0] = cells[0].part(*rows)
    if isinstance(logits, np.ndarray):
        return _upsample(logits.astype(np.float32, copy=False), cells, rule, values, merged, threads)
    import torch

    logits = logits.detach().float()
    if logits.device.type == "cpu":
        return torch.from_numpy(_upsample(logits.numpy(), cells, rule, values, merged, threads))
    return _upsample_on_device(logits, cells, rule, values, merged)


def _upsample(
    logits: np.ndarray, cells: Sequence[Cells], rule: Rule, values: np.ndarray, merged: Sequence[int], threads: int | None
) -> np.ndarray:
    """See `upsample_argmax`; corners that agree on a code of `merged` may do so for different reasons, and prove nothing."""
    logits, cells = _needed(logits, cells)
    winners = np.empty(logits.shape[1:], np.uint8 if len(values) < 256 else np.uint16)
    mixed = int(np.iinfo(winners.dtype).max)

    def decide(rows: tuple[int, int]) -> None:
        codes = rule(logits[:, slice(*rows)])
        winners[slice(*rows)] = np.where(np.isin(codes, merged), mixed, codes) if merged else codes

    map_slabs(decide, slabs(len(winners), winners[0].size, _SOURCE_SLAB), threads=threads)
    result = np.empty([each.new for each in cells], values.dtype)
    flat = np.ascontiguousarray(logits).reshape(len(logits), -1)
    themselves = np.array_equal(values, np.arange(len(values)))

    def fill(rows: tuple[int, int]) -> None:
        codes = _slab(flat, winners, mixed, cells, rows, rule)
        result[slice(*rows)] = codes if themselves else values[codes]

    map_slabs(fill, slabs(len(result), result[0].size, _SLAB), threads=threads)
    return result


def _upsample_on_device(
    logits: torch.Tensor, cells: Sequence[Cells], rule: Rule, values: np.ndarray, merged: Sequence[int]
) -> torch.Tensor:
    import torch

    logits, cells = _needed(logits, cells)
    winners, flat = rule(logits), logits.reshape(len(logits), -1)
    if merged:
        winners[torch.isin(winners, torch.tensor(merged, device=winners.device))] = -1
    table = torch.from_numpy(values.astype(np.int32)).to(logits.device)
    kind = torch.uint8 if values.dtype == np.uint8 else torch.int32
    parts = slabs(cells[0].new, cells[1].new * cells[2].new, _DEVICE_SLAB)
    return torch.cat([table[_slab(flat, winners, -1, cells, rows, rule)].to(kind) for rows in parts])


def _needed(logits: Array, cells: Sequence[Cells]) -> tuple[Array, list[Cells]]:
    """The planes that the wanted rows lie between, and the cells counted from the first of them."""
    first, last = int(cells[0].low.min()), int(cells[0].high.max())
    rows = replace(cells[0], low=cells[0].low - first, high=cells[0].high - first, near=cells[0].near - first)
    return logits[:, first : last + 1], [rows, *cells[1:]]


def _slab(flat: Array, winners: Array, mixed: int, cells: Sequence[Cells], rows: tuple[int, int], rule: Rule) -> Array:
    """The codes of new rows start..stop.

    flat: (K, z * y * x) scores; winners: (z, y, x) codes, none equal to `mixed`.
    """
    cells = (cells[0].part(*rows), *cells[1:])
    codes = agreement(winners, cells, mixed)
    line = codes.reshape(-1)
    numpy = isinstance(line, np.ndarray)
    open_ones = (line == mixed).nonzero()[0] if numpy else (line == mixed).nonzero()[:, 0]
    chunk = _CHUNK if numpy else _DEVICE_CHUNK
    for start in range(0, len(open_ones), chunk):
        some = open_ones[start : start + chunk]
        line[some] = _winner_between(flat, winners.shape, cells, some, rule)
    return line.reshape(codes.shape)


def _winner_between(flat: Array, shape: Sequence[int], cells: Sequence[Cells], some: Array, rule: Rule) -> Array:
    """The codes of the new voxels `some`, flat indices into the slab, by interpolation of every class."""
    height, width = cells[1].new, cells[2].new
    where = (some // (height * width), some // width % height, some % width)
    indices, weights = corners(cells, where, shape)
    whole = units(cells)
    weights = [as_float32(weight / whole) for weight in weights]
    return rule(sum(scores[index] * weight for index, weight in zip(indices, weights, strict=True)) for scores in flat)


def _winner(scores: Iterable[Array], limit: float | None) -> Array:
    """The class with the largest of K scores (the first of equal ones), or 1 + the last region that exceeds `limit`, else 0."""
    best = winner = None
    for index, score in enumerate(scores):
        xp = library(score)
        if best is None:
            best, winner = score, xp.zeros_like(score, dtype=xp.int32)
        if limit is not None:
            winner = xp.where(score > limit, index + 1, winner)
        elif index:
            winner = xp.where(score > best, index, winner)
            best = xp.maximum(best, score)
    return winner


def _state(scores: Iterable[Array], limit: float, steps: Sequence[Sequence[int]]) -> Array:
    """The state that the regions whose scores exceed `limit` lead to, one after the other."""
    state = None
    for score, step in zip(scores, steps, strict=True):
        xp = library(score)
        if state is None:
            state = xp.zeros_like(score, dtype=xp.int32)
        table = np.array(step, np.int32) if xp is np else xp.tensor(step, dtype=xp.int32, device=score.device)
        state = xp.where(score > limit, table[state], state)
    return state


def _checked(
    logits: Array,
    shape: Sequence[int],
    across: int | None,
    order_across: int,
    region_order: Sequence[int] | None,
    region_steps: WriteSteps | None,
    rows: tuple[int, int] | None,
) -> tuple[tuple[int, ...], tuple[int, int]]:
    shape = tuple(int(n) for n in shape)
    problem = None
    if logits.ndim != 4 or len(shape) != 3 or min(*shape, *logits.shape) < 1:
        problem = f"logits of shape {tuple(logits.shape)} cannot be brought to {shape}; they need (K, z, y, x) and sizes of at least 1"
    elif across not in (None, 0, 1, 2) or order_across not in (0, 1):
        problem = f"across is {across!r} and order_across {order_across!r}; they must be None, 0, 1 or 2, and 0 or 1"
    elif region_order is not None and (len(region_order) != len(logits) or min(region_order) < 0):
        problem = f"region_order is {tuple(region_order)}; it needs one value of at least 0 for each of {len(logits)} outputs"
    elif region_steps is not None and len(region_steps.steps) != len(logits):
        problem = f"region_steps has {len(region_steps.steps)} steps; it needs one for each of {len(logits)} outputs"
    elif rows is not None and not 0 <= rows[0] < rows[1] <= shape[0]:
        problem = f"rows is {tuple(rows)}; it must be a non-empty range within 0..{shape[0]}"
    if problem is not None:
        raise ValueError(problem)
    return shape, (0, shape[0]) if rows is None else (int(rows[0]), int(rows[1]))
