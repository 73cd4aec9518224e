"""What a run shows while it goes: a line on stderr, and progress.png."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.files import appears_whole
from autoseg.progress import clock
from autoseg.training.history import EpochSums, mean_of, read_rows

NAMED_CLASSES = 4  # more of them would not fit on a line
NAMED_CURVES = 12  # nor into a legend
LEAST_REST = 60.0  # seconds between two drawings
REST = 200  # times what the last drawing took: half a per cent of the time at most


class ProgressPicture:
    """progress.png: losses, Dice and learning rate over the epochs. Drawing takes at most one part in 200 of the time."""

    def __init__(self, history: Path, path: Path) -> None:
        self._history, self._path = history, path
        self._next = time.monotonic() + LEAST_REST

    def update(self, *, at_last: bool = False) -> None:
        """Draw it anew if it is time to, or `at_last`."""
        began = time.monotonic()
        if at_last or began >= self._next:
            draw_progress(read_rows(self._history), self._path)
            now = time.monotonic()
            self._next = now + max(LEAST_REST, REST * (now - began))


def draw_progress(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
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
    for number, name in enumerate(rows[-1]["dice"]):
        label = f"held-out patches, {name}" if number < NAMED_CURVES else None
        scores.plot(epochs, [_number(row["val_dice"], name) for row in rows], dot, label=label, lw=1)
    line(rates, "lr", "learning rate")
    if any(row["lr"] > 0 for row in rows):
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


def _number(values: Mapping[str, float | None] | None, name: str) -> float:
    value = (values or {}).get(name)
    return float("nan") if value is None else value


class StepLine:
    """The line on stderr: where the run is, its loss, Dice by class, share of waiting for data, and the time left."""

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

    def step(self, sums: EpochSums, scores: Mapping[str, float | None], left: float | None, *, steps: int = 1) -> None:
        """`steps` more steps are done.

        Args:
            sums: of the epoch so far.
            scores: Dice of each output over the epoch's training patches.
            left: seconds until training ends, as far as is known.
        """
        self._bar.set_postfix_str(describe(sums, scores, left), refresh=False)
        self._bar.update(steps)

    def end(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def describe(sums: EpochSums, scores: Mapping[str, float | None], left: float | None) -> str:
    """What the line says of an epoch: `loss 0.512, Dice 0.70 (lung 0.91, lesion 0.49), 3 % waiting, 1 h 02 min left`."""
    said = [f"loss {sums.mean_loss:.3f}", f"Dice {_dice(mean_of(scores.values()))}{_by_class(scores)}"]
    if sums.seconds:
        said.append(f"{sums.waited / sums.seconds:.0%} waiting")
    if left is not None:
        said.append(f"{clock(left)} left")
    return ", ".join(said)


def _by_class(scores: Mapping[str, float | None]) -> str:
    """Every class where they are few, else the worst one."""
    known = {name: value for name, value in scores.items() if value is not None}
    if len(scores) < 2 or not known:
        return ""
    if len(scores) <= NAMED_CLASSES:
        return " (" + ", ".join(f"{name} {_dice(value)}" for name, value in scores.items()) + ")"
    worst = min(known, key=known.__getitem__)
    return f" (worst: {worst} {_dice(known[worst])})"


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
