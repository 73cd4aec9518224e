"""Processes that make training samples: in order, a bounded number ahead, and never a word lost when one fails.

`with SamplePool(make, tickets, ...) as pool: for sample in pool` gives the samples in the order of their tickets. Each is made by a
pure function of its ticket, so the number of workers changes the speed and nothing else. The workers are spawned, import neither
torch nor SimpleITK, compute with one thread, leave Ctrl-C to their parent and end when it dies.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from autoseg.errors import AutosegError, TrainingError


class Maker(Protocol):
    """Makes samples; picklable."""

    def __call__(self, ticket: Any) -> Any: ...

    def place_of(self, ticket: Any) -> tuple[str, Path]:
        """The case that a ticket asks for, and where it lies: what an error names."""


@dataclass(frozen=True)
class Failure:
    """A worker's exception as text: whatever it was, it can travel."""

    summary: str
    case: str | None
    file: str | None
    remedy: str | None
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        named = isinstance(error, AutosegError)
        summary = error.message if named else f"{type(error).__name__}: {error}"
        file = error.file if named else getattr(error, "filename", None)
        remedy = error.remedy if named else None
        return cls(summary, getattr(error, "case", None), file and str(file), remedy, "".join(traceback.format_exception(error)))


def named_failure(failure: Failure, case: str, place: Path) -> TrainingError:
    """The error that tells of a worker's failure: its case, and its traceback as a note.

    Args:
        case, place: what the worker was working at, unless the failure says better.
    """
    error = TrainingError(
        f"a data worker failed: {failure.summary}",
        case=failure.case or case,
        file=failure.file or place,
        remedy=failure.remedy or "The worker's traceback is below and in log.txt",
    )
    error.add_note("In the data worker:\n" + failure.text)
    return error


@dataclass
class _Worker:
    """A process, its pipe, and what it is working at: the ticket's number and since when."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    number: int | None = None
    since: float = field(default_factory=time.monotonic)


class SamplePool:
    """Samples in the order of their tickets, made by spawned processes, or in this one if `workers` is 0.

    Args:
        make: the maker; its `place_of` must not fail.
        tickets: what is wanted, in order; taken from as the samples are used.
        workers: number of processes.
        ahead: how many samples may be under way or waiting at once; at least one a worker is.
        timeout: seconds after which a worker that works at one sample is taken for hung.
    """

    def __init__(self, make: Maker, tickets: Iterator[Any], *, workers: int, ahead: int, timeout: float) -> None:
        self._make, self._tickets, self._timeout = make, tickets, timeout
        self._ahead = max(ahead, workers)
        self._workers = [_start(make) for _ in range(workers)]
        self._under_way: dict[int, Any] = {}
        self._done: dict[int, Any] = {}
        self._sent = self._used = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._bell, self._bell_rope = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._tend, name="autoseg-data", daemon=True)
        if workers:
            self._thread.start()

    def __enter__(self) -> SamplePool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> SamplePool:
        return self

    def __next__(self) -> Any:
        """The next sample.

        Raises:
            TrainingError: a worker failed, was killed, or hung; it names the case, and carries the worker's traceback as a note.
            StopIteration: there are no more tickets.
        """
        if not self._workers:
            return self._make(next(self._tickets))
        with self._changed:
            while self._error is None and self._used not in self._done:
                if self._tickets_are_over():
                    raise StopIteration
                self._changed.wait(1.0)
            if self._error is not None:
                raise self._error
            sample = self._done.pop(self._used)
            self._used += 1
        self._bell_rope.send_bytes(b"more")
        return sample

    def close(self) -> None:
        """End all workers; none is left when it returns."""
        with self._changed:
            self._closing = True
        if self._thread.is_alive():
            self._bell_rope.send_bytes(b"close")
            self._thread.join()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(2.0)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers = []
        self._bell.close()
        self._bell_rope.close()

    def _tickets_are_over(self) -> bool:
        return self._tickets is None and not self._under_way

    def _tend(self) -> None:
        """In a thread of its own: hand out tickets, gather samples, watch over the workers."""
        try:
            while not self._closing and self._error is None:
                self._hand_out()
                busy = [w for w in self._workers if w.number is not None]
                ready = wait([self._bell, *(w.pipe for w in busy), *(w.process.sentinel for w in self._workers)], timeout=0.5)
                if self._bell in ready:
                    self._bell.recv_bytes()
                for worker in busy:
                    if worker.pipe in ready:
                        self._gather(worker)
                for worker in self._workers:
                    self._watch(worker)
        except BaseException as error:  # an error in this thread is the next sample's error
            self._fail(error)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.number is None and self._tickets is not None and self._sent - self._used < self._ahead:
                try:
                    ticket = next(self._tickets)
                except StopIteration:
                    with self._changed:
                        self._tickets = None
                        self._changed.notify_all()
                    return
                worker.number, worker.since = self._sent, time.monotonic()
                self._under_way[self._sent] = ticket
                self._sent += 1
                try:
                    worker.pipe.send(ticket)
                except OSError:  # it has died; `_watch` says how
                    self._watch(worker)

    def _gather(self, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(1.0)
            self._watch(worker)
            return
        ticket = self._under_way[worker.number]
        if isinstance(answer, Failure):
            self._fail(named_failure(answer, *self._make.place_of(ticket)))
            return
        with self._changed:
            self._done[worker.number] = answer
            del self._under_way[worker.number]
            worker.number = None
            self._changed.notify_all()

    def _watch(self, worker: _Worker) -> None:
        """Notice a worker that died, or that works at one sample for too long."""
        if self._closing or self._error is not None:
            return
        code = worker.process.exitcode
        if code is not None:
            how = f"killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"
            killed = "Most likely memory ran out: use fewer --workers"
            remedy = killed if code == -signal.SIGKILL else "Run it again; if it comes back, try --workers 0 to see why"
            self._fail(self._error_about(worker, f"a data worker was {how}", remedy))
        elif worker.number is not None and time.monotonic() - worker.since > self._timeout:
            worker.process.kill()
            what = f"a data worker hung: no sample within {self._timeout:.0f} s"
            self._fail(self._error_about(worker, what, "Run it again; if it comes back, look whether the disk answers"))

    def _error_about(self, worker: _Worker, what: str, remedy: str) -> TrainingError:
        case, place = (None, None) if worker.number is None else self._make.place_of(self._under_way[worker.number])
        return TrainingError(what, case=case, file=place, remedy=remedy)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _start(make: Maker) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, pickle.dumps(make)), name="autoseg-data", daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _work(pipe: Connection, maker: bytes) -> None:
    """A worker's life: a ticket comes, a sample or a `Failure` goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"):
        os.environ[name] = "1"
    from threadpoolctl import threadpool_limits

    try:
        make = pickle.loads(maker)
        threadpool_limits(1)  # for what is loaded already; later libraries obey the variables
        while True:
            ticket = pipe.recv()
            try:
                answer = make(ticket)
            except Exception as error:
                answer = Failure.of(error)
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pipe or died
    except Exception as error:
        pipe.send(Failure.of(error))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
