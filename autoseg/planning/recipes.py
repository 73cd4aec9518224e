"""Where recipes come from: installed ones by name, files, and the plans of other data. `inherits` names another that one differs from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import SCHEMA_VERSION
from autoseg.planning.plan_file import read_plan
from autoseg.planning.problems import validated
from autoseg.planning.recipe import Recipe, merged

SCHEMA = f"autoseg.recipe/{SCHEMA_VERSION}"


def list_recipes() -> list[str]:
    """Names of the installed recipes."""
    return sorted(entry.name.removesuffix(".json") for entry in resources.files("autoseg.plans").iterdir() if entry.name.endswith(".json"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by name or from a file; of another WORK, its plan.json or nnU-Net's plans.json a recipe that plans like it.

    Args:
        name_or_path: a name of `list_recipes`, or a path: anything with a separator, the ending .json, or a folder that is there.

    Raises:
        PlanError: no such recipe, or one that is not valid.
    """
    name = str(name_or_path)
    if not _is_path(name):
        return _named(name)
    file = _file_in(Path(name))
    content = _json(file)
    if content.get("schema") == f"autoseg.plan/{SCHEMA_VERSION}":
        from autoseg.planning.taking import recipe_from_plan

        return recipe_from_plan(read_plan(file))
    if "plans_name" in content and "configurations" in content:
        from autoseg.planning.nnunet_recipe import recipe_from_nnunet

        return recipe_from_nnunet(content, file, {name: _named(name) for name in list_recipes() if name.startswith("nnunet")})
    return _named(name)


def _named(name: str) -> Recipe:
    return validated(Recipe, _content(name, ()), what=f"recipe {Path(name).name}", remedy="Correct the recipe; plans/*.json are examples")


def _is_path(name: str) -> bool:
    return name.endswith(".json") or "/" in name or "\\" in name or (name not in list_recipes() and Path(name).is_dir())


def _file_in(path: Path) -> Path:
    """The plan that a folder holds, or the file itself."""
    if not path.is_dir():
        return path
    found = next((path / name for name in ("plan.json", "plans.json", "nnUNetPlans.json") if (path / name).is_file()), None)
    if found is None:
        others = sorted(path.glob("*Plans*.json"))
        if len(others) != 1:
            raise PlanError(
                f"{path.name} holds no plan.json of autoseg and no plans.json of nnU-Net", remedy="Give a WORK folder or a plan's file"
            )
        found = others[0]
    return found


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; {} if it is no file, which `_content` refuses in words."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"it is no JSON ({error})", file=file, remedy="Correct the file") from error
    return content if isinstance(content, dict) else {}


def _content(name: str, heirs: tuple[str, ...]) -> dict[str, Any]:
    """A recipe's JSON with what it inherits filled in."""
    if name in heirs:
        raise PlanError(f"recipe {name} inherits from itself", remedy="Correct `inherits`")
    source = Path(name) if _is_path(name) else resources.files("autoseg.plans") / f"{name}.json"
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
