"""train --probe says before the first epoch how long training will take and what memory it needs, and is right about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg import pipeline
from autoseg.cli.main import main
from autoseg.files import Work, read_json
from autoseg.planning.plan_file import read_plan
from autoseg.training import probe
from autoseg.training.history import read_rows

SMALL = {"training.epochs": 2, "training.steps_per_epoch": 4, "patch_size": [8, 16, 16], "network.features": [4, 8]}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(probe, "TRIAL_SECONDS", 0.0)


def test_a_probe_is_printed_kept_and_explained(make_dataset, tmp_path, brief, capsys):
    work = Work(tmp_path / "work")
    pipeline.plan_and_preprocess(make_dataset(), work.path, settings=SMALL, device="cpu", workers=0, quiet=True)
    assert main(["train", str(work.path), "--fold", "0", "1", "--probe", "--device", "cpu", "--workers", "0", "--quiet"]) == 0
    found = read_json(work.forecast, "forecast")["configurations"]["3d_fullres"]
    assert (found["device"], found["fold"], found["folds"], found["epochs"], found["held_out"]) == ("cpu", 0, 2, 2, 1)
    assert found["seconds_per_epoch"] == pytest.approx(4 * found["seconds_per_step"] + 2 * found["seconds_per_held_out_batch"], rel=0.02)
    assert found["seconds_of_training"] == pytest.approx(2 * found["seconds_per_epoch"] + found["seconds_to_start"], rel=0.02)
    assert found["seconds_per_fold"] == pytest.approx(found["seconds_of_training"] + found["seconds_of_held_out"], abs=0.1)
    # so small a net may find room in what earlier tests freed; tests/training/test_step_memory.py measures in processes of its own
    assert 0 <= found["peak_memory_gb"] < 1 and found["forecast_memory_gb"] > 0
    assert {trial["memory_layout"] for trial in found["trials"]} == {"contiguous", "channels_last"}
    for fold in (0, 1):  # both folds follow what was fastest, and say so
        training = read_plan(work.fold("3d_fullres", fold).plan).training
        assert (training.precision, training.memory_layout) == (found["precision"], found["memory_layout"])
    best = min(found["trials"], key=lambda trial: trial["seconds"])
    assert (best["precision"], best["memory_layout"]) == (found["precision"], found["memory_layout"])
    assert "s a step" in pipeline.info(work.path) and "held-out" in pipeline.info(work.path)
    assert str(tmp_path) not in work.forecast.read_text()


def test_without_a_probe_nothing_is_measured(make_dataset, tmp_path):
    work = Work(tmp_path / "work")
    pipeline.plan_and_preprocess(make_dataset(), work.path, settings=SMALL, device="cpu", workers=0, quiet=True)
    pipeline.train(work.path, folds=[0], epochs=1, device="cpu", workers=0, quiet=True)
    assert not work.forecast.exists()
    assert read_plan(work.fold("3d_fullres", 0).plan).training.memory_layout == "channels_last"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_times_are_those_of_the_run_that_follows(shared_data, tmp_path: Path):
    """On a machine that does nothing else: load that comes or goes between probe and run is not foreseen."""
    work = Work(tmp_path / "work")
    settings = {"training.steps_per_epoch": 20}
    pipeline.plan_and_preprocess(shared_data("hippocampus"), work.path, settings=settings, device="cpu", quiet=True)
    pipeline.train(work.path, folds=[0], epochs=4, device="cpu", probe=True, quiet=True)
    found = json.loads(work.forecast.read_text())["configurations"]["3d_fullres"]
    rows = read_rows(work.fold("3d_fullres", 0).history)
    measured = sum(row["epoch_seconds"] for row in rows) / len(rows)
    print(f"epoch: probe {found['seconds_per_epoch']:.1f} s, run {measured:.1f} s")
    assert found["seconds_per_epoch"] == pytest.approx(measured, rel=0.3)
    assert found["seconds_of_training"] == pytest.approx(rows[-1]["seconds"], rel=0.3)
