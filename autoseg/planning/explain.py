"""A plan as a page that a radiologist can follow: questions, and under each the decisions, their figures and what would change them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from autoseg.planning.reasons import times
from autoseg.planning.schema import ConfigurationPlan, Plan, Reason

WIDTH = 100
_MOST_NUMBERS = 3
_QUESTIONS = {
    "What are the images?": ("dataset",),
    "At what detail are they looked at?": ("spacing", "3d_lowres", "default_configurations", "configurations"),
    "What does the network see at once?": ("patch_size", "batch_size", "network"),
    "How is brightness treated?": ("intensity",),
    "How is it trained?": ("training", "prediction", "postprocessing", "evaluation"),
    "How are left and right kept apart?": ("mirror_sides", "side_pairs", "orientation"),
    "How are cases split?": ("folds",),
    "What does it need?": ("made_for",),
}
_OTHER = "What else was decided?"
_NAMES = {
    "spacing": "voxel size in mm",
    "patch_size": "piece of the image seen at once, in voxels",
    "batch_size": "pieces looked at in one training step",
    "strides": "levels of detail",
    "features": "width of the network",
    "default_configurations": "trained when nothing else is asked for",
    "mirror_sides": "mirrored scans",
    "test_time_mirrors": "mirrored predictions that are averaged",
    "predict_with": "weights that predict",
    "epochs": "rounds of training",
    "collapse_epochs": "rounds before a collapsed network is rescued",
    "count": "parts",
    "tversky.weight": "weight of the overlap term in the loss",
    "optimiser.name": "how the weights are adapted",
    "norm.name": "normalisation inside the network",
    "3d_lowres": "a coarser first look (3d_lowres)",
    "transforms": "how far training turns the images, in degrees",
    "orientation": "axes that the images are brought to",
}
_WORDS = {
    "lps": "the patient's (lps)",
    "exchange": "the labels of a pair change sides (exchange)",
    "keep": "never left to right (keep)",
    "zscore": "scaled by mean and deviation (zscore)",
    "clip": "limited to a window (clip)",
    "rescale": "mapped to a fixed range (rescale)",
    "hu": "Hounsfield units:",
    "windowed": "windowed values:",
}
_FIGURES = {
    "elements": "numbers in the network's feature maps",
    "limit": "the most that the machine is given of them",
    "shrunk": "times shortened",
    "forecast_gb": "forecast memory",
    "allowed_gb": "allowed memory",
    "by_memory": "pieces that memory bears",
    "by_data": "pieces that the data bear",
    "smallest": "smallest spacing",
    "largest": "largest spacing",
}
_UNITS = {"spacing": "mm", "smallest": "mm", "largest": "mm", "size": "voxels", "shape": "voxels", "gb": "GB", "tilt": "degrees"}


def explain(plan: Plan) -> str:
    """The plan in words, by question: each decision, the figures behind it, what would change it, and its plan key in brackets."""
    lines = [f"Plan for {plan.dataset.name} by recipe {plan.recipe}", ""]
    if plan.recipe_options:
        lines += [*_wrapped(f"You asked for: {json.dumps(plan.recipe_options)}."), ""]
    facts = _facts(plan)
    for question in (*_QUESTIONS, _OTHER):
        reasons = [r for r in plan.reasons if _question(r.decision) == question]
        if question not in facts and not reasons:
            continue
        lines.append(question)
        for fact in facts.get(question, ()):
            lines += _wrapped(fact, "  ")
        for key in dict.fromkeys(r.decision for r in reasons):
            lines += ["", *_decision([r for r in reasons if r.decision == key])]
        lines.append("")
    return "\n".join(lines)


def _question(key: str) -> str:
    """The question that a plan key answers: the one that names its most particular part."""
    for part in reversed(key.split(".")):
        for question, parts in _QUESTIONS.items():
            if part in parts:
                return question
    return _OTHER


def _facts(plan: Plan) -> dict[str, list[str]]:
    """For each question what the plan says, in sentences, before the reasons."""
    data, labels, training = plan.dataset, plan.dataset.label_set(), plan.training
    median = data.original_median
    kind = "overlapping regions" if labels.regions else "labels"
    pairs = ", ".join(f"{left} / {right}" for left, right in data.side_pairs)
    most = "at most " if training.early_stop else ""
    axes = "in the patient's axes" if data.orientation == "lps" else "as the files store them"
    return {
        "What are the images?": [
            f"Each case has {', '.join(data.channels)}; the network learns these {kind}: {', '.join(labels.names)}.",
            f"The median case has {times(median.shape)} voxels (slices, rows, columns) of {times(median.spacing)} mm, read {axes}.",
        ],
        "At what detail are they looked at?": [_detail(plan, name, c) for name, c in plan.configurations.items()],
        "What does the network see at once?": [_seen(name, c) for name, c in plan.configurations.items()],
        "How is it trained?": [
            f"For {most}{training.epochs} rounds (epochs) of {training.steps_per_epoch} steps with {training.optimiser.name}; the "
            f"learning rate starts from {training.optimiser.lr:g} and follows {training.schedule.name}."
        ],
        "How are left and right kept apart?": [f"Labels that are each other's mirror image: {pairs or 'no pair of labels'}."],
        "How are cases split?": [f"Into {plan.folds.count} parts (folds)."],
        "What does it need?": [
            f"The plan is made for {plan.made_for.device} with {plan.made_for.memory_gb:g} GB.",
            *(
                f"{name}: {f.training_memory_gb:.1f} GB of memory to train, {f.prediction_memory_gb:.1f} GB to predict, "
                f"{f.disk_gb:.2f} GB of disk (forecast)."
                for name, f in plan.forecast.items()
            ),
        ],
    }


def _detail(plan: Plan, name: str, c: ConfigurationPlan) -> str:
    mark, note = (" *", " (* is trained and used when no --config is given.)") if name in plan.default_configurations else ("", "")
    return f"{name}{mark}: voxels of {times(c.spacing)} mm; the median case then has {times(c.median_shape)} voxels.{note}"


def _seen(name: str, c: ConfigurationPlan) -> str:
    mm = times([p * s for p, s in zip(c.patch_size, c.spacing, strict=True)], 3)
    return f"{name}: {c.batch_size} pieces of {times(c.patch_size)} voxels ({mm} mm), on {len(c.network.features)} levels of detail."


def _decision(reasons: list[Reason]) -> Iterator[str]:
    """One decision: its name and last value, then for each reason the figures, what would change it, and the plan key."""
    key = reasons[0].decision
    value = next((text for r in reversed(reasons) if (text := _short(r.value))), "")
    if key.endswith(".transforms") and isinstance(reasons[-1].value, dict):
        value = ", ".join(f"about {axis} {_turn(limits)}" for axis, limits in reasons[-1].value.items())
    yield from _wrapped(f"{_name(key)}: {value or 'none'}", "  - ", "    ")
    for reason in reasons:
        yield from _wrapped(f"{reason.because}.", "    ")
        figures = [f"{_FIGURES.get(k, k.replace('_', ' '))} {text}{_unit(k)}" for k, v in reason.figures.items() if (text := _short(v))]
        if figures:
            yield from _wrapped(f"Figures: {', '.join(figures)}.", "    ")
        yield from _wrapped(f"It would be another if {reason.would_change_if}. [{key}]", "    ")


def _turn(limits: object) -> str:
    return f"{limits[0]:g} to {limits[1]:g}" if isinstance(limits, list | tuple) and len(limits) == 2 else _short(limits)


def _name(key: str) -> str:
    """What a radiologist would call the decision, with the configuration that it belongs to."""
    parts = key.removeprefix("configurations.").split(".")
    name = _NAMES.get(".".join(parts[-2:])) or _NAMES.get(parts[-1]) or parts[-1].replace("_", " ")
    return f"{parts[0]}, {name}" if key.startswith("configurations.") and len(parts) > 1 else name


def _unit(figure: str) -> str:
    unit = _UNITS.get(figure.split("_")[-1])
    return f" {unit}" if unit else ""


def _short(value: object) -> str:
    """A value in words; empty for one that says nothing, or would be a row of many numbers or nested lists."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, dict):
        entries = [f"{_WORDS.get(k, k.replace('_', ' '))} {text}" for k, v in value.items() if (text := _short(v))]
        return ", ".join(entries)
    if isinstance(value, list | tuple):
        return _listed(list(value))
    return _WORDS.get(value, value) if isinstance(value, str) else str(value)


def _listed(values: list[object]) -> str:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers and values:
        if len(values) <= _MOST_NUMBERS:
            return times(values, 4)
        return f"{values[0]:g} to {values[-1]:g} on {len(values)} levels" if len(values) < 12 else f"{len(values)} numbers"
    if values and all(isinstance(v, list | tuple) for v in values):
        if all(isinstance(x, int | float) for v in values for x in v):
            return f"{len(values)} levels"
        return "; ".join(" / ".join(_short(x) for x in v) for v in values)
    return ", ".join(_short(v) for v in values)


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    indent = first if rest is None else rest
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
