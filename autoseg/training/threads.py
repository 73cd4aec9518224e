"""Threads that make training samples: in order, a bounded number ahead, and never a word lost when one fails.

As `workers.SamplePool`, for makers whose long loops run without Python's lock: nothing to start, nothing to send, and no process that
could outlive its parent. A thread cannot be killed, so one that hangs is named and left behind; it ends with the program.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from typing import Any

from autoseg.training.ordered import Failure, Maker, Ordered

_LAST_SAMPLE = 5.0  # seconds that closing waits for the sample that a thread is making


class SampleThreads:
    """Samples in the order of their tickets, made by threads, or by the caller's own if `workers` is 0.

    Args:
        make: the maker; each thread works with a copy of it.
        tickets: what is wanted, in order; taken from as the samples are used.
        workers: number of threads.
        ahead: how many samples may be under way or waiting at once; at least one a thread is.
        timeout: seconds after which a thread that works at one sample is taken for hung.
    """

    def __init__(self, make: Maker, tickets: Iterator[Any], *, workers: int, ahead: int, timeout: float) -> None:
        self._make, self._tickets = make, tickets
        self._samples = Ordered(make, tickets, ahead=max(ahead, workers), timeout=timeout)
        self._threads = [
            threading.Thread(target=self._work, args=(copy.copy(make),), name=f"autoseg-data-{n}", daemon=True) for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> SampleThreads:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> SampleThreads:
        return self

    def __next__(self) -> Any:
        """The next sample.

        Raises:
            TrainingError: a thread failed or hung; it names the case, and carries the thread's traceback as a note.
            StopIteration: there are no more tickets.
        """
        return self._samples.next(self._samples.hung) if self._threads else self._make(next(self._tickets))

    def close(self) -> None:
        """End all threads; none is left when it returns, but one that hangs."""
        self._samples.close()
        until = time.monotonic() + _LAST_SAMPLE
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))

    def _work(self, make: Maker) -> None:
        """A thread's life: a ticket is taken, a sample is given."""
        while (taken := self._samples.take(waits=True)) is not None:
            number, ticket = taken
            try:
                sample = make(ticket)
            except Exception as error:
                self._samples.failed(number, Failure.of(error))
                return
            self._samples.give(number, sample)
