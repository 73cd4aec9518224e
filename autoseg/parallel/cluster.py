"""Cases over the workers of a Dask cluster that somebody else runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from autoseg.errors import ResourceError
from autoseg.parallel.outcome import WAS_KILLED, Item, Outcome, Value, attempt

_CONNECT_SECONDS = 15  # a scheduler that is there answers at once; a busy login node may take some seconds


def on_cluster(
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
                future = client.submit(attempt, function, item, pure=False)
                waiting[future] = item
                finished.add(future)

        width = 2 * max(1, sum(client.nthreads().values()))  # few in flight, so that an interrupt ends soon
        submit(islice(queue, width))
        for future in finished:
            item = waiting.pop(future)
            try:
                yield future.result()
            except KilledWorker:  # every worker that took it died
                yield Outcome(item, error=ResourceError(WAS_KILLED, case=name(item), remedy="Give the cluster's workers more memory"))
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
