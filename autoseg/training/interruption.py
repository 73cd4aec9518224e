"""Ctrl-C and SIGTERM end a run where it can be taken up again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stopped(BaseException):
    """The user or the system asked the run to end; its state is whole. No error, so that nothing on the way takes it for one."""


class Interruption:
    """While it is entered, a signal is noted and takes effect in `stop_here_if_asked` or `waiting`; a second one interrupts at once.

    In a thread other than the main one signals are not ours, and nothing happens.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._may_stop = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop_here_if_asked(self) -> None:
        """Raises Stopped if a signal has come."""
        if self.asked:
            raise Stopped

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A stretch in which nothing changes, so that a signal may end it at once, as Stopped."""
        self._may_stop = True
        try:
            self.stop_here_if_asked()
            yield
        finally:
            self._may_stop = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if self._may_stop:
            self._may_stop = False
            raise Stopped
        if not first:
            raise KeyboardInterrupt
