"""Channels on different grids and segments that overlap, from a raw folder to predictions on fresh images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import pipeline
from autoseg.cli.main import main
from autoseg.data.choices import Choices
from autoseg.errors import DatasetError, PlanError
from autoseg.geometry import Grid
from autoseg.planning.plan_file import read_plan
from tests.data.test_annotations import write_slicer

T1 = Grid((16, 24, 24), (2.0, 1.0, 1.0), (5.0, -3.0, 10.0))
FLAIR = Grid((10, 20, 20), (3.3, 1.3, 1.25), (4.0, -4.0, 9.0))


def shapes(grid: Grid, number: int) -> dict[str, np.ndarray]:
    """A large ball with a small one that sticks out of it, at points in the patient."""
    points = grid.points(np.argwhere(np.ones(grid.shape))).reshape(*grid.shape, 3)
    middle = np.array([16.0 + number % 2, 8.0, 25.0])
    inner = middle + [5.0, 0.0, 0.0]
    return {"organ": ((points - middle) ** 2).sum(-1) < 49, "lesion": ((points - inner) ** 2).sum(-1) < 16}


def save(path: Path, voxels: np.ndarray, grid: Grid) -> None:
    image = sitk.GetImageFromArray(voxels.astype(np.float32))
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    sitk.WriteImage(image, str(path))


def make(folder: Path, cases: int) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        rng = np.random.default_rng(number)
        for channel, grid in enumerate((T1, FLAIR)):
            masks = shapes(grid, number)
            voxels = 100 + 80 * masks["organ"] + 60 * masks["lesion"] * (channel + 1) + rng.normal(0, 6, grid.shape)
            save(folder / "imagesTr" / f"case_{number}_{channel:04d}.nii.gz", voxels, grid)
        write_slicer(folder / "labelsTr" / f"case_{number}.seg.nrrd", shapes(T1, number), T1, tuple(slice(0, n) for n in T1.shape))
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_grids_and_names_that_differ_go_the_whole_way(tiny, tmp_path):
    dataset, work = make(tmp_path / "raw", 5), tmp_path / "work"
    with pytest.raises(DatasetError, match="--regrid to-first"):
        pipeline.plan_and_preprocess(dataset, work, settings=tiny, workers=0, quiet=True)
    switch = Choices(regrid="to-first")
    assert not [p for p in pipeline.doctor(dataset, choices=switch, workers=0, quiet=True).problems if p.severity == "error"]

    settings = [part for key, value in tiny.items() for part in ("--set", f"{key}={str(value).replace(' ', '')}")]
    typed = ["plan-and-preprocess", str(dataset), str(work), "--regrid", "to-first", "--workers", "0", "--quiet", *settings]
    assert main(typed) == 0
    plan = read_plan(work / "plan.json")
    assert plan.dataset.regrid == "to_first" and json.loads((work / "dataset.json").read_text())["choices"] == {"regrid": "to-first"}
    assert any(reason.decision == "dataset.regrid" for reason in plan.reasons)
    assert plan.dataset.regions == {"organ": [2, 3], "lesion": [1, 3]} and plan.dataset.region_order[0][0] == "organ"
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(work / "references" / "case_0.nii.gz")))
    for name, mask in shapes(T1, 0).items():
        assert np.array_equal(np.isin(reference, plan.dataset.regions[name]), mask), name

    stored = {path: path.stat().st_mtime_ns for path in (work / "preprocessed").rglob("*") if path.is_file()}
    pipeline.plan_and_preprocess(dataset, work, workers=0, quiet=True)  # the switch is kept, and nothing is done twice
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    with pytest.raises(PlanError, match=r"dataset\.regrid: files are read before"):
        pipeline.plan_and_preprocess(dataset, tmp_path / "other", settings={"dataset.regrid": "to_first"}, choices=switch, workers=0)

    trained = pipeline.train(work, folds=(0,), workers=0, quiet=True)
    assert not trained.problems
    predicted = pipeline.predict(work, make(tmp_path / "new", 6) / "imagesTr", tmp_path / "out", folds=[0], quiet=True)
    fresh = {result.case: result for result in predicted.results}["case_5"]
    assert fresh.error is None and any("resampled onto the grid of the first image" in w.message for w in fresh.warnings)
    assert sitk.ReadImage(str(fresh.output)).GetSize() == T1.shape[::-1]
    known = {result.case: result.trained_on for result in predicted.results}
    assert all(known[f"case_{n}"] == (0,) or f"case_{n}" in trained.crossvals["3d_fullres"].cases[0].case for n in range(5))
