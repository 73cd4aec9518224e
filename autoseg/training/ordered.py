"""Samples in the order of their tickets, whoever makes them: which are under way, which are done, and the first error."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autoseg.errors import AutosegError, TrainingError


class Maker(Protocol):
    """Makes samples; picklable."""

    def __call__(self, ticket: Any) -> Any: ...

    def place_of(self, ticket: Any) -> tuple[str, Path]:
        """The case that a ticket asks for, and where it lies: what an error names. It must not fail."""


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


class Ordered:
    """What the workers that make samples share with the loop that uses them. Any thread may call any method.

    Args:
        make: whose `place_of` names the cases in errors.
        tickets: what is wanted, in order; taken from as the samples are used.
        ahead: how many samples may be under way or waiting at once.
        timeout: seconds after which somebody who works at one sample is taken for hung.
    """

    def __init__(self, make: Maker, tickets: Iterator[Any], *, ahead: int, timeout: float) -> None:
        self._make, self._tickets, self._ahead, self._timeout = make, tickets, ahead, timeout
        self._under_way: dict[int, tuple[Any, float]] = {}  # number -> ticket, since when
        self._done: dict[int, Any] = {}
        self._taken = self._used = 0
        self._error: BaseException | None = None
        self._over = self._closed = False
        self._changed = threading.Condition()

    @property
    def ended(self) -> bool:
        """Whether it was closed, or something failed."""
        return self._closed or self._error is not None

    def take(self, *, waits: bool) -> tuple[int, Any] | None:
        """The next ticket and its number. None: there are no more or, unless it waits, there is no room for its sample yet."""
        with self._changed:
            while waits and not (self.ended or self._over or self._has_room):
                self._changed.wait()
            if self.ended or self._over or not self._has_room:
                return None
            try:
                ticket = next(self._tickets)
            except StopIteration:
                self._over = True
                self._changed.notify_all()
                return None
            except Exception as error:
                self.fail(error)
                return None
            number, self._taken = self._taken, self._taken + 1
            self._under_way[number] = ticket, time.monotonic()
            return number, ticket

    @property
    def _has_room(self) -> bool:
        return self._taken - self._used < self._ahead

    def give(self, number: int, sample: Any) -> None:
        """Put down the sample of a ticket."""
        with self._changed:
            self._done[number] = sample
            del self._under_way[number]
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Let an error be the next sample's, unless there was one before."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def failed(self, number: int, failure: Failure) -> None:
        """Let a worker's failure be the next sample's error: of its case, unless it says better, with its traceback as a note."""
        case, place = self._make.place_of(self._under_way[number][0])
        error = TrainingError(
            f"a data worker failed: {failure.summary}",
            case=failure.case or case,
            file=failure.file or place,
            remedy=failure.remedy or "The worker's traceback is below and in log.txt",
        )
        error.add_note("In the data worker:\n" + failure.text)
        self.fail(error)

    def lost(self, number: int | None, what: str, remedy: str) -> None:
        """Let it be the next sample's error that whoever worked at a sample gives none, or, without a number, had none to make."""
        case, place = (None, None) if number is None else self._make.place_of(self._under_way[number][0])
        self.fail(TrainingError(what, case=case, file=place, remedy=remedy))

    def hung(self) -> list[int]:
        """Numbers of the samples that have been under way for too long, whose error is then the next sample's."""
        with self._changed:
            late = [number for number, (_, since) in self._under_way.items() if time.monotonic() - since > self._timeout]
            for number in late[:1]:
                what = f"a data worker hung: no sample within {self._timeout:.0f} s"
                self.lost(number, what, "Run it again; if it comes back, look whether the disk answers")
        return late

    def next(self, watch: Callable[[], object]) -> Any:
        """The next sample.

        Args:
            watch: called each second, to see whether all is well.

        Raises:
            TrainingError: a worker failed, was lost, or hung.
            StopIteration: there are no more tickets.
        """
        with self._changed:
            while self._error is None and self._used not in self._done:
                if self._over and not self._under_way:
                    raise StopIteration
                self._changed.wait(1.0)
                watch()
            if self._error is not None:
                raise self._error
            sample = self._done.pop(self._used)
            self._used += 1
            self._changed.notify_all()
        return sample

    def close(self) -> None:
        """Let nobody begin another sample."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
