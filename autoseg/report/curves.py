"""Losses over the epochs and Dice over the cases, as in the paper's Figs. 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.files import appears_whole
from autoseg.report.colours import Colour, box_colour, colours_of

TRAINING: Colour = (0.86, 0.08, 0.08)
VALIDATION: Colour = (0.0, 0.68, 0.78)


def smoothed(histories: Sequence[Sequence[tuple[float, float]]], points: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, mean and deviation of several folds' curves, each value weighing by a Gaussian of a fortieth of the longest fold.

    Args:
        histories: for each fold its (epoch, value) pairs; undefined values are left out by the caller.
    """
    pairs = np.array([pair for history in histories for pair in history], dtype=float).reshape(-1, 2)
    first, last = pairs[:, 0].min(), pairs[:, 0].max()
    at = np.linspace(first, last, points if last > first else 1)
    width = max((last - first) / 40, 0.5)
    weight = np.exp(-0.5 * ((at[:, None] - pairs[:, 0]) / width) ** 2)
    weight /= np.maximum(weight.sum(1, keepdims=True), 1e-300)
    mean = weight @ pairs[:, 1]
    return at, mean, np.sqrt(np.maximum(weight @ pairs[:, 1] ** 2 - mean**2, 0))


def draw_loss_curves(path: Path, histories: Mapping[int | str, Sequence[Mapping[str, Any]]], *, title: str = "") -> bool:
    """Write the losses of all folds: training red, held-out patches cyan, each smoothed over the folds with its band.

    Args:
        histories: fold -> rows of its history.jsonl, with `epoch`, `loss` and, where patches were looked at, `val_loss`.

    Returns:
        Whether there was anything to draw.
    """
    curves = {key: [_pairs(rows, key) for rows in histories.values()] for key in ("loss", "val_loss")}
    if not any(curves["loss"]):
        return False
    figure, axes = _figure(7.0, 4.4)
    for key, colour, label in (("loss", TRAINING, "training"), ("val_loss", VALIDATION, "held-out patches (steer nothing)")):
        known = [pairs for pairs in curves[key] if pairs]
        if not known:
            continue
        for pairs in known:
            axes.plot(*zip(*pairs, strict=True), color=colour, alpha=0.22, lw=0.7, marker="o" if len(pairs) == 1 else None, ms=3)
        epochs, mean, spread = smoothed(known)
        axes.fill_between(epochs, mean - 1.96 * spread, mean + 1.96 * spread, color="gray", alpha=0.25, lw=0)
        axes.plot(epochs, mean, color=colour, lw=1.8, label=label, marker="o" if len(epochs) == 1 else None)
    top = max(value for pairs in (*curves["loss"], *curves["val_loss"]) for _, value in pairs)
    axes.set_ylim(min(0, axes.get_ylim()[0]) if _lowest(curves) < 0 else 0, top * 1.05 if top > 0 else None)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    count = len(histories)
    axes.set_title(title or f"Loss of {count} fold{'' if count == 1 else 's'}; bands: 1.96 standard deviations", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)
    return True


def _pairs(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None and np.isfinite(row[key])]


def _lowest(curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> float:
    return min(value for folds in curves.values() for pairs in folds for _, value in pairs)


def draw_boxes(path: Path, values: Mapping[str, Sequence[float]], *, ylabel: str = "Dice", title: str = "") -> bool:
    """Write a box a class of its cases' scores, each case a dot; undefined values are left out, their number is said.

    Boxes: quartiles and median; whiskers to the farthest case within 1.5 times the box; lungs green, infection orange (Fig. 5).

    Returns:
        Whether there was anything to draw.
    """
    known = {name: [v for v in scores if np.isfinite(v)] for name, scores in values.items()}
    known = {name: scores for name, scores in known.items() if scores}
    if not known:
        return False
    figure, axes = _figure(max(3.6, 1.1 * len(known) + 1.2), 4.2)
    colours = colours_of(list(known))
    rng = np.random.default_rng(0)
    for number, (name, scores) in enumerate(known.items(), start=1):
        _draw_box(axes, number, np.array(scores), box_colour(colours[name]))
        axes.plot(number + rng.uniform(-0.12, 0.12, len(scores)), scores, "o", ms=3.2, mfc="white", mec="black", mew=0.7, zorder=3)
    labels = [
        f"{name}\nn = {len(scores)}" + (f"\n{len(values[name]) - len(scores)} undefined" if len(scores) < len(values[name]) else "")
        for name, scores in known.items()
    ]
    axes.set_xticks(range(1, len(known) + 1), labels, fontsize=8, rotation=45 if len(known) > 8 else 0)
    lowest = min(min(scores) for scores in known.values())
    axes.set_ylim(-0.03 if lowest < 0.5 else np.floor(lowest * 10) / 10 - 0.05, 1.03)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(title or f"{ylabel} by case", fontsize=10)
    _save(figure, path)
    return True


def _draw_box(axes, at: float, scores: np.ndarray, colour: Colour) -> None:
    # by hand, since Axes.boxplot imports pyplot and with it a backend
    lower, median, upper = np.quantile(scores, (0.25, 0.5, 0.75))
    reach = 1.5 * (upper - lower)
    ends = scores[scores >= lower - reach].min(), scores[scores <= upper + reach].max()
    axes.bar(at, upper - lower, 0.55, bottom=lower, color=colour, edgecolor="black", lw=0.8)
    axes.hlines(median, at - 0.275, at + 0.275, color="black", lw=1.6)
    axes.vlines([at, at], [ends[0], upper], [lower, ends[1]], color="black", lw=0.8)
    axes.hlines(ends, at - 0.12, at + 0.12, color="black", lw=0.8)


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:
    with appears_whole(path) as beside:
        figure.savefig(beside, dpi=110)
