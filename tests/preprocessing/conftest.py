"""A plan for a made dataset, by the rooms below, with any values set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.case import Dataset
from autoseg.fingerprint.types import Fingerprint
from autoseg.planning.schema import Plan


@dataclass(frozen=True)
class Made:
    dataset: Dataset
    fingerprint: Fingerprint
    plan: Plan


@pytest.fixture
def planned() -> Callable[..., Made]:
    """Measure a dataset folder and plan it with the recipe and the settings that are given."""

    def make(folder: Path, recipe: str = "auto", **options: Any) -> Made:
        from autoseg.data.folders.layouts import open_dataset
        from autoseg.fingerprint.measure import measure
        from autoseg.planning.planner import plan
        from autoseg.planning.recipes import load_recipe
        from autoseg.planning.schema import MadeFor

        chosen = load_recipe(recipe)
        measured = measure(open_dataset(folder), orientation="lps", workers=0)
        made = plan(measured.dataset, measured.fingerprint, chosen, made_for=MadeFor(device="cpu", memory_gb=8), options=options)
        return Made(measured.dataset, measured.fingerprint, made)

    return make
