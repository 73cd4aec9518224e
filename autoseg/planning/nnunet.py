"""A plan for a dataset that is known by its JSON files alone, in the peer's forms or in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoseg.planning.figures import from_dicts
from autoseg.planning.planner import decide
from autoseg.planning.problems import validated
from autoseg.planning.recipe import Recipe
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import MadeFor, Plan


def plan_from_fingerprint(
    dataset: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    recipe: str | Recipe = "auto",
    *,
    machine: str | MadeFor | Mapping[str, Any] | None = None,
    memory_gb: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan for a dataset known by its JSON files alone.

    Args:
        dataset: a dataset.json in the peer's form (channel_names, labels, numTraining, regions_class_order).
        fingerprint: the peer's dataset_fingerprint.json, or autoseg's fingerprint.json. The peer's knows neither intensity kinds
            nor sides nor the uncropped shapes: a channel called CT counts as HU, no label has a side.
        recipe: a name, a path or a loaded recipe.
        machine: "cpu", "cuda", "mps" or {device, memory_gb}; None: the recipe's reference machine. The peer's recipes ignore it.
        memory_gb: memory of the device that trains; the peer's recipes take it as their GPU memory target.
        overrides: dotted key -> value, as --set takes them.

    Raises:
        PlanError: something is missing, unknown or impossible.
        ResourceError: no patch fits in the memory.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    made_for = _machine(machine, loaded.reference_machine)
    options: dict[str, Any] = {"set": dict(overrides or {})}
    if memory_gb is not None:
        options["memory_gb"] = memory_gb
    return decide(from_dicts(dataset, fingerprint), loaded, made_for=made_for, options=options)


def _machine(machine: str | MadeFor | Mapping[str, Any] | None, reference: MadeFor) -> MadeFor:
    if machine is None:
        return reference
    if isinstance(machine, MadeFor):
        return machine
    content = {"device": machine.partition(":")[0]} if isinstance(machine, str) else machine
    return validated(MadeFor, {"memory_gb": reference.memory_gb, **content}, what="machine", remedy="Give cpu, cuda or mps, and GB")
