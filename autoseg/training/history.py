"""What a run leaves to look at: one JSON line an epoch, a picture of them, and a line on stderr while it goes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoseg.files import appears_whole, write_text


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


class ProgressPicture:
    """progress.png: losses, Dice and learning rate over the epochs; drawn at most every `every` seconds."""

    def __init__(self, history: Path, path: Path, *, every: float) -> None:
        self._history, self._path, self._every = history, path, every
        self._drawn = time.monotonic()

    def update(self, *, at_last: bool = False) -> None:
        """Draw it anew if it is time to, or `at_last`."""
        if at_last or time.monotonic() - self._drawn >= self._every:
            self._drawn = time.monotonic()
            draw_progress(read_rows(self._history), self._path)


def draw_progress(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the picture of these history rows, whole or not at all."""
    if not rows:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(8, 9))  # a fixed layout: finding one costs most of the time
    FigureCanvasAgg(figure)
    losses, scores, rates = figure.subplots(3, 1, sharex=True)
    figure.subplots_adjust(left=0.12, right=0.97, top=0.98, bottom=0.06, hspace=0.08)
    epochs = [row["epoch"] for row in rows]
    dot = "o-" if len(rows) < 3 else "-"

    def line(axes, key: str, label: str) -> None:
        axes.plot(epochs, [float("nan") if row.get(key) is None else row[key] for row in rows], dot, label=label, lw=1)

    line(losses, "loss", "training")
    line(losses, "val_loss", "held-out patches")
    line(scores, "mean_dice", "training, mean")
    for name in rows[-1]["dice"]:
        scores.plot(epochs, [_number(row["val_dice"], name) for row in rows], dot, label=f"held-out patches, {name}", lw=1)
    line(rates, "lr", "learning rate")
    rates.set_yscale("log")
    rates.yaxis.set_minor_locator(NullLocator())
    for axes, title in ((losses, "loss"), (scores, "Dice of patches"), (rates, "learning rate")):
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    scores.set_ylim(0, 1)
    rates.set_xlabel("epoch")
    with appears_whole(path) as beside:
        figure.savefig(beside, dpi=90)


def _number(values: dict[str, float | None] | None, name: str) -> float:
    value = (values or {}).get(name)
    return float("nan") if value is None else value


class StepLine:
    """The line on stderr: where the run is, its loss and mean foreground Dice."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title, self._quiet, self._bar = title, quiet, None

    def begin(self, epoch: int, epochs: int | None, done: int, steps: int) -> None:
        """A new epoch, of which `done` of `steps` steps are behind."""
        from tqdm import tqdm

        self.end()
        of = f"/{epochs}" if epochs else ""
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=f"{self._title}, epoch {epoch + 1}{of}",
            unit="step",
            file=sys.stderr,
            leave=False,
            disable=self._quiet,
            mininterval=0.5 if sys.stderr.isatty() else 60,
            dynamic_ncols=True,
        )

    def step(self, sums: EpochSums, mean_dice: float | None) -> None:
        """One more step is done."""
        shown = {"loss": f"{sums.mean_loss:.3f}", "Dice": "-" if mean_dice is None else f"{mean_dice:.3f}"}
        if sums.seconds:
            shown["waiting"] = f"{sums.waited / sums.seconds:.0%}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def end(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
