"""Fingerprint to plan: every decision, each with its reason. Reading `decide` is reading how a plan comes about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from autoseg import __version__
from autoseg.data.case import Dataset
from autoseg.errors import PlanError
from autoseg.fingerprint.types import Fingerprint
from autoseg.planning import overrides
from autoseg.planning.configurations import plan_configurations
from autoseg.planning.figures import Figures, from_fingerprint
from autoseg.planning.fold_rules import plan_folds
from autoseg.planning.forecast import forecast
from autoseg.planning.intensity import plan_intensity
from autoseg.planning.norm import with_norm
from autoseg.planning.reasons import reason
from autoseg.planning.recipe import Recipe
from autoseg.planning.schema import ConfigurationPlan, DatasetPlan, MadeFor, OriginalMedian, Plan, Reason
from autoseg.planning.taking import taken_configurations, taken_intensity
from autoseg.planning.training import label_groups, plan_evaluation, plan_prediction, plan_training


def plan(dataset: Dataset, fingerprint: Fingerprint, recipe: Recipe, *, made_for: MadeFor, options: dict[str, Any]) -> Plan:
    """The plan for a measured dataset.

    Args:
        made_for: the machine that trains; recipes that follow the peer's reference machine ignore all but a memory that `options` name.
        options: `{"set": {key: value or text}, "memory_gb": float, "configurations": [names]}`, each optional.

    Raises:
        PlanError: an unknown key, an impossible value, or data that the recipe cannot plan for.
        ResourceError: no patch fits in the memory.
    """
    made = decide(from_fingerprint(dataset, fingerprint), recipe, made_for=made_for, options=options)
    return _regridding(made) if dataset.choices.regrid else made


def decide(figures: Figures, recipe: Recipe, *, made_for: MadeFor, options: dict[str, Any]) -> Plan:
    """The plan for a dataset in figures; see `plan`."""
    wanted = overrides.request(options)
    machine = _machine(recipe, made_for, wanted)
    recipe = overrides.recipe_with(recipe.for_device(machine.device), wanted)

    if recipe.taken is None:
        recipe = with_norm(recipe, figures)
        configurations, reasons = plan_configurations(figures, recipe, machine, wanted)
        intensity, masks, why_intensity = plan_intensity(figures, recipe.rules.intensity, recipe.values.configuration.crop, wanted)
    else:
        configurations, reasons = taken_configurations(figures, recipe.taken, wanted)
        intensity, masks, why_intensity = taken_intensity(figures, recipe.taken, recipe.rules.intensity, wanted)
    configurations = {name: c.model_copy(update={"normalise_in_mask": masks}) for name, c in configurations.items()}
    default, why_default = _default(recipe, configurations, figures, wanted)
    training, why_training = plan_training(figures, recipe, configurations[default[0]], wanted)
    folds, why_folds = plan_folds(figures, recipe, wanted)
    reasons = [_why_machine(recipe, machine), *why_default, *reasons, *why_intensity, *why_training, *why_folds]

    made = Plan(
        autoseg_version=__version__,
        recipe=recipe.name,
        recipe_options=wanted.options(),
        created_from=figures.key,
        made_for=machine,
        default_configurations=default,
        dataset=_dataset(figures, recipe),
        intensity=intensity,
        training=training,
        prediction=plan_prediction(recipe, training, wanted),
        postprocessing=recipe.values.postprocessing,
        evaluation=plan_evaluation(figures, recipe),
        folds=folds,
        configurations=configurations,
        forecast={},
        reasons=[],
    )
    made = overrides.write_into(made, wanted)
    reasons += _given(wanted, made, reasons)
    reasons += _notes(recipe, made, reasons)
    return made.model_copy(update={"forecast": forecast(made, figures), "reasons": reasons})


def _regridding(made: Plan) -> Plan:
    """The plan of a dataset whose channels and labels are resampled when they are read; a model does the same when it predicts."""
    why = reason("dataset.regrid", "to_first", "You gave --regrid to-first", "you left it out")
    dataset = made.dataset.model_copy(update={"regrid": "to_first"})
    return made.model_copy(update={"dataset": dataset, "reasons": [*made.reasons, why]})


def reading_orientation(recipe: Recipe, options: dict[str, Any]) -> str:
    """The axis order that volumes are measured and planned in, which must be known before the fingerprint."""
    return overrides.recipe_with(recipe, overrides.request(options)).values.orientation


def _machine(recipe: Recipe, made_for: MadeFor, wanted: overrides.Request) -> MadeFor:
    machine = made_for if recipe.obeys_machine else recipe.reference_machine
    return machine if wanted.memory_gb is None else machine.model_copy(update={"memory_gb": wanted.memory_gb})


def _why_machine(recipe: Recipe, machine: MadeFor) -> Reason:
    """For what the plan was made, and what that means."""
    value, memory = machine.model_dump(), f"{machine.memory_gb:g} GB"
    if not recipe.obeys_machine:
        why, change = (
            f"The recipe {recipe.name} always plans for its own machine: {machine.device} with {memory}",
            "the recipe were another",
        )
        return reason("made_for", value, why, change)
    if machine.device == "cpu":
        why = (
            f"It was made for a CPU with {memory} of RAM: patch, batch, width and number of steps are such that a CPU trains a fold within "
            "hours, not such that its RAM is full"
        )
    else:
        why = f"It was made for {machine.device} with {memory} of memory, which patch and batch fill as far as that helps"
    return reason("made_for", value, why, "it were made for another: --device cuda --memory GB, also where there is none")


def _default(
    recipe: Recipe, configurations: dict[str, ConfigurationPlan], figures: Figures, wanted: overrides.Request
) -> tuple[list[str], list[Reason]]:
    """What is prepared, trained and used unasked: what --config names, else the recipe's own."""
    own = recipe.rules.configurations.default
    if wanted.configurations:
        default, why = list(wanted.configurations), "You named it with --config"
        require_configurations(default, configurations)
    elif own in configurations:
        default = [own]
        why = "It sees the finest detail, in all three directions" if own == "3d_fullres" else f"The recipe {recipe.name} says so"
    else:
        default, why = [next(iter(configurations))], f"There is no {own}: the cases are 2D images"
    return default, [
        reason(
            "default_configurations",
            default,
            why,
            "you named another with --config",
            cases=len(figures.cases),
            median_size=np.percentile(figures.shapes, 50, axis=0),
        )
    ]


def require_configurations(names: Sequence[str], there: Collection[str]) -> None:
    """Refuse configurations that a plan does not have.

    Raises:
        PlanError: it lacks one.
    """
    for name in names:
        if name not in there:
            remedy = f"Choose among {', '.join(there)}"
            if name in ("3d_lowres", "3d_cascade_fullres") and "3d_fullres" in there:
                remedy += ". A coarse first stage is planned where a patch shows little of a case, or with --set 3d_lowres.spacing=[...]"
            raise PlanError(f"the plan has no configuration {name!r}", remedy=remedy)


def chosen_configurations(plan: Plan, wanted: Sequence[str] | None) -> list[str]:
    """The configurations that a command is about: those that are named, else the plan's own choice.

    Raises:
        PlanError: the plan lacks one.
    """
    names = list(wanted or plan.default_configurations)
    require_configurations(names, plan.configurations)
    return names


def _dataset(figures: Figures, recipe: Recipe) -> DatasetPlan:
    labels, regions = figures.labels, figures.labels.regions
    named = dict(zip(labels.names, labels.values, strict=True))
    sizes = figures.sizes(recipe.values.configuration.crop)
    return DatasetPlan(
        name=figures.name,
        channels=[channel.name for channel in figures.channels],
        labels={"background": labels.background} | ({} if regions else {name: values[0] for name, values in named.items()}),
        regions={name: list(values) for name, values in named.items()} if regions else {},
        region_order=list(zip(labels.names, labels.region_order, strict=True)) if regions else None,
        ignore_label=labels.ignore,
        side_pairs=[(pair.left, pair.right) for pair in figures.pairs],
        groups_of_labels=label_groups(figures, recipe),
        orientation=recipe.values.orientation,
        regrid="none",
        original_median=OriginalMedian(
            spacing=tuple(float(s) for s in np.percentile(figures.spacings, 50, axis=0)),
            shape=tuple(round(float(n)) for n in np.percentile(sizes, 50, axis=0)),
        ),
    )


def _given(wanted: overrides.Request, made: Plan, reasons: list[Reason]) -> list[Reason]:
    """A reason for each given value that no rule has spoken of."""
    spoken = {r.decision for r in reasons if r.because.startswith("You gave it")}
    result = []
    for key, value in wanted.settings.items():
        names = overrides.targets(key, wanted, made.configurations)
        rest = overrides.split_key(key)[1]
        decisions = [f"configurations.{name}.{rest}" for name in names] if names else [key]
        result += [reason(d, value, "You gave it", "you gave another") for d in decisions if d not in spoken]
    if wanted.memory_gb is not None:
        result.append(reason("made_for.memory_gb", wanted.memory_gb, "You gave it", "you gave another"))
    return result


def _notes(recipe: Recipe, made: Plan, reasons: list[Reason]) -> list[Reason]:
    """The recipe's own reasons, with the value as it stands in the plan; of two on one decision the last."""
    content = made.model_dump(mode="json")
    notes = {note.decision: note for note in recipe.notes}
    given = {r.decision for r in reasons if r.because.startswith("You gave it")}
    result = []
    for note in notes.values():
        for decision in _spread(note.decision, made):
            found, value = _look(content, decision)
            if found and decision not in given:
                result.append(reason(decision, value, note.because, note.would_change_if))
    return result


def _spread(decision: str, made: Plan) -> list[str]:
    root, _, rest = decision.partition(".")
    if root == "default":
        return [f"configurations.{name}.{rest}" for name in made.default_configurations]
    return [f"configurations.{decision}"] if root in overrides.CONFIGURATIONS else [decision]


def _look(content: Any, decision: str) -> tuple[bool, Any]:
    for part in decision.split("."):
        if not isinstance(content, dict) or part not in content:
            return False, None
        content = content[part]
    return True, content
