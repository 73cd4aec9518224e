"""A plan lasts: what is written with it, and what may not change around one that is there (DESIGN.md section 4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.case import Dataset
from autoseg.data.key import write_key
from autoseg.errors import PlanError
from autoseg.files import Work, read_json, write_json
from autoseg.fingerprint.measure import Measurement
from autoseg.planning.figures import unique_names
from autoseg.planning.folds import Fold, Given, few, read_folds, write_folds
from autoseg.planning.overrides import request
from autoseg.planning.plan_file import write_plan
from autoseg.planning.recipe import Recipe
from autoseg.planning.recipe_files import list_recipes
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import Plan
from autoseg.planning.splitting import class_presence, extend_folds, given_lists, make_folds


def require_agreement(kept: Plan, dataset: Dataset, *, recipe: str | None, options: Mapping[str, Any], file: Path) -> None:
    """Refuse what disagrees with a plan that is there: other data, another recipe, other settings.

    Args:
        recipe: name or path, as asked for now; None: not named.
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
    if recipe is not None and (asked_for := load_recipe(recipe).name) != kept.recipe:
        raise PlanError(
            f"it was made by recipe {kept.recipe}, --recipe asks for {asked_for}", file=file, remedy="Leave --recipe out, or use --replan"
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


def disagreement(plan: Plan, other: Plan, configuration: str) -> str | None:
    """The first dotted key at which two plans differ in what networks and prepared images depend on; None: their folds may be joined."""
    return _difference(what_matters(plan, configuration), what_matters(other, configuration))


def what_matters(plan: Plan, configuration: str) -> dict[str, Any]:
    """The part of a plan that prepared images and networks of a configuration depend on."""
    part = plan.configurations.get(configuration)
    ignored = {"median_shape": True, "batch_size": True, "pool_loss_over_batch": True, "next_stage": True, "padding": {"train"}}
    return {
        "dataset": plan.dataset.model_dump(exclude={"name", "original_median", "groups_of_labels"}),
        "intensity": {name: {kind: steps.model_dump() for kind, steps in kinds.items()} for name, kinds in plan.intensity.items()},
        "training": {"augmentation": {"mirror_sides": plan.training.augmentation.mirror_sides}},
        "configurations": {configuration: part.model_dump(exclude=ignored) if part else None},
    }


def _difference(first: Any, second: Any, key: str = "") -> str | None:
    if isinstance(first, dict) and isinstance(second, dict):
        for name in [*first, *(n for n in second if n not in first)]:
            inner = f"{key}.{name}" if key else str(name)
            if name not in first or name not in second:
                return inner
            if found := _difference(first[name], second[name], inner):
                return found
        return None
    return None if first == second else key


def write_decisions(work: Work, plan: Plan, measured: Measurement, folds: Sequence[Fold], *, recipe: Recipe | None) -> None:
    """plan.json, fingerprint.json, dataset.json, folds.json and, of a DICOM export, key.json of WORK.

    Args:
        recipe: that a new plan was made by, kept in recipe.json unless it is an installed one; None: the plan is kept, and not written.
    """
    dataset = measured.dataset
    if recipe is not None:
        if recipe.name in list_recipes():
            work.recipe.unlink(missing_ok=True)
        else:
            write_json(work.recipe, "recipe", recipe.model_dump(mode="json", by_alias=True))
        write_plan(work.plan, plan)
    write_json(work.fingerprint, "fingerprint", measured.fingerprint.model_dump(mode="json"))
    write_json(
        work.dataset,
        "dataset",
        {
            "name": dataset.name,
            "layout": dataset.layout,
            "channels": list(dataset.channels),
            "groups": dataset.groups,
            "labels_present": {case: list(names) for case, names in dataset.labels_present.items()},
            "choices": dataset.choices.as_json(),
            "cases": {case: found.content_key for case, found in measured.fingerprint.cases.items()},
        },
    )
    if dataset.key is not None:
        write_key(work.key, dataset.key)
    write_folds(work.folds, folds)


@dataclass(frozen=True)
class CaseChanges:
    """How a dataset differs from when WORK was last prepared. changed: the image is another; lost: there is no such case any more."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    lost: tuple[str, ...]

    def __str__(self) -> str:
        kinds = ((self.new, "new"), (self.changed, "changed"), (self.lost, "gone"))
        return ", ".join(f"{len(names)} {what} ({few(names)})" for names, what in kinds if names)


def case_changes(work: Work, measured: Measurement) -> CaseChanges:
    """Against the content keys in WORK/dataset.json."""
    before = dict(read_json(work.dataset, "dataset")["cases"]) if work.dataset.is_file() else {}
    now = {case: measures.content_key for case, measures in measured.fingerprint.cases.items()}
    changed = tuple(case for case in now if case in before and before[case] != now[case])
    return CaseChanges(tuple(sorted(set(now) - set(before))), changed, tuple(sorted(set(before) - set(now))))


def recipe_of(work: Work, plan: Plan) -> Recipe:
    """The recipe that WORK's plan was made by.

    Raises:
        PlanError: it is neither installed nor kept in WORK.
    """
    return load_recipe(work.recipe if work.recipe.is_file() else plan.recipe)


def split_cases(work: Work, plan: Plan, measured: Measurement, *, left_out: Collection[str], fresh: bool) -> list[Fold]:
    """The folds of a new plan, or those that WORK has, joined by new cases.

    Args:
        left_out: cases that an error excludes.
    """
    dataset, cases = measured.dataset, [case for case in measured.fingerprint.cases if case not in left_out]
    presence = class_presence(measured.fingerprint, dataset.labels)
    if not fresh and work.folds.is_file():
        given = _lists_now(plan, dataset)
        return extend_folds(read_folds(work.folds), cases, plan.folds, dataset.groups, given, presence=presence)
    return make_folds(cases, plan.folds, dataset.groups, dataset.given_folds, presence=presence, excluded=left_out)


def _lists_now(plan: Plan, dataset: Dataset) -> Given | None:
    """What given folds say by now; () if their source is gone, so that folds.json stands as it is."""
    try:
        return given_lists(plan.folds, dataset.given_folds)
    except PlanError:
        return ()
