"""The peer's plans.json as a recipe: its spacings, patches, networks and intensities, with autoseg's way of nnU-Net's training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.data.folders.description import describe
from autoseg.errors import AutosegError, PlanError
from autoseg.files import digest
from autoseg.planning.intensity_steps import GRAYS, before, own_zscore
from autoseg.planning.nnunet_form import ACTIVATIONS, CLASSES, NORMS, PLANS_NAMES, RESAMPLING
from autoseg.planning.problems import validated
from autoseg.planning.recipe import Recipe, Taken
from autoseg.planning.schema import Clip, ConfigurationPlan, IntensityPlan, Nothing, Rescale, ZScore
from autoseg.planning.spacing import as_read

REMEDY = "Give a plans.json that nnU-Net v2 wrote for one of its own networks, or plan with recipe nnunet"


def recipe_from_nnunet(content: Mapping[str, Any], file: Path, base: Mapping[str, Recipe]) -> Recipe:
    """A recipe that plans as this file says.

    Args:
        content: of a plans.json; names of channels and labels are taken from a dataset.json beside it, if one is there.
        base: the peer's recipes by name, for what the file does not say.

    Raises:
        PlanError: it lacks something, or says something that autoseg cannot do.
    """
    try:
        name = next((ours for ours, theirs in PLANS_NAMES.items() if theirs == content["plans_name"]), "nnunet")
        order = tuple(content["transpose_forward"])
        configurations = {key: _configuration(content["configurations"], key, order) for key in content["configurations"] if key in _KNOWN}
        first = next(iter(configurations.values()))
        schemes = _resolved(content["configurations"], next(iter(configurations)))["normalization_schemes"]
        properties = content.get("foreground_intensity_properties_per_channel") or {}
        masks = first["normalise_in_mask"]
        intensity = [_steps(scheme, properties.get(str(n), {}), masks[n]) for n, scheme in enumerate(schemes)]
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        raise PlanError(f"these plans lack something ({type(error).__name__}: {error})", file=file, remedy=REMEDY) from error
    recipe, described = base[name], _beside(file)
    values = recipe.values.configuration
    whole = {
        key: validated(ConfigurationPlan, _completed(part, values.model_dump(mode="json")), what=f"{file.name}: {key}", remedy=REMEDY)
        for key, part in configurations.items()
    }
    taken = Taken(
        origin=f"{content['plans_name']} of {content.get('dataset_name', 'an unnamed dataset')} (nnU-Net)",
        channels=list(described.channels) if described and described.channels else None,
        labels=list(described.labels.names) if described and described.labels else None,
        default_configurations=["3d_fullres" if "3d_fullres" in whole else next(iter(whole))],
        configurations=whole,
        intensity=intensity,
    )
    title = f"{content['plans_name']} of {content.get('dataset_name', '?')} ({digest(dict(content))[:6]})"
    default = recipe.rules.configurations.model_copy(update={"default": taken.default_configurations[0]})
    rules = recipe.rules.model_copy(update={"configurations": default})
    about = f"Plans like {taken.origin}."
    return recipe.model_copy(update={"name": title, "about": about, "rules": rules, "taken": taken, "machines": {}, "notes": []})


_KNOWN = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")


def _beside(file: Path):
    """What a dataset.json in the same folder says, if it says anything."""
    try:
        return describe(file.parent)
    except AutosegError:
        return None


def _resolved(configurations: Mapping[str, Any], name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A configuration with what it inherits filled in (peer 7.4)."""
    if name in heirs:
        raise PlanError(f"configuration {name} inherits from itself", remedy=REMEDY)
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else _resolved(configurations, parent, (*heirs, name)) | own


def _configuration(configurations: Mapping[str, Any], name: str, order: tuple[int, int, int]) -> dict[str, Any]:
    """The keys of a ConfigurationPlan that the file says; triples as read."""
    own = _resolved(configurations, name)
    dimension = len(own["patch_size"])

    def read(axes: list) -> list:
        return list(axes) if dimension == 2 else as_read(axes, order)

    following = [key for key in configurations if _resolved(configurations, key).get("previous_stage") == name and key in _KNOWN]
    return {
        "spacing": read(own["spacing"]),
        "median_shape": read(own["median_image_size_in_voxels"]),
        "patch_size": read([int(n) for n in own["patch_size"]]),
        "batch_size": own["batch_size"],
        "transpose": None if order == (0, 1, 2) else order,
        "normalise_in_mask": list(own["use_mask_for_norm"]),
        "resampling": _resampling(own, name),
        "network": _network(own["architecture"], dimension, read, name),
        "pool_loss_over_batch": own["batch_dice"],
        "previous_stage": own.get("previous_stage"),
        "next_stage": following[0] if following else None,
    }


def _completed(part: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """With what the file does not say, as the peer does it: cropping, padding, rounding of sizes, layers."""
    return {
        **part,
        "crop": values["crop"],
        "padding": values["padding"],
        "resampling": values["resampling"] | part["resampling"],
        "network": values["network"] | part["network"],
    }


def _resampling(own: Mapping[str, Any], name: str) -> dict[str, Any]:
    rules = {}
    for theirs, ours in (("data", "image"), ("seg", "labels"), ("probabilities", "logits")):
        if (function := own[f"resampling_fn_{theirs}"]) != RESAMPLING:
            raise PlanError(f"{name}: resampling_fn_{theirs} is {function!r}, which autoseg does not know", remedy=REMEDY)
        how = own[f"resampling_fn_{theirs}_kwargs"]
        across = "none" if how.get("force_separate_z") is False else "thick"
        rules[ours] = {"order": how["order"], "across": across, "order_across": how.get("order_z", 0)}
        rules[ours] |= {"rule": "argmax"} if ours == "labels" else {}
    return rules


def _network(architecture: Mapping[str, Any], dimension: int, read: Any, name: str) -> dict[str, Any]:
    kinds = {theirs: ours for ours, theirs in CLASSES.items()}
    if (network := architecture["network_class_name"]) not in kinds:
        raise PlanError(f"{name}: its network is {network}, which autoseg cannot build", remedy=REMEDY)
    own, kind = architecture["arch_kwargs"], kinds[network]
    stages = own["n_stages"]

    def each(value: Any, count: int) -> list:
        return [value] * count if isinstance(value, int) else list(value)

    def axes(value: Any) -> list[list[int]]:
        return [read(each(entry, dimension)) for entry in each(value, stages)]

    dropout = (own.get("dropout_op_kwargs") or {}).get("p", 0) if own.get("dropout_op") else 0
    encoder = own["n_blocks_per_stage" if kind == "residual_unet" else "n_conv_per_stage"]
    return {
        "kind": kind,
        "dimension": dimension,
        "features": each(own["features_per_stage"], stages),
        "strides": axes(own["strides"]),
        "kernels": axes(own["kernel_sizes"]),
        "blocks": {"encoder": each(encoder, stages), "decoder": each(own["n_conv_per_stage_decoder"], stages - 1)[::-1]},
        "norm": _norm(own, name),
        "activation": _activation(own, name),
        "order_of_layers": "conv-activation-norm" if own.get("nonlin_first") else "conv-norm-activation",
        "dropout": dropout,
    }


def _norm(own: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = own.get("norm_op")
    kind = next((ours for ours, theirs in NORMS.items() if found and found.startswith(theirs)), None if found else "none")
    if kind is None:
        raise PlanError(f"{name}: its norm is {found}, which autoseg does not know", remedy=REMEDY)
    how = own.get("norm_op_kwargs") or {}
    return {"name": kind, "momentum": how.get("momentum", 0.1), "eps": how.get("eps", 1e-5)}


def _activation(own: Mapping[str, Any], name: str) -> str:
    found = str(own.get("nonlin")).rsplit(".", 1)[-1]
    kind = next((ours for ours, theirs in ACTIVATIONS.items() if theirs.endswith(f".{found}")), None)
    if kind is None:
        raise PlanError(f"{name}: its activation is {own.get('nonlin')}, which autoseg does not know", remedy=REMEDY)
    return kind


def _steps(scheme: str, figures: Mapping[str, float], masked: bool) -> dict[str, IntensityPlan]:
    """What the peer does to a channel (peer 3.4), for all kinds alike."""
    if scheme == "CTNormalization":
        clip = Clip(do="clip", low=figures["percentile_00_5"], high=figures["percentile_99_5"])
        steps = [clip, ZScore(do="zscore", mean=figures["mean"], std=max(figures["std"], 1e-8), mask="all")]
    elif scheme == "ZScoreNormalization":
        steps = [own_zscore("nonzero" if masked else "all")]
    elif scheme == "RescaleTo01Normalization":
        steps = [Rescale(do="rescale", low=None, high=None, to=(0, 1), round=False)]
    elif scheme == "RGBTo01Normalization":
        steps = [Rescale(do="rescale", low=GRAYS[0], high=GRAYS[1], to=(0, 1), round=False)]
    elif scheme == "NoNormalization":
        steps = [Nothing(do="none")]
    else:
        raise PlanError(f"its normalisation is {scheme}, which autoseg does not know", remedy=REMEDY)
    return {kind: before(*steps) for kind in ("hu", "windowed", "arbitrary")}
