"""Images brought to another size by one banded matrix product per axis, slab by slab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.preprocessing.axes import Band
from autoseg.preprocessing.threads import map_slabs, slabs

_SLAB = 1 << 19  # voxels of a slab: it and its products stay in the processor's cache
_COLUMNS = 8192  # of one product along the first axis
_STACK = 1 << 22  # voxels of the new planes that are made before each is resized


def resize_volume(volume: np.ndarray, bands: Sequence[Band | None], dtype: np.dtype, *, threads: int | None) -> np.ndarray:
    """A volume (z, y, x) along all axes, clipped to its own range."""
    across, *within = bands
    planes_first = _plane_cost(within, volume.shape[1:]) * volume.shape[0] + _cost(across, _sizes(within, volume.shape[1:]))
    across_first = _cost(across, volume.shape[1:]) + _plane_cost(within, volume.shape[1:]) * (across.new if across else volume.shape[0])
    if across is not None and across_first < planes_first:
        volume = np.ascontiguousarray(volume, dtype=dtype)
        low, high = _extremes(volume, threads)
        result = _across_then_planes(volume, across, within, threads=threads)
    else:
        # one array holds the planes and, after them, the result: the largest volumes decide how many workers there can be
        rows = volume.shape[0] if across is None else max(across.old, across.new)
        result = np.empty((rows, *_sizes(within, volume.shape[1:])), dtype)
        _, lows, highs = resize_planes(volume, within, dtype, threads=threads, out=result[: len(volume)])
        low, high = lows.min(), highs.max()
        if across is not None:
            resize_first_axis(result[: across.old], across, threads=threads, out=result[: across.new])
            result = result[: across.new]

    def clip(rows: tuple[int, int]) -> None:
        np.clip(result[slice(*rows)], low, high, out=result[slice(*rows)])

    map_slabs(clip, slabs(len(result), result[0].size, _SLAB), threads=threads)
    return result


def _across_then_planes(volume: np.ndarray, across: Band, within: Sequence[Band | None], *, threads: int | None) -> np.ndarray:
    """A contiguous volume along its first axis, then plane by plane, a few new planes at a time; not clipped."""
    shape = volume.shape[1:]
    result = np.empty((across.new, *_sizes(within, shape)), volume.dtype)
    source = volume.reshape(across.old, -1)
    most = max(1, _STACK // source.shape[1])
    parts = [(block, start) for block in across.blocks for start in range(block.start, block.stop, most)]

    def resize(numbers: tuple[int, int]) -> None:
        for block, start in parts[slice(*numbers)]:
            stop = min(start + most, block.stop)
            weights = block.weights[start - block.start : stop - block.start]
            slab = np.matmul(weights, source[block.low : block.high]).reshape(-1, *shape)
            _resize_slab(slab, within, result[start:stop])

    map_slabs(resize, slabs(len(parts), 1, 1), threads=threads, blas=True)
    return result


def resize_planes(
    volume: np.ndarray, bands: Sequence[Band | None], dtype: np.dtype, *, threads: int | None, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each plane of (n, y, x) by itself; with the smallest and largest value of each plane before, (n,) each."""
    count, *shape = volume.shape
    result = np.empty((count, *_sizes(bands, shape)), dtype) if out is None else out
    low, high = np.empty(count, dtype), np.empty(count, dtype)

    def resize(rows: tuple[int, int]) -> None:
        part = slice(*rows)
        slab = np.ascontiguousarray(volume[part], dtype=dtype)
        slab.min(axis=(1, 2), out=low[part])
        slab.max(axis=(1, 2), out=high[part])
        _resize_slab(slab, bands, result[part])

    map_slabs(resize, slabs(count, int(np.prod(shape)), _SLAB), threads=threads, blas=True)
    return result, low, high


def resize_first_axis(volume: np.ndarray, along: Band, *, threads: int | None, out: np.ndarray | None = None) -> np.ndarray:
    """A contiguous volume (z, y, x) along its first axis; not clipped. `out` may begin where the volume does."""
    result = np.empty((along.new, *volume.shape[1:]), volume.dtype) if out is None else out
    source, target = volume.reshape(along.old, -1), result.reshape(along.new, -1)

    def resize(columns: tuple[int, int]) -> None:
        part = slice(*columns)
        given = source[:, part] if out is None else source[:, part].copy()
        for block in along.blocks:
            np.matmul(block.weights, given[block.low : block.high], out=target[block.start : block.stop, part])

    map_slabs(resize, slabs(source.shape[1], 1, _COLUMNS), threads=threads, blas=True)
    return result


def _resize_slab(slab: np.ndarray, bands: Sequence[Band | None], result: np.ndarray) -> None:
    down, right = bands
    count, height, width = slab.shape
    if down is None and right is None:
        result[...] = slab
    elif down is None:
        _along_x(slab, right, result)
    elif right is None:
        _along_y(slab, down, result)
    elif _right_first(down, right):
        _along_y(_along_x(slab, right, np.empty((count, height, right.new), slab.dtype)), down, result)
    else:
        _along_x(_along_y(slab, down, np.empty((count, down.new, width), slab.dtype)), right, result)


def _along_x(slab: np.ndarray, right: Band, result: np.ndarray) -> np.ndarray:
    lines, target = slab.reshape(-1, right.old), result.reshape(-1, right.new)
    for block in right.blocks:
        np.matmul(lines[:, block.low : block.high], block.weights.T, out=target[:, block.start : block.stop])
    return result


def _along_y(slab: np.ndarray, down: Band, result: np.ndarray) -> np.ndarray:
    for block in down.blocks:
        np.matmul(block.weights, slab[:, block.low : block.high], out=result[:, block.start : block.stop])
    return result


def _right_first(down: Band, right: Band) -> bool:
    return down.old * right.products + right.new * down.products <= right.old * down.products + down.new * right.products


def _sizes(bands: Sequence[Band | None], shape: Sequence[int]) -> list[int]:
    return [length if each is None else each.new for each, length in zip(bands, shape, strict=True)]


def _cost(along: Band | None, others: Sequence[int]) -> int:
    return 0 if along is None else along.products * int(np.prod(others))


def _plane_cost(bands: Sequence[Band | None], shape: Sequence[int]) -> int:
    """Multiplications for one plane, by the cheaper order of its two axes."""
    down, right = bands
    height, width = _sizes(bands, shape)
    return min(_cost(right, [shape[0]]) + _cost(down, [width]), _cost(down, [shape[1]]) + _cost(right, [height]))


def _extremes(volume: np.ndarray, threads: int | None) -> tuple[np.floating, np.floating]:
    def extremes(rows: tuple[int, int]) -> tuple[np.floating, np.floating]:
        return volume[slice(*rows)].min(), volume[slice(*rows)].max()

    parts = map_slabs(extremes, slabs(len(volume), volume[0].size, _SLAB), threads=threads)
    return min(low for low, _ in parts), max(high for _, high in parts)
