"""Progress bars and durations, for people to read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[object], None]]:
    """A bar on stderr that counts cases; it gives the function to call with each one that is done."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="case", disable=quiet, file=sys.stderr, leave=False, dynamic_ncols=True) as shown:
        yield lambda _: shown.update()


def clock(seconds: float) -> str:
    """Seconds as `1 h 02 min`, `3 min 20 s` or `7 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
