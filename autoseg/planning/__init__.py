"""Fingerprint to plan. Reading starts at `planner.decide`; `schema` is what a plan holds, `recipe` and `rules` what decides it."""

from __future__ import annotations

from typing import Any

from autoseg.planning.schema import Plan

__all__ = ["Plan", "plan_from_fingerprint", "to_nnunet_plans"]


def __getattr__(name: str) -> Any:  # the planner is loaded when it is used: workers only need the schema
    if name == "plan_from_fingerprint":
        from autoseg.planning.nnunet import plan_from_fingerprint

        return plan_from_fingerprint
    if name == "to_nnunet_plans":
        from autoseg.planning.nnunet_form import to_nnunet_plans

        return to_nnunet_plans
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
