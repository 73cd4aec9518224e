"""What the user asked for with --set, --memory and --config, as inputs of planning.

A key is a dotted key of the plan, or of the recipe's rules (`rules.transpose`). What a rule depends on is given to the rule;
at the end every given value is written into the plan as it stands, so that nothing derived can displace it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoseg.errors import PlanError
from autoseg.planning.problems import validated
from autoseg.planning.recipe import Recipe
from autoseg.planning.schema import ConfigurationPlan, Count, NetworkPlan, Part, Plan, Positive

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
_VALUES = ("training", "prediction", "postprocessing", "evaluation", "folds")
_OPTIONS = ("set", "memory_gb", "configurations")
REMEDY = "Correct --set; `autoseg info WORK` and the plan reference list keys and values"


class Given(Part):
    """What the user fixed of one configuration's shape; triples as read."""

    spacing: list[Positive] | None = None
    patch_size: list[Count] | None = None
    batch_size: Count | None = None
    features: list[Count] | None = None
    strides: list[list[Count]] | None = None
    kernels: list[list[Count]] | None = None
    encoder: list[Count] | None = None
    decoder: list[Count] | None = None
    kind: str | None = None
    crop: str | None = None
    size: str | None = None

    @property
    def names(self) -> list[str]:
        """What was given."""
        return [name for name, value in self if value is not None]


_INPUTS = {
    "spacing": "spacing",
    "patch_size": "patch_size",
    "batch_size": "batch_size",
    "network.features": "features",
    "network.strides": "strides",
    "network.kernels": "kernels",
    "network.blocks.encoder": "encoder",
    "network.blocks.decoder": "decoder",
    "network.kind": "kind",
    "crop": "crop",
    "resampling.size": "size",
}


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    settings: key as written -> value.
    configurations: those that --config names; empty: none named.
    """

    settings: dict[str, Any]
    memory_gb: float | None = None
    configurations: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """As the plan records it."""
        content = {"set": self.settings, "memory_gb": self.memory_gb, "configurations": list(self.configurations)}
        return {key: value for key, value in content.items() if value}


def planning_options(
    settings: Mapping[str, Any] | None, memory_gb: float | None, seed: int | None, configurations: Sequence[str] | None
) -> dict[str, Any]:
    """What a command was given, in the form that `request` takes; a seed is one of the folds and of training."""
    given = dict(settings or {})
    if seed is not None:
        given = {"training.seed": seed, "folds.seed": seed} | given
    options = {"set": given, "memory_gb": memory_gb, "configurations": list(configurations) if configurations else None}
    return {key: value for key, value in options.items() if value}


def request(options: Mapping[str, Any]) -> Request:
    """Of `{"set": {key: value or text}, "memory_gb": ..., "configurations": [...]}`; a text is read as JSON if it is some.

    Raises:
        PlanError: an unknown option, key or configuration.
    """
    if unknown := set(options) - set(_OPTIONS):
        raise PlanError(f"unknown options {sorted(unknown)}", remedy=f"Options are {', '.join(_OPTIONS)}")
    settings = {key: parse_value(value) for key, value in (options.get("set") or {}).items()}
    for key in settings:
        _check_root(key)
    names = tuple(options.get("configurations") or ())
    if unknown := set(names) - set(CONFIGURATIONS):
        raise PlanError(f"there is no configuration {sorted(unknown)[0]!r}", remedy=f"Configurations are {', '.join(CONFIGURATIONS)}")
    memory = options.get("memory_gb")
    return Request(settings, None if memory is None else float(memory), names)


def parse_value(value: Any) -> Any:
    """A text as JSON, or as itself; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _check_root(key: str) -> None:
    roots = {*Plan.model_fields, *ConfigurationPlan.model_fields, *CONFIGURATIONS, "rules", *_short_network_keys()}
    root = key.split(".")[0]
    if root not in roots:
        near = difflib.get_close_matches(root, sorted(roots), 1)
        raise PlanError(f"--set {key}: unknown key {root!r}" + (f", did you mean {near[0]!r}?" if near else ""), remedy=REMEDY)
    if key in ("reasons", "forecast", "recipe", "created_from", "made_for", "recipe_options", "autoseg_version"):
        raise PlanError(f"--set {key}: planning writes this itself", remedy="Leave it out")
    if key == "dataset.regrid":
        raise PlanError(f"--set {key}: files are read before there is a plan", remedy="Use --regrid to-first")


def _short_network_keys() -> set[str]:
    """Keys of the network that may be written without `network.`, since nothing else has that name."""
    return set(NetworkPlan.model_fields) - set(ConfigurationPlan.model_fields) - {"dimension", "factory", "kind"}


def split_key(key: str) -> tuple[str | None, str]:
    """The configuration that a key names ("3d": it names none, but belongs to one; None: it belongs to none), and the rest."""
    parts = key.split(".")
    if parts[0] == "configurations":
        parts = parts[1:]
    if parts and parts[0] in CONFIGURATIONS:
        name, parts = parts[0], parts[1:]
    elif key.split(".")[0] == "configurations":
        raise PlanError(f"--set {key}: it names no configuration", remedy=f"Configurations are {', '.join(CONFIGURATIONS)}")
    elif parts[0] in ConfigurationPlan.model_fields or parts[0] in _short_network_keys():
        name = "3d"
    else:
        return None, key
    if parts and parts[0] in _short_network_keys():
        parts = ["network", *parts]
    return name, ".".join(parts)


def recipe_with(recipe: Recipe, wanted: Request) -> Recipe:
    """The recipe with those settings that its rules or values hold.

    Raises:
        PlanError: an unknown key or an impossible value.
    """
    content = recipe.model_dump(by_alias=True, mode="json")
    changed = False
    for key, value in wanted.settings.items():
        root = key.split(".")[0]
        if root in _VALUES:
            put(content["values"], key, value)
        elif root == "rules":
            put(content, key, value)
        elif key == "dataset.orientation":
            content["values"]["orientation"] = value
        else:
            continue
        changed = True
    return validated(Recipe, content, what="--set", remedy=REMEDY) if changed else recipe


def given_for(name: str, wanted: Request, made: Iterable[str]) -> Given:
    """What the user fixed of configuration `name`, one of those that are `made`.

    Raises:
        PlanError: an impossible value.
    """
    content: dict[str, Any] = {}
    for key, value in wanted.settings.items():
        target, rest = split_key(key)
        if target is not None and rest in _INPUTS and name in targets(key, wanted, made):
            content[_INPUTS[rest]] = value
    given = validated(Given, content, what=f"--set for {name}", remedy=REMEDY)
    dimension = 2 if name == "2d" else 3
    for field in ("spacing", "patch_size"):
        value = getattr(given, field)
        if value is not None and len(value) != dimension:
            order = "(y, x)" if dimension == 2 else "(z, y, x)"
            raise PlanError(f"--set {field}={value}: {name} needs {dimension} numbers {order}, found {len(value)}", remedy="Correct --set")
    for field in ("strides", "kernels"):
        if any(len(entry) != dimension for entry in getattr(given, field) or ()):
            raise PlanError(f"--set network.{field}: {name} needs {dimension} numbers a level", remedy="Correct --set")
    return given


def targets(key: str, wanted: Request, made: Iterable[str]) -> list[str]:
    """The configurations that a configuration's key goes to. The cascade's second stage follows full resolution."""
    made = list(made)
    name, rest = split_key(key)
    if name is None:
        return []
    if name != "3d":
        followers = ["3d_cascade_fullres"] if name == "3d_fullres" else []
        return [name, *(f for f in followers if f in made)]
    chosen = [n for n in made if n != "2d" and (not wanted.configurations or n in wanted.configurations)]
    if rest == "spacing" and "3d_fullres" in chosen:  # a first stage's spacing follows from it
        chosen = [n for n in chosen if n != "3d_lowres"]
    return chosen


def write_into(plan: Plan, wanted: Request) -> Plan:
    """The plan with every setting written in as it stands.

    Raises:
        PlanError: a key that plans don't have, a configuration that this one lacks, or an impossible value.
    """
    content = plan.model_dump(mode="json")
    for key, value in wanted.settings.items():
        if key.split(".")[0] in ("rules", "intensity"):  # recipes have obeyed the ones, `intensity_steps` the others
            continue
        name, rest = split_key(key)
        if name is None:
            put(content, key, value)
            continue
        there = [n for n in targets(key, wanted, plan.configurations) if n in plan.configurations]
        if not there:
            have = ", ".join(plan.configurations)
            raise PlanError(
                f"--set {key}: the plan has no {name} configuration (it has {have})",
                remedy="Name one it has, as in 2d.patch_size=[192,192]",
            )
        for target in there:
            put(content["configurations"][target], rest, value)
    return validated(Plan, content, what="--set", remedy=REMEDY) if wanted.settings else plan


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Write `value` at a dotted key; a number is a place in a list.

    Raises:
        PlanError: the way leads through something that is neither object nor list.
    """
    parts = key.split(".")
    place: Any = content
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(place, list):
            place, part = place, _position(part, place, key)
        elif not isinstance(place, dict):
            raise PlanError(f"--set {key}: {'.'.join(parts[:number])} has no parts", remedy=REMEDY)
        if last:
            place[part] = value
        else:
            place = place[part] if isinstance(place, list) else place.setdefault(part, {})
            if place is None:
                raise PlanError(f"--set {key}: {'.'.join(parts[: number + 1])} is null", remedy="Give it as a whole, as JSON")


def _position(part: str, place: Sequence[Any], key: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise PlanError(f"--set {key}: {part!r} is no place in a list of {len(place)}", remedy=REMEDY)
    return int(part)
