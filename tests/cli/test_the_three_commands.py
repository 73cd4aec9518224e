"""The commands as they are typed: what they print, what they leave, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoseg.cli.main import main

AUTOSEG = Path(sys.executable).parent / "autoseg"
TINY = ["patch_size=[8,16,16]", "network.features=[4,8]", "training.epochs=1", "training.steps_per_epoch=2"]


def _plan(dataset: Path, work: Path, *more: str) -> int:
    return main(["plan-and-preprocess", str(dataset), str(work), "--workers", "0", "--quiet", "--set", *TINY, *more])


def test_plan_train_predict_evaluate(make_dataset, tmp_path, capsys):
    dataset, work, out = make_dataset(cases=5), tmp_path / "work", tmp_path / "out"
    assert main(["doctor", str(dataset), "--workers", "0", "--quiet"]) == 0
    assert "All 5 cases can be used." in capsys.readouterr().out

    assert _plan(dataset, work) == 0
    said = capsys.readouterr().out
    assert "patch 8 x 16 x 16 voxels" in said and f"Next: autoseg train {work}" in said

    assert main(["train", str(work), "--fold", "0", "1", "--workers", "0", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "Mean Dice of the 2 classes" in said and "3d_fullres 0, 3d_fullres 1" in said

    assert main(["info", str(work)]) == 0
    said = capsys.readouterr().out
    assert "3d_fullres fold 1: scored" in said and "3d_fullres fold 2: not begun" in said and "It would be another if" in said

    assert main(["predict", str(work), str(dataset / "imagesTr"), str(out), "--quiet"]) == 0
    assert "5 of 5 cases predicted" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["cases"]["case_00"]["folds"] == [0, 1]

    scores = tmp_path / "scores.json"
    assert main(["evaluate", str(out), str(dataset / "labelsTr"), "--labels", str(dataset / "dataset.json"), "--output", str(scores)]) == 0
    assert json.loads(scores.read_text())["schema"] == "autoseg.evaluation/1"
    assert main(["evaluate", str(work)]) == 0
    assert "Cross-validation: 2 cases in 2 folds" in capsys.readouterr().out


def test_a_failed_case_gives_status_1_and_a_table(make_dataset, tmp_path, capsys):
    dataset = make_dataset(cases=6)
    (dataset / "labelsTr" / "case_03.nii.gz").write_bytes(b"")
    assert _plan(dataset, tmp_path / "work") == 1
    said = capsys.readouterr().out
    assert "case_03, case_03.nii.gz: UnreadableFileError" in said and "5 cases are ready" in said


def test_strict_and_impossible_settings_give_status_2(make_dataset, tmp_path, capsys):
    dataset = make_dataset(cases=6)
    assert _plan(dataset, tmp_path / "a", "patch_size=[8,16]") == 2
    assert "PlanError" in capsys.readouterr().err
    assert _plan(dataset, tmp_path / "b", "patch_siz=[8,16,16]") == 2
    assert "patch_size" in capsys.readouterr().err, "the nearest key is named"
    (dataset / "labelsTr" / "case_03.nii.gz").unlink()
    assert _plan(dataset, tmp_path / "c", "--strict") == 2


def test_a_configuration_that_was_not_prepared_is_named(make_dataset, tmp_path, capsys):
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    assert _plan(dataset, work) == 0
    assert main(["train", str(work), "--config", "2d", "--fold", "0", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "5 of 5 cases are not prepared for 2d" in said and "plan-and-preprocess DATASET work --config 2d" in said
    assert main(["train", str(work), "--config", "4d", "--quiet"]) == 2
    assert "4d" in capsys.readouterr().err


def test_doctor_speaks_json(make_dataset, tmp_path, capsys):
    dataset = make_dataset(cases=6)
    (dataset / "labelsTr" / "case_03.nii.gz").unlink()
    assert main(["doctor", str(dataset), "--json", "--quiet", "--workers", "0"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["problems"][0]["case"] == "case_03" and len(content["cases"]) == 5


@pytest.mark.timeout(200)
def test_sigterm_ends_with_130_and_the_same_command_goes_on(make_dataset, tmp_path):
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    assert _plan(dataset, work, "--replan") == 0
    command = [AUTOSEG, "train", work, "--fold", "0", "--epochs", "3000", "--workers", "0", "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    history = work / "models" / "3d_fullres" / "fold_0" / "history.jsonl"
    until = time.monotonic() + 120
    while not (history.is_file() and history.stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in said and "Traceback" not in said
    before = len(history.read_text().splitlines())
    again = subprocess.run([*command[:6], str(before + 2), *command[7:]], capture_output=True, text=True)
    assert again.returncode == 1, "another number of epochs is another plan"
    assert "epochs" in again.stdout
