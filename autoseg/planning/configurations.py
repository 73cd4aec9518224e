"""The configurations of a plan: spacing, median size, patch, batch and network of each (peer 2.2 to 2.8)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from autoseg.errors import PlanError
from autoseg.planning import spacing as spacings
from autoseg.planning.figures import Figures
from autoseg.planning.overrides import Given, Request, given_for
from autoseg.planning.reasons import reason, times
from autoseg.planning.recipe import Recipe
from autoseg.planning.rules import FixedPatch, FixedSpacing, FixedTopology
from autoseg.planning.schema import ConfigurationPlan, MadeFor, Reason
from autoseg.planning.shapes import Frame, Shape, configuration_of, shape_of
from autoseg.planning.topology import Fit


def plan_configurations(
    figures: Figures, recipe: Recipe, machine: MadeFor, wanted: Request
) -> tuple[dict[str, ConfigurationPlan], list[Reason]]:
    """Every configuration that the recipe and the data call for, in the peer's order, with reasons.

    Raises:
        PlanError: the recipe cannot plan these data, or a given value is impossible.
        ResourceError: no patch fits in the memory.
    """
    frame, reasons = _frame(figures, recipe, machine, wanted)
    made = recipe.rules.configurations.made
    median = frame.median(frame.target, frame.given("3d_fullres"))
    planar = _planar(frame, median)
    if planar:
        why = f"The {len(figures.cases)} cases are 2D images; this is their median pixel size"
        facts = {"smallest": figures.spacings.min(0)[1:], "largest": figures.spacings.max(0)[1:]}
        reasons = [reason("configurations.2d.spacing", frame.target[1:], why, "the images had other pixel sizes", **facts)]
    shapes: dict[str, Shape] = {}
    if "2d" in made:
        shapes["2d"] = _shape_2d(frame, median)
    if not planar and "3d_fullres" in made:
        full = shape_of(frame, "3d_fullres", frame.target, median, float(np.prod(median)) * figures.training_cases)
        low, why = _lowres(frame, full) if "3d_lowres" in made else (None, [])
        shapes |= ({} if low is None else {"3d_lowres": low}) | {"3d_fullres": full}
        reasons += why
    if not shapes:
        raise PlanError(
            f"recipe {recipe.name} plans 3D networks, and the cases of {figures.name} are 2D images", remedy="Use --recipe auto"
        )
    configurations = {name: configuration_of(frame, shape, "3d_lowres" in shapes) for name, shape in shapes.items()}
    if "3d_lowres" in shapes and "3d_cascade_fullres" in made:
        configurations |= _cascade(frame, shapes["3d_fullres"], configurations)
        reasons.append(_cascade_reason(frame, shapes["3d_lowres"]))
    for shape in shapes.values():
        reasons += _reasons(frame, shape, configurations[shape.name])
    return configurations, reasons


def _planar(frame: Frame, median: np.ndarray) -> bool:
    """Whether the cases are single slices (peer 2.4); a fixed spacing says nothing of it, the sizes do."""
    if isinstance(frame.recipe.rules.spacing, FixedSpacing):
        return bool(np.median(frame.figures.shapes[:, frame.order[0]]) == 1)
    return bool(median[0] == 1)


def _frame(figures: Figures, recipe: Recipe, machine: MadeFor, wanted: Request) -> tuple[Frame, list[Reason]]:
    """Target spacing and axis order, with reasons."""
    rules, values = recipe.rules, recipe.values.configuration
    given = given_for("3d_fullres", wanted, rules.configurations.made)
    sizes = figures.sizes(given.crop or values.crop)
    median = np.percentile(figures.spacings, 50, axis=0)
    n = len(figures.cases)
    facts = {"cases": n, "median_spacing": median, "smallest": figures.spacings.min(0), "largest": figures.spacings.max(0)}
    if given.spacing is not None:
        target = np.array(given.spacing, dtype=float)
        why = f"You gave it. The median of the {n} cases is {times(median)} mm"
        change = "you gave another"
    elif isinstance(rules.spacing, FixedSpacing):
        target = spacings.fixed_spacing(figures.spacings, sizes, rules.spacing, _least_edge(recipe, given))
        facts |= {"median_size": np.percentile(sizes, 50, axis=0)}
        why = f"The recipe {recipe.name} works at {times(rules.spacing.spacing)} mm; the median of the {n} cases is {times(median)} mm"
        if not np.array_equal(target, rules.spacing.spacing):
            why += f". At that spacing the median case would be too short for the network's levels, so it is finer here: {times(target)} mm"
        change = "the recipe were another, or the scans too small for the network at this spacing"
    else:
        target = spacings.median_spacing(figures.spacings, sizes, rules.spacing)
        why, change = _median_reason(figures, sizes, target, median, rules.spacing.anisotropy, rules.spacing.percentile)
        facts |= {"median_size": np.percentile(sizes, 50, axis=0)}
    order = spacings.axis_order(target, rules.transpose)
    name = "3d_fullres" if "3d_fullres" in rules.configurations.made else "2d"
    reasons = [reason(f"configurations.{name}.spacing", target, why, change, **facts)]
    if order != (0, 1, 2):
        reasons.append(
            reason(
                f"configurations.{name}.transpose",
                order,
                f"Axis {order[0]} has the coarsest voxels ({target[order[0]]:.4g} mm) and comes first inside, where slices are stacked",
                "another axis were the coarsest",
                target_spacing=target,
            )
        )
    return Frame(figures, recipe, machine, wanted, target[list(order)], order), reasons


def _median_reason(
    figures: Figures, sizes: np.ndarray, target: np.ndarray, median: np.ndarray, anisotropy: float, percentile: float
) -> tuple[str, str]:
    why = f"The median voxel of the {len(figures.cases)} cases is {times(median)} mm, so that most cases are resampled little"
    if spacings.coarse(median, np.percentile(sizes, 50, axis=0), anisotropy):
        worst = int(np.argmax(median))
        why += (
            f". Axis {worst} is more than {anisotropy:g} times as coarse and shorter than the others: it gets the spacing of the finer "
            f"cases (percentile {percentile:g}: {target[worst]:.4g} mm), for upsampling thick slices loses less than merging thin ones"
        )
        return why, f"the slices were less than {anisotropy:g} times as thick as the voxels are wide, or the thinner scans thicker"
    return why, "the median of the cases' spacings were another"


def _least_edge(recipe: Recipe, given: Given) -> tuple[int, int, int]:
    """What each axis must measure at least, for the network's levels to divide it."""
    rule = recipe.rules.topology
    if isinstance(rule, FixedTopology):
        edge = rule.stride ** (len(given.features or rule.features) - 1)
    else:
        edge = 2 * rule.smallest_edge
    return (edge, edge, edge)


def _shape_2d(frame: Frame, median: np.ndarray) -> Shape:
    given = frame.given("2d")
    target = frame.target[1:] if given.spacing is None else np.array(given.spacing, dtype=float)
    plane = median[1:] if given.spacing is None else frame.median(np.array([frame.target[0], *target]), given)[1:]
    if isinstance(frame.recipe.rules.patch, FixedPatch):
        raise PlanError(
            f"recipe {frame.recipe.name} has a fixed 3D patch and cannot plan 2d", remedy="Leave 2d out of rules.configurations.made"
        )
    return shape_of(frame, "2d", target, plane, float(np.prod(median)) * frame.figures.training_cases)


def _lowres(frame: Frame, full: Shape) -> tuple[Shape | None, list[Reason]]:
    """A coarser first stage, where the patch shows too little of the case (peer 2.8)."""
    rule, given = frame.recipe.rules.lowres, frame.given("3d_lowres")
    whole = math.prod(full.median)
    share = math.prod(full.fit.levels.patch) / whole
    low, target = None, np.array(full.spacing)
    if given.spacing is not None:
        target = np.array(frame.inside(given.spacing), dtype=float)
        median = np.array(full.spacing) / target * np.array(full.median)
        low = shape_of(frame, "3d_lowres", target, [round(m) for m in median], float(np.prod(median)) * frame.figures.training_cases)
        return low, [reason("configurations.3d_lowres.spacing", low.spacing, "You gave it", "you gave another")]
    patch, voxels = math.prod(full.fit.levels.patch), whole
    while patch / voxels < rule.below:
        coarsest = max(target)
        finer = coarsest / target > rule.anisotropy
        target[finer if finer.any() else slice(None)] *= rule.step
        median = np.array(full.spacing) / target * np.array(full.median)
        voxels = float(np.prod(median))
        low = shape_of(frame, "3d_lowres", target, [round(m) for m in median], voxels * frame.figures.training_cases)
        patch = math.prod(low.fit.levels.patch)
    if low is not None and whole / voxels < rule.least_gain:
        low = None
    facts = {"share_of_median_case": share, "median_shape": spacings.as_read(full.median, frame.order)}
    if low is None:
        why = f"A full-resolution patch shows {share:.0%} of the median case, so a coarser first stage would gain little"
        change = f"the patch showed less than {rule.below:.0%} of the median case"
        return None, [reason("configurations.3d_lowres", None, why, change, **facts)]
    why = (
        f"A full-resolution patch shows {share:.1%} of the median case, less than {rule.below:.0%}; a first stage at "
        f"{times(low.spacing)} mm sees enough at once, and a second one refines what it found"
    )
    value = spacings.as_read(low.spacing, frame.order)
    return low, [reason("configurations.3d_lowres.spacing", value, why, "the cases were smaller or the memory larger", **facts)]


def _cascade(frame: Frame, full: Shape, made: dict[str, ConfigurationPlan]) -> dict[str, ConfigurationPlan]:
    """The second stage: full resolution, which also sees what the first stage found."""
    given = frame.given("3d_cascade_fullres")
    by_forecast = getattr(frame.recipe.rules.patch, "share_of_memory", None) is not None  # it has more channels than full resolution
    alike = given == full.given and not by_forecast
    own = full if alike else shape_of(frame, "3d_cascade_fullres", full.spacing, full.median, full.voxels)
    second = configuration_of(frame, replace(own, name="3d_fullres"), True).model_copy(update={"previous_stage": "3d_lowres"})
    first = made["3d_lowres"].model_copy(update={"next_stage": "3d_cascade_fullres"})
    return {"3d_lowres": first, "3d_cascade_fullres": second}


def _cascade_reason(frame: Frame, low: Shape) -> Reason:
    share = min(1.0, math.prod(low.fit.levels.patch) / math.prod(low.median))
    names = frame.figures.labels.names
    return reason(
        "configurations.3d_cascade_fullres.previous_stage",
        low.name,
        f"Beside the image it is shown what {low.name}, whose patch covers {share:.0%} of the median case, has found of each label; in "
        "training that is always what a fold found which had not seen the case",
        "there were no first stage",
        share_of_median_case=share,
        channels_added=len(names),
    )


def _reasons(frame: Frame, shape: Shape, plan: ConfigurationPlan) -> list[Reason]:
    """Why patch, levels and batch of one configuration came out as they did."""
    key, fit, given = f"configurations.{shape.name}", shape.fit, shape.given
    facts = {"median_shape": plan.median_shape, "cases": len(frame.figures.cases), "elements": fit.elements}
    rule = frame.recipe.rules.patch
    if given.patch_size is not None:
        patch, change = f"You gave it; the median case measures {times(plan.median_shape)} voxels at this spacing", "you gave another"
    elif isinstance(rule, FixedPatch):
        patch, change = _fixed_patch_reason(rule, plan), "the recipe were another, or the cases smaller"
    else:
        patch = f"It starts as wide in every direction, but no larger than the median case of {times(plan.median_shape)} voxels"
        if fit.shrunk:
            patch += (
                f", and was shortened {fit.shrunk} times along its relatively longest side, until the network's feature maps "
                "stay within what the machine bears"
            )
        else:
            patch += ", rounded up to what the network's levels divide; the machine bears that"
        facts |= {"limit": fit.limit, "shrunk": fit.shrunk}
        change = "the cases were smaller, the voxels coarser, or the machine's memory or kind another"
    if fit.needed_gb is not None:
        patch += _forecast_reason(fit, frame.machine)
        facts |= {"forecast_gb": round(fit.needed_gb, 2), "allowed_gb": round(fit.allowed_gb, 2)}
    reasons = [reason(f"{key}.patch_size", plan.patch_size, patch, change, **facts)]
    if shape.name != "2d" or "3d_fullres" not in frame.recipe.rules.configurations.made:
        deepest = [p // d for p, d in zip(plan.patch_size, plan.network.divisor, strict=True)]
        depth = (
            f"Each level halves the axes of like spacing while they are long enough; at {times(plan.spacing)} mm and "
            f"{times(plan.patch_size)} voxels that gives {len(fit.features)} levels, the deepest of {times(deepest)} voxels"
        )
        change = "spacing or patch were others"
        if isinstance(frame.recipe.rules.topology, FixedTopology) or given.strides is not None:
            depth, change = f"{'You' if given.strides is not None else 'The recipe'} gave them", "others were given"
        reasons.append(reason(f"{key}.network.strides", plan.network.strides, depth, change, levels=len(fit.features)))
    reasons.append(_batch_reason(key, frame, shape))
    return reasons


def _forecast_reason(fit: Fit, machine: MadeFor) -> str:
    why = (
        f". A training step is forecast to take {fit.needed_gb:.1f} GB; of the {machine.memory_gb:g} GB of {machine.device} memory "
        f"{fit.allowed_gb:.1f} GB are for it"
    )
    return why if fit.needed_gb <= fit.allowed_gb else f"{why}, so it may well not fit"


def _fixed_patch_reason(rule: FixedPatch, plan: ConfigurationPlan) -> str:
    why = f"The recipe's patch is {times(rule.patch_size)} voxels; the median case measures {times(plan.median_shape)} at this spacing"
    smaller = [axis for axis in range(3) if plan.patch_size[axis] < rule.patch_size[axis]]
    if smaller:
        why += f". It shrinks on axis {', '.join(map(str, smaller))}, where the case is shorter, to the next size that the strides divide"
    return why


def _batch_reason(key: str, frame: Frame, shape: Shape) -> Reason:
    fit, rule = shape.fit, frame.recipe.rules.patch
    if shape.given.batch_size is not None:
        return reason(f"{key}.batch_size", fit.batch, "You gave it", "you gave another")
    if isinstance(rule, FixedPatch):
        return reason(f"{key}.batch_size", fit.batch, f"The recipe {frame.recipe.name} says so", "the recipe were another")
    why = (
        f"The machine bears {fit.by_memory} patches of this size; no more than {fit.by_data} keep one batch within {rule.covered:.0%} "
        f"of all voxels of the {len(frame.figures.cases)} cases, and fewer than {rule.smallest_batch} are never taken"
    )
    most = rule.largest_batch.of(len(shape.spacing))
    why += "" if most is None else f"; on this kind of machine no more than {most:g}, since more steps teach more than larger ones"
    return reason(
        f"{key}.batch_size",
        fit.batch,
        why,
        "patch, memory or the number of cases were others",
        by_memory=fit.by_memory,
        by_data=fit.by_data,
        voxels_in_all_cases=shape.voxels,
    )
