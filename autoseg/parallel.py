"""One map over cases: in this process or in spawned ones. A case that fails, or kills its worker, fails alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from autoseg.errors import AutosegError, ResourceError

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the named error. Anything else is a defect and is raised."""

    item: Item
    value: Value | None = None
    error: AutosegError | None = None


def available_cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(items: int, memory_gb: float, wanted: int | None = None) -> int:
    """How many processes to use: `wanted`, else one a core, but no more than free memory and items allow.

    Args:
        items: how many items there are.
        memory_gb: what one worker needs at most, imports included.
    """
    import psutil

    if wanted is not None:
        return max(0, min(wanted, items))
    free = psutil.virtual_memory().available / 2**30
    return max(1, min(available_cores(), items, int(0.8 * free / max(memory_gb, 1e-3))))


def map_cases(
    function: Callable[[Item], Value], items: Sequence[Item], *, workers: int, name: Callable[[Item], str] = str
) -> Iterator[Outcome[Item, Value]]:
    """`function` of every item, as they finish.

    Args:
        function: picklable; it may raise `AutosegError`, which becomes the item's outcome.
        workers: 0 or 1 runs in this process.
        name: how an item is called in the error that a dead worker becomes.
    """
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield _attempt(function, item)
        return
    left = yield from _pooled(function, items, workers)
    for item in left:  # a worker died: each unfinished item gets a process of its own, so that the culprit is known
        rest = yield from _pooled(function, [item], 1)
        if rest:
            yield Outcome(
                item,
                error=ResourceError(
                    "its worker process was killed, most likely for lack of memory",
                    case=name(item),
                    remedy="Use fewer --workers or a machine with more memory",
                ),
            )


def _attempt(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    try:
        return Outcome(item, value=function(item))
    except AutosegError as error:
        return Outcome(item, error=error)


def _pooled(function: Callable[[Item], Value], items: Sequence[Item], workers: int) -> Iterator[Outcome[Item, Value]]:
    """Yields outcomes, returns the items that a broken pool left unfinished."""
    unfinished: dict[Future, Item] = {}
    queue = list(items)[::-1]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while queue or unfinished:
                while queue and len(unfinished) < 2 * workers:  # few in flight, so that an interrupt ends soon
                    item = queue.pop()
                    unfinished[pool.submit(_attempt, function, item)] = item
                done, _ = wait(unfinished, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    del unfinished[future]
                    yield outcome
        except BrokenProcessPool:
            return [*unfinished.values(), *queue[::-1]]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return []
