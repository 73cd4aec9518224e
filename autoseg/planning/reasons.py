"""Making reasons: why a decision came out as it did, with its figures as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from autoseg.planning.schema import Reason


def reason(decision: str, value: Any, because: str, would_change_if: str, **figures: Any) -> Reason:
    """One reason.

    Args:
        decision: dotted key of the plan.
        figures: what was computed from this dataset's fingerprint.
    """
    return Reason(decision=decision, value=plain(value), because=because, figures=plain(figures), would_change_if=would_change_if)


def plain(value: Any) -> Any:
    """A value as JSON holds it; floats to six significant digits, so that a page can show them."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}")
    return value


def times(numbers: Iterable[float], digits: int = 4) -> str:
    """Numbers as `5 x 0.8 x 0.8`."""
    return " x ".join(f"{float(n):.{digits}g}" for n in numbers)
