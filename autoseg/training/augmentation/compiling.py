"""How loops are compiled: at their first call, without holding Python's lock, and kept on disk for the next start."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """The function as machine code for one thread.

    Sums may be reordered, so that they become vector operations, and a division by zero gives infinity instead of an error, whose
    check would forbid that. The code lies beside the source or in the user's cache; where neither can be written it is made anew.
    """
    options = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in
        return njit(**options)(function)
