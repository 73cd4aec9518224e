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
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from autoseg.parallel import end_with_parent
from autoseg.training.ordered import Failure, Maker, Ordered


@dataclass
class _Worker:
    """A process, its pipe, and the number of the sample that it is working at."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    number: int | None = None


class SamplePool:
    """Samples in the order of their tickets, made by spawned processes, or in this one if `workers` is 0.

    Args:
        make: the maker, of which each process has a copy.
        tickets: what is wanted, in order; taken from as the samples are used.
        workers: number of processes.
        ahead: how many samples may be under way or waiting at once; at least one a worker is.
        timeout: seconds after which a worker that works at one sample is taken for hung.
    """

    def __init__(self, make: Maker, tickets: Iterator[Any], *, workers: int, ahead: int, timeout: float) -> None:
        self._make, self._tickets = make, tickets
        self._samples = Ordered(make, tickets, ahead=max(ahead, workers), timeout=timeout)
        self._workers = [_start(make) for _ in range(workers)]
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
        sample = self._samples.next(lambda: None)  # the thread that tends the workers watches them
        self._bell_rope.send_bytes(b"more")
        return sample

    def close(self) -> None:
        """End all workers; none is left when it returns."""
        self._samples.close()
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

    def _tend(self) -> None:
        """In a thread of its own: hand out tickets, gather samples, watch over the workers."""
        try:
            while not self._samples.ended:
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
                late = self._samples.hung()
                for worker in self._workers:
                    if worker.number in late:
                        worker.process.kill()
        except BaseException as error:  # an error in this thread is the next sample's error
            self._samples.fail(error)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.number is None and (taken := self._samples.take(waits=False)) is not None:
                worker.number, ticket = taken
                try:
                    worker.pipe.send(ticket)
                except OSError:  # it has died
                    self._watch(worker)

    def _gather(self, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(1.0)
            self._watch(worker)
            return
        if isinstance(answer, Failure):
            self._samples.failed(worker.number, answer)
            return
        self._samples.give(worker.number, answer)
        worker.number = None

    def _watch(self, worker: _Worker) -> None:
        """Notice a worker that died."""
        code = worker.process.exitcode
        if code is None or self._samples.ended:
            return
        how = f"killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"
        killed = "Most likely memory ran out: use fewer --workers"
        remedy = killed if code == -signal.SIGKILL else "Run it again; if it comes back, try --workers 0 to see why"
        self._samples.lost(worker.number, f"a data worker was {how}", remedy)


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
    end_with_parent()
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
