"""Measured datasets made of numbers, and the peer's own plans where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.case import CaseFiles, Dataset
from autoseg.data.labels import LabelSet
from autoseg.fingerprint.types import CaseMeasures, ChannelMeasures, ClassSummary, Fingerprint, KindSummary, SidePair, SidesSummary
from autoseg.planning.planner import plan
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import MadeFor, Plan

BESIDE = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")).parent
LUNGS = {"background": 0, "lung_left": 1, "lung_right": 2, "infection": 3}


@pytest.fixture(scope="session")
def planner_cases() -> list[dict[str, Any]]:
    """Fingerprints with the peer's own plans."""
    path = BESIDE / "reference" / "planner_cases.json"
    if not path.is_file():
        pytest.skip("reference/planner_cases.json does not lie beside the data folder; see AUTOSEG_TEST_DATA")
    return json.loads(path.read_text())["cases"]


@pytest.fixture
def measured() -> Callable[..., tuple[Dataset, Fingerprint]]:
    """A measured dataset of equal cases; what is not named is a chest CT with two lungs and an infection, in HU."""

    def make(
        names: list[str] | None = None,
        spacing: tuple = (2.7, 1.58, 1.58),
        shape: tuple = (104, 254, 267),
        channels: tuple[str, ...] = ("CT",),
        kinds: list[str] | None = None,
        labels: dict | None = None,
        order: list[int] | None = None,
        pairs: list[tuple[str, str]] | None = None,
        unpaired: list[str] | None = None,
        tilt: float = 0.0,
        planar: bool = False,
        crop: tuple | None = None,
        relative: float = 1.0,
        shown: dict[str, dict[int, int]] | None = None,
        **more: Any,
    ) -> tuple[Dataset, Fingerprint]:
        names = names or [f"case_{i:02d}" for i in range(10)]
        kinds = kinds or ["hu"] * len(names)
        label_set = LabelSet.declared(labels or LUNGS, order)
        voxels = dict.fromkeys(label_set.file_values, 100)

        def case(number: int, name: str) -> CaseMeasures:
            values = {"minimum": -1024, "maximum": 2000, "mean": -500, "std": 400, "foreground": None}
            channel = ChannelMeasures(kind=kinds[number], why="made", sure=True, **values)
            size = crop or shape
            return CaseMeasures(
                content_key=name,
                label_key=name,
                spacing=spacing,
                shape=shape,
                planar=planar,
                tilt=tilt if number == 0 else 0.0,
                orientation="LPS",
                crop_box=tuple((0, n) for n in size),
                channels=[channel] * len(channels),
                label_voxels=(shown or {}).get(name, voxels),
                side_overlap={},
            )

        values = {
            "mean": -600,
            "std": 300,
            "median": -700,
            "minimum": -1024,
            "maximum": 400,
            "percentile_00_5": -950,
            "percentile_99_5": 120,
        }
        summary = {kind: KindSummary(cases=kinds.count(kind), **values) for kind in set(kinds)}
        sides = [("lung_left", "lung_right")] if pairs is None else pairs
        fingerprint = Fingerprint(
            cases={name: case(number, name) for number, name in enumerate(names)},
            channels=dict.fromkeys(channels, summary),
            classes={name: ClassSummary(annotated=len(names), cases=len(names), share=0.1, median_ml=100) for name in label_set.names},
            sides=SidesSummary(
                pairs=[SidePair(left=a, right=b, overlap=0.9, volume_ratio=1.1) for a, b in sides],
                unpaired=unpaired or [],
                rejected=[],
            ),
            median_relative_size_after_crop=relative,
        )
        files = tuple(CaseFiles(name, (Path(f"{name}.nii.gz"),)) for name in names)
        dataset = Dataset("made", Path("made"), "nnU-Net", files, channels, label_set, **more)
        return dataset, fingerprint

    return make


@pytest.fixture
def planned(measured: Callable[..., tuple[Dataset, Fingerprint]]) -> Callable[..., Plan]:
    """The plan of a measured dataset."""

    def make(
        recipe: str = "auto",
        *,
        device: str = "cpu",
        memory_gb: float = 16,
        settings: dict | None = None,
        options: dict | None = None,
        **data: Any,
    ) -> Plan:
        dataset, fingerprint = measured(**data)
        wanted = {"set": settings or {}, **(options or {})}
        return plan(dataset, fingerprint, load_recipe(recipe), made_for=MadeFor(device=device, memory_gb=memory_gb), options=wanted)

    return make
