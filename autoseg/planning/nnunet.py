"""The peer's forms: a plan from its dataset.json and fingerprint, and a plan in the keys of its plans.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoseg.planning.figures import from_dicts
from autoseg.planning.overrides import CONFIGURATIONS
from autoseg.planning.planner import decide
from autoseg.planning.problems import validated
from autoseg.planning.recipes import Recipe, load_recipe
from autoseg.planning.schema import ConfigurationPlan, Interpolation, LabelInterpolation, MadeFor, Plan


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


def to_nnunet_plans(plan: Plan) -> dict[str, Any]:
    """The plan's decisions in the keys of the peer's plans.json (peer 7.4), triples in its transposed order.

    A configuration's `architecture` holds the keys of arch_kwargs directly.
    """
    order = next((c.transpose for c in plan.configurations.values() if c.transpose is not None), (0, 1, 2))
    median = plan.dataset.original_median
    return {
        "dataset_name": plan.dataset.name,
        "plans_name": _PLANS_NAMES.get(plan.recipe, f"autoseg-{plan.recipe}"),
        "original_median_spacing_after_transp": [median.spacing[axis] for axis in order],
        "original_median_shape_after_transp": [median.shape[axis] for axis in order],
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {name: _configuration(plan, name) for name in CONFIGURATIONS if name in plan.configurations},
    }


_PLANS_NAMES = {
    "nnunet": "nnUNetPlans",
    "nnunet-resenc-m": "nnUNetResEncUNetMPlans",
    "nnunet-resenc-l": "nnUNetResEncUNetLPlans",
    "nnunet-resenc-xl": "nnUNetResEncUNetXLPlans",
}


def _configuration(plan: Plan, name: str) -> dict[str, Any]:
    own = plan.configurations[name]
    full = plan.configurations.get("3d_fullres")
    if own.previous_stage is not None and full is not None and own == full.model_copy(update={"previous_stage": own.previous_stage}):
        return {"inherits_from": "3d_fullres", "previous_stage": own.previous_stage}
    inside = own.inside()
    content = {
        "batch_size": inside.batch_size,
        "patch_size": inside.patch_size,
        "median_image_size_in_voxels": inside.median_shape,
        "spacing": inside.spacing,
        "normalization_schemes": [_scheme(plan, channel) for channel in plan.dataset.channels],
        "use_mask_for_norm": inside.normalise_in_mask,
        "resampling_fn_data_kwargs": _resampling(inside.resampling.image),
        "resampling_fn_seg_kwargs": _resampling(inside.resampling.labels),
        "resampling_fn_probabilities_kwargs": _resampling(inside.resampling.logits),
        "batch_dice": inside.pool_loss_over_batch,
        "architecture": _architecture(inside),
    }
    stages = {"previous_stage": own.previous_stage, "next_stage": own.next_stage}
    return content | {key: stage for key, stage in stages.items() if stage is not None}


def _scheme(plan: Plan, channel: str) -> str:
    """The peer's name for what is done to a channel: read off the steps, not off its name."""
    kinds = plan.intensity[channel]
    steps = (kinds.get("hu") or next(iter(kinds.values()))).before_resampling
    if not steps or steps[-1].do == "none":
        return "NoNormalization"
    if steps[-1].do == "zscore":
        return "ZScoreNormalization" if steps[-1].mean is None else "CTNormalization"
    return "RescaleTo01Normalization" if steps[-1].high is None else "RGBTo01Normalization"


def _resampling(rule: Interpolation | LabelInterpolation) -> dict[str, Any]:
    apart = {"thick": None, "none": False}.get(rule.across, True)
    return {"is_seg": isinstance(rule, LabelInterpolation), "order": rule.order, "order_z": rule.order_across, "force_separate_z": apart}


def _architecture(inside: ConfigurationPlan) -> dict[str, Any]:
    network = inside.network
    encoder = "n_blocks_per_stage" if network.kind == "residual_unet" else "n_conv_per_stage"
    return {
        "n_stages": len(network.features),
        "features_per_stage": network.features,
        "kernel_sizes": network.kernels,
        "strides": network.strides,
        encoder: network.blocks.encoder,
        "n_conv_per_stage_decoder": network.blocks.decoder,
    }
