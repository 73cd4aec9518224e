"""A plan as a page that a radiologist can follow."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from autoseg.planning.reasons import times
from autoseg.planning.schema import ConfigurationPlan, Plan, Reason

WIDTH = 110
_TOPICS = {
    "made_for": "The machine",
    "dataset": "The data",
    "default_configurations": "What is trained",
    "configurations": "What the network sees",
    "intensity": "Intensities",
    "training": "Training",
    "prediction": "Prediction",
    "postprocessing": "Postprocessing",
    "evaluation": "Scores",
    "folds": "Cross-validation",
}


def explain(plan: Plan) -> str:
    """The plan in words: what it is for, each configuration, then every decision with its figures and what would change it."""
    return "\n".join([*_head(plan), "", *_table(plan), "", *_decisions(plan)]) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    data, labels = plan.dataset, plan.dataset.label_set()
    yield f"Plan for {data.name} by recipe {plan.recipe}, made for {plan.made_for.device} with {plan.made_for.memory_gb:g} GB"
    yield f"  channels   {', '.join(data.channels)}"
    kind = "overlapping regions" if labels.regions else "labels"
    yield from _wrapped(f"{kind}: {', '.join(labels.names)}", "  outputs    ", "             ")
    pairs = ", ".join(f"{left} / {right}" for left, right in data.side_pairs)
    yield f"  left/right {pairs or 'no pair of labels'}; mirroring: {plan.training.augmentation.mirror_sides}"
    voxel, size = times(data.original_median.spacing), times(data.original_median.shape)
    yield f"  median     {size} voxels of {voxel} mm (slices, rows, columns), read {_orientation(plan)}"
    yield f"  training   {_length(plan)}"
    if plan.recipe_options:
        yield f"  you gave   {json.dumps(plan.recipe_options)}"


def _orientation(plan: Plan) -> str:
    return "in the patient's axes" if plan.dataset.orientation == "lps" else "as the files store them"


def _length(plan: Plan) -> str:
    t = plan.training
    most = "at most " if t.early_stop else ""
    length = f"{plan.folds.count} folds, {most}{t.epochs} epochs of {t.steps_per_epoch} steps"
    return f"{length}, {t.optimiser.name} at {t.optimiser.lr:g}, {t.schedule.name}"


def _table(plan: Plan) -> Iterator[str]:
    rows = [("configuration", "spacing mm", "median case", "patch", "batch", "levels", "widths", "memory", "disk")]
    for name, c in plan.configurations.items():
        forecast = plan.forecast.get(name)
        need = ("-", "-") if forecast is None else (f"{forecast.training_memory_gb:.1f} GB", f"{forecast.disk_gb:.1f} GB")
        rows.append(
            (
                _starred(plan, name),
                times(c.spacing),
                times(c.median_shape),
                times(c.patch_size),
                str(c.batch_size),
                str(len(c.network.features)),
                _widths(c),
                *need,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield "* trained and used when no --config is given"


def _starred(plan: Plan, name: str) -> str:
    return f"{name} *" if name in plan.default_configurations else name


def _widths(configuration: ConfigurationPlan) -> str:
    features = configuration.network.features
    return f"{features[0]}..{features[-1]}"


def _decisions(plan: Plan) -> Iterator[str]:
    for topic, title in _TOPICS.items():
        reasons = [r for r in plan.reasons if r.decision.split(".")[0] == topic]
        if not reasons:
            continue
        yield title
        for decision in dict.fromkeys(r.decision for r in reasons):
            for number, r in enumerate(r for r in reasons if r.decision == decision):
                yield from _decision(r, repeated=number > 0)
        yield ""


def _decision(r: Reason, *, repeated: bool) -> Iterator[str]:
    if not repeated:
        yield from _wrapped(f"{r.decision.removeprefix('configurations.')} = {_short(r.value)}", "  ", "      ")
    yield from _wrapped(f"{r.because}.", "    ", "    ")
    if figures := {k: v for k, v in r.figures.items() if v not in (None, [], {})}:
        yield from _wrapped("figures: " + ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in figures.items()), "    ", "      ")
    yield from _wrapped(f"It would be another if {r.would_change_if}.", "    ", "    ")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and value and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return times(value, 6) if len(value) in (2, 3) else ", ".join(f"{v:g}" for v in value)
    if isinstance(value, str):
        return value
    return json.dumps(value)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)
