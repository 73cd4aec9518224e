"""One map over cases: in this process, in worker processes, or on a Dask cluster. A case that fails, or kills its worker, fails alone."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from autoseg.errors import AutosegError, ResourceError
from autoseg.memory import free_ram_gb

Item = TypeVar("Item")
Value = TypeVar("Value")

_CONNECT_SECONDS = 15  # a scheduler that is there answers at once; a busy login node may take some seconds
# A process that imports by itself what it needs takes a second for that. Where it gets less than twice that of work, two are no faster
# than one and need twice the memory: 100 cases of hippocampus took 10.1 s in two such processes, where 6.8 s were enough for one.
_WORTH_A_PROCESS = 2.0
_WORTH_A_FORK = 0.5  # of one that is split off a process with everything imported, see `import_ahead`
# Of work, in one process: measured on hippocampus MR (65 000 voxels a case) and chest CT (a million), reading or preparing alike.
_SECONDS_A_CASE = 0.01
_SECONDS_A_VOXEL = 0.15e-6
# Python's own choice from 3.14 on; on macOS a fork after some system libraries were used crashes
_START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_imported_ahead = False
_KILLED = "its worker process was killed, most likely for lack of memory"


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the named error. Anything else is a defect and is raised."""

    item: Item
    value: Value | None = None
    error: AutosegError | None = None


def available_cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# BLAS keeps its number of threads per process; two that saved and restored it at once would restore the wrong one
_blas_is_limited = threading.RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread meanwhile: sharing out products of small cases takes it longer than to make them."""
    from threadpoolctl import threadpool_limits

    with _blas_is_limited, threadpool_limits(1, "blas"):
        yield


def import_ahead(modules: Sequence[str], workers: int | None) -> None:
    """Let another process import what workers will need, while this one goes on; workers are then split off it in milliseconds.

    Nothing happens where forking is not safe (other systems than Linux), or where only one process will work.

    Args:
        modules: of the functions that `map_cases` will be given, and what these import late.
        workers: as `worker_count` will be told.
    """
    if _START_METHOD != "forkserver" or (available_cores() if workers is None else workers) < 2:
        return
    multiprocessing.set_forkserver_preload(["threadpoolctl", *modules])
    _start_server()
    global _imported_ahead
    _imported_ahead = True


def _start_server() -> None:
    """Begin the process that workers are split off, if there is none; it is deaf to Ctrl-C, which is for this process to hear."""
    from multiprocessing import forkserver

    if threading.current_thread() is not threading.main_thread():  # which alone may set what a signal does
        forkserver.ensure_running()
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, heard)


def worker_count(items: int, memory_gb: float, wanted: int | None = None, *, seconds: float = math.inf) -> int:
    """How many processes to use: `wanted`, else one a core, but no more than free memory, items and work allow.

    Args:
        items: how many items there are.
        memory_gb: what one worker needs at most, imports included.
        seconds: about what all items take in one process, see `seconds_of_work`.
    """
    if wanted is not None:
        return max(0, min(wanted, items))
    worth = _WORTH_A_FORK if _imported_ahead else _WORTH_A_PROCESS
    memory, work = 0.8 * free_ram_gb() / max(memory_gb, 1e-3), min(seconds / worth, items)
    return max(1, min(available_cores(), items, int(memory), int(work)))


def seconds_of_work(cases: int, voxels: float) -> float:
    """About what one process takes to read and measure, or to read and prepare, cases that hold so many voxels in all."""
    return _SECONDS_A_CASE * cases + _SECONDS_A_VOXEL * voxels


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
        yield from _on_cluster(function, items, cluster, name)
        return
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
                error=ResourceError(_KILLED, case=name(item), remedy="Use fewer --workers or a machine with more memory"),
            )


def _attempt(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    try:
        return Outcome(item, value=function(item))
    except AutosegError as error:
        return Outcome(item, error=error)


def _begin_worker() -> None:
    """For a worker process: the cores are shared out among processes already, and nobody waits for it once its parent is gone."""
    import numpy  # noqa: F401  what is limited must be loaded
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # but while it works, see `_in_worker`
    threadpool_limits(1, "blas")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


_interrupted = False  # in a worker: Ctrl-C ended a case, and others that wait in its queue are not begun


def _in_worker(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    """`_attempt` that Ctrl-C ends; a worker that waits does not hear it, and so has nothing to say of it."""
    global _interrupted
    if _interrupted:
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _attempt(function, item)
    except KeyboardInterrupt:
        _interrupted = True
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pooled(function: Callable[[Item], Value], items: Sequence[Item], workers: int) -> Iterator[Outcome[Item, Value]]:
    """Yields outcomes, returns the items that a broken pool left unfinished."""
    unfinished: dict[Future, Item] = {}
    queue = list(items)[::-1]
    if _START_METHOD == "forkserver":
        _start_server()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(_START_METHOD), initializer=_begin_worker) as pool:
        try:
            while queue or unfinished:
                while queue and len(unfinished) < 2 * workers:  # few in flight, so that an interrupt ends soon
                    item = queue[-1]
                    unfinished[pool.submit(_in_worker, function, item)] = item  # refused where the pool has just broken
                    queue.pop()
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


def _on_cluster(
    function: Callable[[Item], Value], items: Sequence[Item], address: str, name: Callable[[Item], str]
) -> Iterator[Outcome[Item, Value]]:
    """The items over the workers of an existing cluster; what a dead worker had in hand goes to another one."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    with _client(address) as client:
        queue = iter(items)
        waiting: dict[Any, Item] = {}
        finished = as_completed(loop=client.loop)

        def submit(some: Iterable[Item]) -> None:
            for item in some:
                future = client.submit(_attempt, function, item, pure=False)
                waiting[future] = item
                finished.add(future)

        width = 2 * max(1, sum(client.nthreads().values()))  # few in flight, so that an interrupt ends soon
        submit(islice(queue, width))
        for future in finished:
            item = waiting.pop(future)
            try:
                yield future.result()
            except KilledWorker:  # every worker that took it died
                yield Outcome(item, error=ResourceError(_KILLED, case=name(item), remedy="Give the cluster's workers more memory"))
            submit(islice(queue, 1))


def require_shared(address: str, folders: Sequence[Path]) -> None:
    """Whether every worker of a cluster sees these folders.

    Raises:
        ResourceError: one does not; no scheduler answers, or it has no workers.
    """
    with _client(address) as client:
        for folder in folders:
            blind = [worker for worker, sees in client.run(os.path.exists, str(folder)).items() if not sees]
            if blind:
                raise ResourceError(
                    f"{len(blind)} of {len(client.nthreads())} workers of the cluster {address} do not see the folder {folder.name}",
                    file=folder,
                    remedy="Put it on a file system that all machines mount at the same path",
                )


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """A connection to a Dask scheduler that has workers."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ResourceError(
            "--cluster needs dask.distributed, which is not installed", remedy="pip install -c constraints.txt '.[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # its TimeoutError is an OSError
        raise ResourceError(
            f"no Dask scheduler answers at {address} ({type(error).__name__})",
            remedy="Start one (dask scheduler, dask worker ADDRESS) and give its address, such as tcp://host:8786",
        ) from error
    with client:
        if not client.nthreads():
            raise ResourceError(f"the cluster {address} has no workers", remedy="Start some: dask worker ADDRESS")
        yield client
