"""What became of an item that a function was mapped over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from autoseg.errors import AutosegError

Item = TypeVar("Item")
Value = TypeVar("Value")

WAS_KILLED = "its worker process was killed, most likely for lack of memory"


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the named error. Anything else is a defect and is raised."""

    item: Item
    value: Value | None = None
    error: AutosegError | None = None


def attempt(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    """The outcome of one item, in whichever process this runs."""
    try:
        return Outcome(item, value=function(item))
    except AutosegError as error:
        return Outcome(item, error=error)
