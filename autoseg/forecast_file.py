"""WORK/forecast.json: what probes measured of each configuration, kept, read and told in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import Work, read_json, write_json
from autoseg.progress import clock

log = logging.getLogger("autoseg")

KIND = "forecast"


def keep(work: Work, configuration: str, probed: Mapping[str, Any]) -> None:
    """Write a configuration's probe to WORK/forecast.json, beside those of others."""
    write_json(work.forecast, KIND, {"configurations": {**kept(work), configuration: dict(probed)}})


def kept(work: Work) -> dict[str, Any]:
    """Configuration -> what forecast.json holds of it; nothing where there is none, or one that cannot be read."""
    if not work.forecast.is_file():
        return {}
    try:
        return read_json(work.forecast, KIND)["configurations"]
    except (PlanError, KeyError):
        log.warning("%s cannot be read and is made anew.", work.forecast.name)
        return {}


def describe(configuration: str, probed: Mapping[str, Any]) -> str:
    """A configuration's entry of forecast.json in words."""
    lines = [
        f"{configuration}, measured on {probed['device']} with {probed['threads']} threads, {_form(probed)}: "
        f"{probed['seconds_per_step']:.2f} s a step, {probed['waiting']:.0%} of it waiting for samples "
        f"({probed['steps']} steps of fold {probed['fold']})",
        f"  an epoch takes {clock(probed['seconds_per_epoch'])}, "
        + (
            f"{probed['epochs']} epochs {clock(probed['seconds_of_training'])}"
            if probed["epochs"]
            else "and the budget says how many there are"
        )
        + f"; predicting its {probed['held_out']} held-out cases about {clock(probed['seconds_of_held_out'])}",
        f"  peak memory {probed['peak_memory_gb']:.2f} GB; a step was forecast to take {probed['forecast_memory_gb']:.2f} GB",
    ]
    if probed["epochs"] and probed["folds"] > 1:
        lines.insert(2, f"  {probed['folds']} folds take about {clock(probed['folds'] * probed['seconds_per_fold'])}")
    if probed["trials"]:
        tried = ", ".join(f"{_form(trial)} {trial['seconds']:.2f} s" for trial in probed["trials"])
        lines.append(f"  a step without waiting, by number format and layout: {tried}")
    return "\n".join(lines)


def _form(probed: Mapping[str, Any]) -> str:
    return f"{probed['precision']} {probed['memory_layout']}" + (" compiled" if probed["compile"] else "")
