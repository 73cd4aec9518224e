"""plan.json: written, read, checked; an edited plan is obeyed as it stands."""

from __future__ import annotations

from pathlib import Path

from autoseg.files import read_json, write_json
from autoseg.planning.problems import validated
from autoseg.planning.schema import Plan


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan, whole or not at all."""
    write_json(path, "plan", plan.model_dump(mode="json"))


def read_plan(path: Path) -> Plan:
    """Read a plan that autoseg or a person wrote; nothing is filled in or improved.

    Raises:
        PlanError: it is no JSON, of another schema, or has unknown, missing or impossible values, each of which is named.
    """
    remedy = "Correct the file, or run plan-and-preprocess --replan"
    return validated(Plan, read_json(path, "plan"), what="the plan", file=path, remedy=remedy)
