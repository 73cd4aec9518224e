"""Cases and datasets built from arrays, and real datasets measured once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.case import Case, Dataset, LabelMap, Volume
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.labels import LabelSet
from autoseg.fingerprint.case_measures import measure_case
from autoseg.fingerprint.measure import Measurement, gather, measure
from autoseg.fingerprint.merge import summarise
from autoseg.fingerprint.types import Fingerprint
from autoseg.geometry import Grid, Orientation


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """A case in LPS axes from arrays (z, y, x); one array is one channel."""

    def make(name: str, image: np.ndarray, labels: np.ndarray, spacing=(1.0, 1.0, 1.0), direction=None, key: str | None = None) -> Case:
        voxels = np.asarray(image, np.float32)
        voxels = voxels[None] if voxels.ndim == 3 else voxels
        grid = Grid(labels.shape, spacing, **({"direction": direction} if direction else {}))
        return Case(name, Volume(voxels, grid), LabelMap(labels.astype(np.uint8), grid), grid, Orientation(), key or f"key of {name}")

    return make


@pytest.fixture
def make_described() -> Callable[..., Dataset]:
    """A dataset without files, for functions that look at names and labels only."""

    def make(labels: dict | None, channels: tuple[str, ...] = ("MR",), **more) -> Dataset:
        declared = None if labels is None else LabelSet.declared({"background": 0, **labels})
        return Dataset("made", Path(), "made", (), channels, declared, **more)

    return make


@pytest.fixture
def measured_cases(make_case, make_described):
    """Measures of cases given as name -> (image, labels), and their dataset."""

    def make(cases: dict, labels: dict, channels: tuple[str, ...] = ("MR",), spacing=(1.0, 1.0, 1.0), **more):
        dataset = make_described(labels, channels, **more)
        measured = {name: measure_case(make_case(name, *arrays, spacing=spacing), dataset) for name, arrays in cases.items()}
        return {name: case.measures for name, case in measured.items()}, dataset

    return make


@pytest.fixture
def summarised(make_case, make_described):
    """The fingerprint of cases given as name -> (image, labels)."""

    def make(cases: dict, labels: dict, channels: tuple[str, ...] = ("MR",), spacing=(1.0, 1.0, 1.0), **more) -> Fingerprint:
        dataset, spread, measures = make_described(labels, channels, **more), {}, {}
        for name, arrays in cases.items():
            case = measure_case(make_case(name, *arrays, spacing=spacing), dataset)
            gather(spread, case, channels, dataset.intensity_kinds.get(name, {}))
            measures[name] = case.measures
        return summarise(measures, spread, dataset)

    return make


@pytest.fixture(scope="session")
def measured_real(shared_data) -> Callable[[str], Measurement]:
    """A real dataset by name, measured."""

    @cache
    def find(name: str) -> Measurement:
        return measure(open_dataset(shared_data(name)), orientation="lps", workers=1)

    return find
