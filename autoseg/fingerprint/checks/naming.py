"""How messages name many cases or labels."""

from __future__ import annotations

from collections.abc import Iterable

NAMED = 5  # that a message names


def some(names: Iterable[str]) -> str:
    """The first few of the names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
