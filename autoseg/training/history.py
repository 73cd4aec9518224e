"""history.jsonl: one JSON line an epoch, and the sums that it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoseg.files import write_text


@dataclass
class EpochSums:
    """What an epoch has gathered so far, in its training steps.

    loss, parts: sums over the steps. counts: TP, FP, FN of each foreground output. waited: seconds spent waiting for samples.
    progress: of each step, where time drives it, so that the run can be repeated.
    """

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    counts: list[list[int]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)

    def add(self, loss: float, parts: dict[str, float], counts: Sequence[Sequence[int]]) -> None:
        """One more step."""
        self.steps += 1
        self.loss += loss
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value
        before = self.counts or [[0, 0, 0] for _ in counts]
        self.counts = [[a + b for a, b in zip(row, more, strict=True)] for row, more in zip(before, counts, strict=True)]

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.steps, 1)

    def mean_parts(self) -> dict[str, float]:
        return {name: value / max(self.steps, 1) for name, value in self.parts.items()}

    def state(self) -> dict[str, Any]:
        """As plain values, for the checkpoint."""
        return asdict(self)


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are defined, None if none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line, at once on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a history; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def keep_rows(path: Path, count: int) -> None:
    """Drop the rows that a run wrote after the checkpoint it now goes on from."""
    rows = read_rows(path)[:count]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
