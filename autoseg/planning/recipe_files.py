"""Recipes as files: installed ones by name, others by path. `inherits` names another that one differs from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import SCHEMA_VERSION
from autoseg.planning.problems import validated
from autoseg.planning.recipe import Recipe, merged

SCHEMA = f"autoseg.recipe/{SCHEMA_VERSION}"


def list_recipes() -> list[str]:
    """Names of the installed recipes."""
    return sorted(entry.name.removesuffix(".json") for entry in resources.files("autoseg.plans").iterdir() if entry.name.endswith(".json"))


def read_recipe(name: str) -> Recipe:
    """A recipe by name or from its file, with what it inherits.

    Raises:
        PlanError: no such recipe, or one that is not valid.
    """
    return validated(Recipe, _content(name, ()), what=f"recipe {Path(name).name}", remedy="Correct the recipe; plans/*.json are examples")


def is_path(name: str) -> bool:
    """Whether it names a file or folder: anything with a separator, the ending .json, or a folder that is there."""
    return name.endswith(".json") or "/" in name or "\\" in name or (name not in list_recipes() and Path(name).is_dir())


def _content(name: str, heirs: tuple[str, ...]) -> dict[str, Any]:
    """A recipe's JSON with what it inherits filled in."""
    if name in heirs:
        raise PlanError(f"recipe {name} inherits from itself", remedy="Correct `inherits`")
    source = Path(name) if is_path(name) else resources.files("autoseg.plans") / f"{name}.json"
    if not source.is_file():
        raise PlanError(f"there is no recipe {name!r}", remedy=f"Use one of {', '.join(list_recipes())}, or a recipe file")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"the recipe is no JSON ({error})", file=name, remedy="Correct the file") from error
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        remedy = "Give a recipe; plans/*.json are examples"
        raise PlanError(f"it is not a recipe (its `schema` must be {SCHEMA!r})", file=name, remedy=remedy)
    parent = content.pop("inherits", None)
    return content if parent is None else merged(_content(parent, (*heirs, name)), content)
