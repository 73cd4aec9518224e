"""A plan in the keys of the peer's plans.json (peer 7.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autoseg.errors import PlanError
from autoseg.planning.figures import Figures, from_dicts
from autoseg.planning.overrides import CONFIGURATIONS
from autoseg.planning.schema import ConfigurationPlan, Interpolation, LabelInterpolation, NetworkPlan, Plan

PLANS_NAMES = {
    "nnunet": "nnUNetPlans",
    "nnunet-resenc-m": "nnUNetResEncUNetMPlans",
    "nnunet-resenc-l": "nnUNetResEncUNetLPlans",
    "nnunet-resenc-xl": "nnUNetResEncUNetXLPlans",
}
PLANNERS = {
    "nnunet": "ExperimentPlanner",
    "nnunet-resenc-m": "nnUNetPlannerResEncM",
    "nnunet-resenc-l": "nnUNetPlannerResEncL",
    "nnunet-resenc-xl": "nnUNetPlannerResEncXL",
}
RESAMPLING = "resample_data_or_seg_to_shape"
CLASSES = {
    "unet": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "residual_unet": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}
NORMS = {"instance": "torch.nn.modules.instancenorm.InstanceNorm", "batch": "torch.nn.modules.batchnorm.BatchNorm"}
ACTIVATIONS = {"leaky_relu": "torch.nn.LeakyReLU", "relu": "torch.nn.ReLU"}
IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def to_nnunet_plans(
    plan: Plan, *, complete: bool = False, dataset: Mapping[str, Any] | None = None, fingerprint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The plan's decisions in the keys of the peer's plans.json, triples in its transposed order.

    Args:
        complete: everything that nnU-Net v2 itself reads: a file of this form takes the place of its own. Without it the keys of its
            planner's decisions, an `architecture` holding those of arch_kwargs directly.
        dataset, fingerprint: JSON forms as `plan_from_fingerprint` takes them, for the intensity figures of a complete file. Without
            them it has those that the plan's steps name, which are all that nnU-Net uses.

    Raises:
        PlanError: `complete`, and the network is one that the peer's classes cannot build.
    """
    order = next((c.transpose for c in plan.configurations.values() if c.transpose is not None), (0, 1, 2))
    median = plan.dataset.original_median
    content = {
        "dataset_name": plan.dataset.name,
        "plans_name": PLANS_NAMES.get(plan.recipe, "autoseg-" + re.sub(r"[^A-Za-z0-9.]+", "-", plan.recipe).strip("-")),
        "original_median_spacing_after_transp": [median.spacing[axis] for axis in order],
        "original_median_shape_after_transp": [median.shape[axis] for axis in order],
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {name: _configuration(plan, name) for name in CONFIGURATIONS if name in plan.configurations},
    }
    if not complete:
        return content
    for name, part in content["configurations"].items():
        if "inherits_from" not in part:
            part |= _rest(plan.configurations[name].inside(), name, content["plans_name"])
    figures = from_dicts(dataset, fingerprint) if dataset and fingerprint and "spacings" not in fingerprint else None
    return content | {
        "image_reader_writer": "NaturalImage2DIO" if set(plan.configurations) == {"2d"} else "SimpleITKIO",
        "experiment_planner_used": PLANNERS.get(plan.recipe, "autoseg"),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(plan, figures, fingerprint),
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
        "architecture": _sizes(inside.network),
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


def _sizes(network: NetworkPlan) -> dict[str, Any]:
    """The peer counts the decoder's stages from the deepest, autoseg its levels from full resolution."""
    return {
        "n_stages": len(network.features),
        "features_per_stage": network.features,
        "kernel_sizes": network.kernels,
        "strides": network.strides,
        "n_blocks_per_stage" if network.kind == "residual_unet" else "n_conv_per_stage": network.blocks.encoder,
        "n_conv_per_stage_decoder": network.blocks.decoder[::-1],
    }


def _rest(inside: ConfigurationPlan, name: str, plans_name: str) -> dict[str, Any]:
    return {
        "data_identifier": f"{plans_name}_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_probabilities": RESAMPLING,
        "architecture": {
            "network_class_name": CLASSES[inside.network.kind],
            "arch_kwargs": _sizes(inside.network) | _layers(inside.network, name),
            "_kw_requires_import": IMPORTED,
        },
    }


def _layers(network: NetworkPlan, name: str) -> dict[str, Any]:
    """What the peer's network class is told of its layers."""
    own = {
        "factory": network.factory is not None,
        "downsampling": network.downsampling != "stride",
        "order_of_layers": network.order_of_layers != "conv-norm-activation" and network.kind != "unet",
    }
    if wrong := [key for key, is_wrong in own.items() if is_wrong]:
        values = ", ".join(f"network.{key} is {getattr(network, key)!r}" for key in wrong)
        raise PlanError(f"{name}: nnU-Net has no such network: {values}", remedy="Plan with recipe nnunet, or leave `complete` out")
    dimension = network.dimension
    norm = None if network.norm.name == "none" else f"{NORMS[network.norm.name]}{dimension}d"
    momentum = {"momentum": network.norm.momentum} if network.norm.name == "batch" else {}
    dropout = network.dropout > 0
    layers = {
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": None if norm is None else {"eps": network.norm.eps, "affine": True} | momentum,
        "dropout_op": f"torch.nn.modules.dropout.Dropout{dimension}d" if dropout else None,
        "dropout_op_kwargs": {"p": network.dropout, "inplace": True} if dropout else None,
        "nonlin": ACTIVATIONS[network.activation],
        "nonlin_kwargs": {"inplace": True},
    }
    return layers | ({"nonlin_first": True} if network.order_of_layers == "conv-activation-norm" else {})


def _intensities(plan: Plan, figures: Figures | None, fingerprint: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """By channel number: the peer's own figures, those of our fingerprint, or what the plan's steps name."""
    key = "foreground_intensity_properties_per_channel"
    if fingerprint and key in fingerprint:
        return {str(number): dict(row) for number, row in fingerprint[key].items()}
    result = {}
    for number, channel in enumerate(plan.dataset.channels):
        kinds = plan.intensity[channel]
        steps = (kinds.get("hu") or next(iter(kinds.values()))).before_resampling
        clip, score = (next((s for s in steps if s.do == do), None) for do in ("clip", "zscore"))
        row = {}
        if figures and (known := figures.channels[number].foreground):
            first = known.get("hu") or next(iter(known.values()))
            row = dict(vars(first))
        if clip and score and score.mean is not None:
            row |= {"percentile_00_5": clip.low, "percentile_99_5": clip.high, "mean": score.mean, "std": score.std}
        result[str(number)] = row
    return result
