"""One map over cases: in this process, in worker processes, or on a Dask cluster. A case that fails, or kills its worker, fails alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from autoseg.errors import ResourceError
from autoseg.parallel.cluster import on_cluster, require_shared
from autoseg.parallel.counting import seconds_of_work, worker_count
from autoseg.parallel.outcome import WAS_KILLED, Item, Outcome, Value, attempt
from autoseg.parallel.processes import available_cores, end_with_parent, import_ahead, in_processes, one_blas_thread

__all__ = [
    "Outcome",
    "available_cores",
    "end_with_parent",
    "import_ahead",
    "map_cases",
    "one_blas_thread",
    "require_shared",
    "seconds_of_work",
    "worker_count",
]


def map_cases(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    workers: int,
    name: Callable[[Item], str] = str,
    cluster: str | None = None,
) -> Iterator[Outcome[Item, Value]]:
    """`function` of every item, as they finish.

    Args:
        function: picklable; it may raise `AutosegError`, which becomes the item's outcome.
        workers: 0 or 1 runs in this process.
        name: how an item is called in the error that a dead worker becomes.
        cluster: address of a Dask scheduler, whose workers are used instead; they must see the items' files (`require_shared`).

    Raises:
        ResourceError: no scheduler answers at `cluster`, or it has no workers.
    """
    if cluster is not None:
        yield from on_cluster(function, items, cluster, name)
        return
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield attempt(function, item)
        return
    left = yield from in_processes(function, items, workers)
    for item in left:  # a worker died: each unfinished item gets a process of its own, so that the culprit is known
        rest = yield from in_processes(function, [item], 1)
        if rest:
            yield Outcome(
                item,
                error=ResourceError(WAS_KILLED, case=name(item), remedy="Use fewer --workers or a machine with more memory"),
            )
