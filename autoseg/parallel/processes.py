"""Worker processes of this machine: how they begin, what they hear, and that none outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from autoseg.parallel.outcome import Item, Outcome, Value, attempt

# Python's own choice from 3.14 on; on macOS a fork after some system libraries were used crashes
_START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_imported_ahead = False


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


def imported_ahead() -> bool:
    """Whether workers have what they need as soon as they begin."""
    return _imported_ahead


def _start_server() -> None:
    """Begin the process that workers are split off, if there is none; it is deaf to Ctrl-C, which is for this process to hear."""
    if _START_METHOD != "forkserver":
        return
    from multiprocessing import forkserver

    if threading.current_thread() is not threading.main_thread():  # which alone may set what a signal does
        forkserver.ensure_running()
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, heard)


def _begin_worker() -> None:
    """For a worker process: the cores are shared out among processes already, and nobody waits for it once its parent is gone."""
    import numpy  # noqa: F401  what is limited must be loaded
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # but while it works, see `_in_worker`
    threadpool_limits(1, "blas")
    end_with_parent()


def end_with_parent() -> None:
    """Let this process end when the one that began it does, also when that is killed."""

    def wait_for_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()


_interrupted = False  # in a worker: Ctrl-C ended a case, and others that wait in its queue are not begun


def _in_worker(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    """`attempt` that Ctrl-C ends; a worker that waits does not hear it, and so has nothing to say of it."""
    global _interrupted
    if _interrupted:
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return attempt(function, item)
    except KeyboardInterrupt:
        _interrupted = True
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_processes(function: Callable[[Item], Value], items: Sequence[Item], workers: int) -> Iterator[Outcome[Item, Value]]:
    """Yields outcomes, as they come; returns the items that a broken pool left unfinished."""
    unfinished: dict[Future, Item] = {}
    queue = list(items)[::-1]
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
