"""Where recipes come from: names, files, and the plans of other data, autoseg's or nnU-Net's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import SCHEMA_VERSION
from autoseg.planning.nnunet_recipe import recipe_from_nnunet
from autoseg.planning.plan_file import read_plan
from autoseg.planning.recipe import Recipe
from autoseg.planning.recipe_files import is_path, list_recipes, read_recipe
from autoseg.planning.taking import recipe_from_plan


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by name or from a file; of another WORK, its plan.json or nnU-Net's plans.json a recipe that plans like it.

    Args:
        name_or_path: a name of `list_recipes`, or a path: anything with a separator, the ending .json, or a folder that is there.

    Raises:
        PlanError: no such recipe, or one that is not valid.
    """
    name = str(name_or_path)
    if not is_path(name):
        return read_recipe(name)
    file = _file_in(Path(name))
    content = _json(file)
    if content.get("schema") == f"autoseg.plan/{SCHEMA_VERSION}":
        return recipe_from_plan(read_plan(file))
    if "plans_name" in content and "configurations" in content:
        return recipe_from_nnunet(content, file, {name: read_recipe(name) for name in list_recipes() if name.startswith("nnunet")})
    return read_recipe(name)


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
