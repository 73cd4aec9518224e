"""Patch, levels and batch of one configuration, from its spacing: as the recipe's rule has them, and as the memory bears."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoseg.errors import PlanError, ResourceError
from autoseg.planning import spacing as spacings
from autoseg.planning.figures import Figures
from autoseg.planning.forecast import Task, training_ram_gb, training_step_gb
from autoseg.planning.overrides import Given, Request, given_for
from autoseg.planning.recipe import Recipe
from autoseg.planning.rules import FixedPatch
from autoseg.planning.schema import BlocksPlan, ConfigurationPlan, MadeFor, NetworkPlan
from autoseg.planning.topology import Design, Fit, Levels, around_given_patch, elements, limit_of, shrink_to_fit, topology

NOT_FITTED = Fit(Levels((), (), ()), (), 0, (), 0, None)


@dataclass(frozen=True)
class Frame:
    """What all configurations share. target: spacing of full resolution, inside order; order: axis order inside."""

    figures: Figures
    recipe: Recipe
    machine: MadeFor
    wanted: Request
    target: np.ndarray
    order: tuple[int, int, int]

    def given(self, name: str) -> Given:
        return given_for(name, self.wanted, self.recipe.rules.configurations.made)

    def median(self, target: np.ndarray, given: Given) -> np.ndarray:
        """Median size of the cases at a spacing; both in inside order."""
        values = self.recipe.values.configuration
        sizes = self.figures.sizes(given.crop or values.crop)
        order = list(self.order)
        return spacings.median_shape(self.figures.spacings[:, order], sizes[:, order], target, given.size or values.resampling.size)

    def inside(self, triple: Sequence) -> tuple:
        """A triple as read (pairs stay) in inside order."""
        return tuple(triple) if len(triple) == 2 else tuple(triple[axis] for axis in self.order)


@dataclass(frozen=True)
class Shape:
    """One configuration before it becomes part of the plan; axes inside. median, voxels: of the cases at its spacing."""

    name: str
    spacing: tuple[float, ...]
    median: tuple[float, ...]
    voxels: float
    fit: Fit
    given: Given


def design_of(frame: Frame, given: Given) -> Design:
    kind = given.kind or frame.recipe.values.configuration.network.kind
    if kind not in ("unet", "residual_unet"):
        raise PlanError(f"--set network.kind={kind}: it is unet or residual_unet", remedy="Correct --set")
    blocks = getattr(frame.recipe.rules.blocks, kind)

    def inside(entries: list[list[int]] | None) -> tuple | None:
        return None if entries is None else tuple(frame.inside(entry) for entry in entries)

    return Design(
        residual=kind == "residual_unet",
        encoder=tuple(given.encoder or blocks.encoder),
        decoder=tuple(given.decoder or (blocks.decoder,)),
        outputs=frame.figures.label_entries,
        features=None if given.features is None else tuple(given.features),
        strides=inside(given.strides),
        kernels=inside(given.kernels),
    )


def shape_of(frame: Frame, name: str, target: Sequence[float], median: Sequence[float], voxels: float) -> Shape:
    """Patch, levels and batch of one configuration; axes inside."""
    rules, given = frame.recipe.rules, frame.given(name)
    design = design_of(frame, given)
    patch = None if given.patch_size is None else frame.inside(given.patch_size)
    shape = Shape(name, tuple(float(s) for s in target), tuple(float(m) for m in median), voxels, NOT_FITTED, given)
    if isinstance(rules.patch, FixedPatch):
        fit = _fixed(frame, target, median, design, patch)
        return replace(shape, fit=fit if given.batch_size is None else replace(fit, batch=given.batch_size))
    return _within_memory(frame, shape, design, patch)


def _within_memory(frame: Frame, shape: Shape, design: Design, patch: tuple[int, ...] | None) -> Shape:
    """Patch and batch within the recipe's count of elements; where it names a share of the memory, within that by forecast too.

    A forecast that is too large lowers the count in proportion, and the peer's rule shrinks patch and batch by it; a given patch stays.

    Raises:
        ResourceError: nothing is small enough.
    """
    rule, levels_rule, given = frame.recipe.rules.patch, frame.recipe.rules.topology, shape.given
    limit = limit_of(rule, len(shape.spacing), frame.machine.memory_gb)
    while True:
        how = (shape.voxels, rule, levels_rule, design, limit)
        try:
            fit = shrink_to_fit(shape.spacing, shape.median, *how) if patch is None else around_given_patch(shape.spacing, patch, *how)
        except ResourceError as error:
            raise ResourceError(f"planning for {frame.machine.memory_gb:g} GB: {error.message}", remedy=error.remedy) from None
        shape = replace(shape, fit=fit if given.batch_size is None else replace(fit, batch=given.batch_size))
        if rule.share_of_memory is None:
            return shape
        needed, allowed = _forecast_gb(frame, shape)
        if allowed <= 0:
            raise ResourceError(
                f"{frame.machine.memory_gb:g} GB are too little to train in: the programs alone take {-allowed:.2f} GB more than the "
                f"{rule.share_of_memory:.0%} of it that may be used",
                remedy="Allow more --memory",
            )
        shape = replace(shape, fit=replace(shape.fit, needed_gb=needed, allowed_gb=allowed))
        if needed <= allowed or (patch is not None and (given.batch_size is not None or fit.batch <= rule.smallest_batch)):
            return shape
        of_two = max(fit.batch, 2 if rule.shrink == "per_two" else rule.reference_batch.of(len(shape.spacing)))
        used = fit.elements * of_two / rule.reference_batch.of(len(shape.spacing))
        limit = min(limit, used) * min(allowed / needed, 0.95)


def _forecast_gb(frame: Frame, shape: Shape) -> tuple[float, float]:
    """What a training step is forecast to take of the device's memory, and the share that it may take.

    Where the device's memory is the machine's, the imports, waiting samples and a data worker come off it.
    """
    labels, machine, plan = frame.figures.labels, frame.machine, configuration_of(frame, shape, False)
    found = len(labels.names) if shape.name == "3d_cascade_fullres" else 0
    task = Task(len(frame.figures.channels) + found, labels.outputs, labels.regions)
    allowed = frame.recipe.rules.patch.share_of_memory * machine.memory_gb
    if machine.device != "cuda":
        allowed -= training_ram_gb(plan, frame.recipe.values.training, task, workers=1)
    return training_step_gb(plan, frame.recipe.values.training, task, machine.device), allowed


def _fixed(frame: Frame, target: Sequence[float], median: Sequence[float], design: Design, given: tuple[int, ...] | None) -> Fit:
    """The recipe's patch, no larger than the median case rounded up to what the strides divide; or the given one."""
    rule = frame.recipe.rules.patch
    patch = given or frame.inside(rule.patch_size)
    levels, features = topology(target, patch, frame.recipe.rules.topology, design)
    if given is None:
        fitting = tuple(min(p, math.ceil(m / d) * d) for p, m, d in zip(levels.patch, median, levels.divisor, strict=True))
        levels = Levels(fitting, levels.strides, levels.kernels)
    return Fit(levels, features, rule.batch_size, patch, elements(levels, features, design), None)


def configuration_of(frame: Frame, shape: Shape, has_lowres: bool) -> ConfigurationPlan:
    """The plan's entry, axes as read."""
    values, given, fit = frame.recipe.values.configuration, shape.given, shape.fit
    dimension = len(shape.spacing)

    def read(axes: Sequence) -> list:
        return list(axes) if dimension == 2 else spacings.as_read(axes, frame.order)

    encoder, decoder = design_of(frame, given).units(len(fit.features))
    network = values.network.model_dump() | {"kind": given.kind or values.network.kind}
    pooled = {"always": True, "never": False, "peer": shape.name == "2d" or (shape.name == "3d_fullres" and has_lowres)}
    return ConfigurationPlan(
        spacing=read(shape.spacing),
        median_shape=read(shape.median),
        patch_size=read(fit.levels.patch),
        batch_size=fit.batch,
        transpose=None if frame.order == (0, 1, 2) else frame.order,
        crop=values.crop,
        padding=values.padding,
        normalise_in_mask=[False] * len(frame.figures.channels),
        resampling=values.resampling,
        network=NetworkPlan(
            **network,
            dimension=dimension,
            features=list(fit.features),
            strides=[read(s) for s in fit.levels.strides],
            kernels=[read(k) for k in fit.levels.kernels],
            blocks=BlocksPlan(encoder=list(encoder), decoder=list(decoder)),
        ),
        pool_loss_over_batch=pooled[frame.recipe.rules.configurations.pool_loss],
        previous_stage=None,
        next_stage=None,
    )
