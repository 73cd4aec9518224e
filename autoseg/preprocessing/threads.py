"""A map over slabs in threads, each with one BLAS thread: narrow products are too small for BLAS to share out itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from autoseg.parallel import available_cores, one_blas_thread

Item = TypeVar("Item")
Value = TypeVar("Value")


def map_slabs(function: Callable[[Item], Value], items: Iterable[Item], *, threads: int | None, blas: bool = False) -> list[Value]:
    """`function` of every item, in order.

    Args:
        threads: None takes one a core.
        blas: whether `function` multiplies matrices.
    """
    items = list(items)
    count = min(threads or available_cores(), len(items))
    if count <= 1:
        return [function(item) for item in items]
    with one_blas_thread() if blas else contextlib.nullcontext(), ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, items))


def slabs(length: int, voxels_a_row: int, wanted_voxels: int) -> list[tuple[int, int]]:
    """Half-open ranges that cut `length` rows into slabs of about `wanted_voxels`."""
    step = max(1, wanted_voxels // max(voxels_a_row, 1))
    return [(start, min(start + step, length)) for start in range(0, length, step)]
