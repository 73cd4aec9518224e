"""A plan lasts: what may not change around one that is there (DESIGN.md section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.data.case import Dataset
from autoseg.errors import PlanError
from autoseg.planning.figures import unique_names
from autoseg.planning.overrides import request
from autoseg.planning.schema import Plan


def require_agreement(kept: Plan, dataset: Dataset, *, recipe: str | None, options: Mapping[str, Any], file: Path) -> None:
    """Refuse what disagrees with a plan that is there: other data, another recipe, other settings.

    Args:
        recipe: as asked for now; None: not named.
        options: as asked for now, in the form of `planner.plan`.

    Raises:
        PlanError: it disagrees.
    """
    if unique_names(dataset.channels) != kept.dataset.channels:
        raise PlanError(
            f"it is for channels {', '.join(kept.dataset.channels)}, the dataset has {', '.join(dataset.channels)}",
            file=file,
            remedy="Give the dataset that WORK was made from, or another WORK",
        )
    labels = kept.dataset.label_set()
    if dataset.labels != labels:
        raise PlanError(
            f"it is for labels {', '.join(labels.names)}, the dataset has {', '.join(dataset.labels.names)}, or other values",
            file=file,
            remedy="Give the dataset that WORK was made from, or another WORK",
        )
    if recipe is not None and recipe != kept.recipe:
        raise PlanError(
            f"it was made by recipe {kept.recipe}, --recipe asks for {recipe}", file=file, remedy="Leave --recipe out, or use --replan"
        )
    asked, recorded = request(options), request(kept.recipe_options)
    for key, value in asked.settings.items():
        if recorded.settings.get(key) != value:
            before = f"{recorded.settings[key]!r}" if key in recorded.settings else "not given"
            raise PlanError(
                f"--set {key} is {value!r}, when the plan was made it was {before}", file=file, remedy="Leave it out, or use --replan"
            )
    if asked.memory_gb is not None and asked.memory_gb != recorded.memory_gb:
        raise PlanError(
            f"it was made for {kept.made_for.memory_gb:g} GB, --memory gives {asked.memory_gb:g}",
            file=file,
            remedy="Leave --memory out, or use --replan",
        )
