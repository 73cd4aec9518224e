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

from autoseg.errors import TrainingError
from autoseg.training.workers import Failure, Maker, named_failure

_LAST_SAMPLE = 5.0  # seconds that closing waits for the sample that a thread is making


class SampleThreads:
    """Samples in the order of their tickets, made by threads, or by the caller's own if `workers` is 0.

    Args:
        make: the maker; each thread works with a copy of it. Its `place_of` must not fail.
        tickets: what is wanted, in order; taken from as the samples are used.
        workers: number of threads.
        ahead: how many samples may be under way or waiting at once; at least one a thread is.
        timeout: seconds after which a thread that works at one sample is taken for hung.
    """

    def __init__(self, make: Maker, tickets: Iterator[Any], *, workers: int, ahead: int, timeout: float) -> None:
        self._make, self._tickets, self._timeout = make, tickets, timeout
        self._ahead = max(ahead, workers)
        self._under_way: dict[int, tuple[Any, float]] = {}  # number -> ticket, since when
        self._done: dict[int, Any] = {}
        self._sent = self._used = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._closing = self._over = False
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
        if not self._threads:
            return self._make(next(self._tickets))
        with self._changed:
            while self._error is None and self._used not in self._done:
                if self._over and not self._under_way:
                    raise StopIteration
                self._changed.wait(1.0)
                self._watch()
            if self._error is not None:
                raise self._error
            sample = self._done.pop(self._used)
            self._used += 1
            self._changed.notify_all()
        return sample

    def close(self) -> None:
        """End all threads; none is left when it returns, but one that hangs."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = time.monotonic() + _LAST_SAMPLE
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))

    def _work(self, make: Maker) -> None:
        """A thread's life: a ticket is taken, a sample is given."""
        while (taken := self._take()) is not None:
            number, ticket = taken
            try:
                sample = make(ticket)
            except Exception as error:
                self._fail(named_failure(Failure.of(error), *self._make.place_of(ticket)))
                return
            with self._changed:
                self._done[number] = sample
                del self._under_way[number]
                self._changed.notify_all()

    def _take(self) -> tuple[int, Any] | None:
        """The next ticket and its number, once there is room for its sample; None: no more."""
        with self._changed:
            while not (self._closing or self._over or self._error) and self._sent - self._used >= self._ahead:
                self._changed.wait()
            if self._closing or self._over or self._error:
                return None
            try:
                ticket = next(self._tickets)
            except Exception as error:  # no more of them; or their own error, which is the next sample's
                self._over = True
                self._error = self._error or (None if isinstance(error, StopIteration) else error)
                self._changed.notify_all()
                return None
            number, self._sent = self._sent, self._sent + 1
            self._under_way[number] = ticket, time.monotonic()
            return number, ticket

    def _watch(self) -> None:
        """Notice a thread that works at one sample for too long."""
        for ticket, since in self._under_way.values():
            if self._error is None and time.monotonic() - since > self._timeout:
                case, place = self._make.place_of(ticket)
                what = f"a data worker hung: no sample within {self._timeout:.0f} s"
                remedy = "Run it again; if it comes back, look whether the disk answers"
                self._error = TrainingError(what, case=case, file=place, remedy=remedy)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
