"""A plan made for other data, taken as a recipe: so a network can be trained on one dataset and go on with another.

What networks and prepared images depend on is that plan's: spacing, patch, batch, network, resampling, intensity steps. What these
data decide is decided anew: sizes, labels and sides, folds, the loss's weights by label.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autoseg.errors import PlanError
from autoseg.files import digest
from autoseg.planning.figures import Channel, Figures
from autoseg.planning.intensity_steps import Intensity, with_given, without_masks
from autoseg.planning.overrides import Request
from autoseg.planning.reasons import reason, times
from autoseg.planning.recipe import Recipe, Taken
from autoseg.planning.recipe_files import list_recipes, read_recipe
from autoseg.planning.rules import IntensityRule
from autoseg.planning.schema import ConfigurationPlan, IntensityPlan, Plan, Reason, StartPlan
from autoseg.planning.spacing import as_read, median_shape


def recipe_from_plan(plan: Plan) -> Recipe:
    """A recipe that plans as `plan` does; rules for what is decided anew are those of its own recipe, or of `auto`."""
    base = read_recipe(plan.recipe if plan.recipe in list_recipes() else "auto")
    origin = f"the plan of {plan.dataset.name} (recipe {plan.recipe})"
    content = plan.model_dump(mode="json", exclude={"forecast", "reasons", "autoseg_version"})
    labels = plan.dataset.label_set()
    taken = Taken(
        origin=origin,
        channels=list(plan.dataset.channels),
        labels=list(labels.names),
        default_configurations=plan.default_configurations,
        configurations=plan.configurations,
        intensity=[plan.intensity[channel] for channel in plan.dataset.channels],
    )
    loss, start = plan.training.loss, StartPlan.model_validate(base.values.training.start.model_dump())
    if base.rules.mean_over_classes:  # the rule divides by the number of classes again
        classes = len(labels.names) + (1 if loss.tversky.background and not labels.regions else 0)
        loss = loss.model_copy(update={"tversky": loss.tversky.model_copy(update={"weight": loss.tversky.weight * classes})})
    values = base.values.model_copy(
        update={
            "orientation": plan.dataset.orientation,
            "training": plan.training.model_copy(update={"loss": loss, "start": start, "budget_seconds": None}),
            "prediction": plan.prediction,
            "evaluation": plan.evaluation.model_copy(update={"tolerance_mm": {}}),
            "postprocessing": [],
        }
    )
    rules = base.rules.model_copy(
        update={
            "rotation": base.rules.rotation.model_copy(update={"rule": "as_written"}),
            "configurations": base.rules.configurations.model_copy(update={"default": plan.default_configurations[0]}),
            "sides": base.rules.sides.model_copy(update={"mirrored": "as_written"}),
            "mirrors_at_test_time": "as_written",
        }
    )
    return base.model_copy(
        update={
            "name": f"plan of {plan.dataset.name} ({digest(content)[:6]})",
            "about": f"Plans like {origin}.",
            "reference_machine": plan.made_for,
            "obeys_machine": False,
            "rules": rules,
            "values": values,
            "notes": [],
            "machines": {},
            "taken": taken,
        }
    )


def taken_configurations(figures: Figures, taken: Taken, wanted: Request) -> tuple[dict[str, ConfigurationPlan], list[Reason]]:
    """The other plan's configurations, with the median size that these cases have at their spacing.

    Raises:
        PlanError: they do not fit: another number of channels, volumes for single slices, or a memory that nothing would follow from.
    """
    if wanted.memory_gb is not None:
        raise PlanError(f"--memory changes nothing in {taken.origin}, which is taken as it is", remedy="Leave it out, or use --recipe auto")
    here, there = len(figures.channels), len(taken.intensity)
    if here != there:
        theirs = ", ".join(taken.channels or []) or "not named"
        raise PlanError(
            f"{taken.origin} is for {there} channels ({theirs}), {figures.name} has {here}",
            remedy="Take a plan of data with as many channels, or plan from these data (--recipe auto)",
        )
    planar = bool(np.median(figures.shapes[:, 0]) == 1)
    kept = {name: part for name, part in taken.configurations.items() if not planar or part.network.dimension == 2}
    if not kept:
        raise PlanError(f"{taken.origin} is for volumes, {figures.name} holds single slices", remedy="Use --recipe auto")
    configurations, reasons = {}, [_origin(figures, taken, kept)]
    for name, part in kept.items():
        median = _median(figures, part)
        configurations[name] = part.model_copy(update={"median_shape": median})
        share = np.prod(np.minimum(part.patch_size, median)) / np.prod(median)
        why = (
            f"It is that of {taken.origin}; at this spacing the median case measures {times(median)} voxels, and a patch shows {share:.0%} "
            "of it"
        )
        facts = {"own_median_spacing": np.percentile(figures.spacings, 50, axis=0), "median_shape": median, "patch_size": part.patch_size}
        reasons.append(reason(f"configurations.{name}.spacing", part.spacing, why, "you planned from these data (--recipe auto)", **facts))
    return configurations, reasons


def _origin(figures: Figures, taken: Taken, kept: Iterable[str]) -> Reason:
    labels = list(figures.labels.names)
    why = f"Spacing, patch, batch, network, resampling and intensities are those of {taken.origin}, so that networks trained there fit here"
    if taken.labels is None:
        why += ". Its labels are not known"
    elif taken.labels != labels:
        why += (
            f". It is for other labels ({_few(taken.labels)}; here {_few(labels)}): the last layer has {len(labels)} outputs of labels "
            f"instead of {len(taken.labels)} and starts afresh"
        )
    facts = {"their_labels": taken.labels, "labels": labels, "their_channels": taken.channels}
    return reason("configurations", list(kept), why, "you planned from these data (--recipe auto)", **facts)


def _median(figures: Figures, part: ConfigurationPlan) -> list[float]:
    """Median size of the cases at a configuration's spacing; a triple as read, or a pair."""
    order = list(part.transpose or (0, 1, 2))
    spacings, shapes = figures.spacings[:, order], figures.sizes(part.crop)[:, order]
    inside = part.inside().spacing
    target = np.array(inside if len(inside) == 3 else [float(np.percentile(spacings[:, 0], 50)), *inside])
    median = [float(n) for n in median_shape(spacings, shapes, target, part.resampling.size)]
    return median[1:] if len(inside) == 2 else as_read(median, tuple(order))


def taken_intensity(figures: Figures, taken: Taken, rule: IntensityRule, wanted: Request) -> tuple[Intensity, list[bool], list[Reason]]:
    """The other plan's steps, channel by channel in their order; as `plan_intensity`.

    Raises:
        PlanError: a channel here is of a kind that those steps do not know.
    """
    plans: Intensity = {}
    reasons: list[Reason] = []
    for number, (channel, kinds) in enumerate(zip(figures.channels, taken.intensity, strict=True)):
        name = taken.channels[number] if taken.channels else f"number {number}"
        plans[channel.name] = {kind: _steps(channel, kind, kinds, name, taken) for kind in {**channel.cases, **kinds}}
        why = f"The steps are those of channel {name} in {taken.origin}, with its figures: images look to the network as they did there"
        if taken.channels and name.lower() != channel.title.lower():
            why += f". This channel is called {channel.title}: make sure that it is the same kind of image"
        does = {kind: [s.do for s in (*plan.before_resampling, *plan.after_resampling)] for kind, plan in plans[channel.name].items()}
        reasons.append(reason(f"intensity.{channel.name}", does, why, "you planned from these data (--recipe auto)", cases=channel.cases))
    plans, reasons = with_given(plans, reasons, figures, rule, wanted)
    masks = [any(plan.masked for plan in kinds.values()) for kinds in plans.values()]
    return without_masks(plans, wanted), masks, reasons


def _steps(channel: Channel, kind: str, kinds: dict[str, IntensityPlan], name: str, taken: Taken) -> IntensityPlan:
    """Of a kind; values that each volume is scaled by itself suit every kind."""
    if kind in kinds:
        return kinds[kind]
    if "arbitrary" in kinds:
        return kinds["arbitrary"]
    raise PlanError(
        f"channel {channel.title} has {kind!r} cases, and {taken.origin} has steps for {', '.join(kinds)} only (channel {name})",
        remedy="Take a plan of the same kind of images, or plan from these data (--recipe auto)",
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
