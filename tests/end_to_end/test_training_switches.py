"""train's switches, from the command line to what lies in WORK afterwards."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from autoseg import pipeline
from autoseg.cli.main import main
from autoseg.network.weights import load_weights
from autoseg.planning.plan_file import read_plan

FOLD = Path("models/3d_fullres/fold_0")


def planned(dataset: Path, work: Path, settings: dict) -> Path:
    pipeline.plan_and_preprocess(dataset, work, settings=settings, workers=0, quiet=True)
    return work


def train(work: Path, *switches: str) -> int:
    return main(["train", str(work), "--workers", "0", "--quiet", *switches])


def weights(work: Path, fold: Path = FOLD) -> dict[str, torch.Tensor]:
    return load_weights(work / fold / "weights.safetensors")[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_validate_only_predicts_and_scores_again_and_trains_nothing(make_dataset, tiny, tmp_path, capsys):
    work = planned(make_dataset(cases=5), tmp_path / "work", tiny)
    assert train(work, "--fold", "0") == 0
    scores, before = work / FOLD / "scores.json", (work / FOLD / "weights.safetensors").stat().st_mtime_ns
    expected = scores.read_text()
    scores.unlink()
    for path in (work / FOLD / "held_out").iterdir():
        path.unlink()
    capsys.readouterr()
    assert train(work, "--validate-only", "--fold", "0", "1") == 1, "fold 1 has not finished"
    assert "fold 1: TrainingError: it has not finished training" in capsys.readouterr().out
    assert scores.read_text() == expected and list((work / FOLD / "held_out").iterdir())
    assert (work / FOLD / "weights.safetensors").stat().st_mtime_ns == before
    assert not (work / "models/3d_fullres/fold_1").exists()


def test_a_finished_fold_goes_on_with_extend_and_is_skipped_without(make_dataset, tiny, tmp_path, capsys):
    work = planned(make_dataset(cases=5), tmp_path / "work", tiny)
    assert train(work, "--fold", "0") == 0
    first = weights(work)
    assert train(work, "--fold", "0", "--epochs", "3") == 0 and same(weights(work), first), "done folds are skipped"
    assert train(work, "--fold", "0", "--epochs", "3", "--extend") == 0
    rows = [json.loads(line) for line in (work / FOLD / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3] and not same(weights(work), first)
    assert (work / FOLD / "scores.json").is_file() and read_plan(work / FOLD / "plan.json").training.epochs == 3
    extended = weights(work)
    assert train(work, "--fold", "0", "--epochs", "3", "--extend") == 0 and same(weights(work), extended), "the same command again"
    assert train(work, "--extend") == 2
    assert "--extend does not say by how much" in capsys.readouterr().err


@pytest.mark.slow
def test_a_budget_run_is_repeated_in_another_work(make_dataset, tiny, tmp_path):
    dataset = make_dataset(cases=5)
    work, again = (planned(dataset, tmp_path / name, tiny) for name in ("work", "again"))
    assert train(work, "--fold", "0", "--budget", "10s") == 0
    assert train(again, "--replay", str(work / FOLD)) == 0
    assert same(weights(work), weights(again))
    assert (work / FOLD / "scores.json").read_text() == (again / FOLD / "scores.json").read_text()
    other = planned(dataset, tmp_path / "other", tiny | {"network.features": [5, 9]})
    assert train(other, "--replay", str(work / FOLD)) == 1


def test_given_weights_are_taken_printed_and_recorded(make_dataset, tiny, tmp_path, caplog):
    work = planned(make_dataset(cases=5), tmp_path / "work", tiny)
    assert train(work, "--fold", "full") == 0
    source = work / "models/3d_fullres/fold_full"
    values = {"cases": 5, "values": (1, 3), "labels": {"background": 0, "front": 1, "other": 3}, "name": "new"}
    tuned = planned(make_dataset(**values, channels=("MR", "CT")), tmp_path / "tuned", tiny | {"training.start.freeze_epochs": 1})
    assert train(tuned, "--fold", "0", "--weights", str(work)) == 0
    start = read_plan(tuned / FOLD / "plan.json").training.start
    assert start.transfer.source == "weights.safetensors of 3d_fullres fold full" and start.freeze_epochs == 1
    assert start.transfer.partly["heads.0.bias"] == "outputs background, front taken, other fresh"
    first = next(name for name in start.transfer.partly if name.startswith("encoder"))
    assert start.transfer.partly[first] == "channels MR taken, CT at 0"
    assert str(tmp_path) not in (tuned / FOLD / "plan.json").read_text()
    log = (tuned / "log.txt").read_text()
    assert "starts from weights.safetensors of 3d_fullres fold full" in log and "other fresh" in log
    given, trained = load_weights(source / "weights.safetensors")[0], weights(tuned)
    frozen = [name for name in start.transfer.taken if name.endswith("conv.weight")]
    assert frozen and all(torch.equal(given[name], trained[name]) for name in frozen), "the only epoch was a frozen one"
    assert train(work, "--fold", "0", "--weights", str(source)) == 1, "it saw the cases that fold 0 holds out"


def test_a_fold_that_another_process_trains_is_refused_by_name(make_dataset, tiny, tmp_path, capsys):
    from autoseg.files import Work, locked

    work = planned(make_dataset(cases=5), tmp_path / "work", tiny)
    with locked(Work(work).fold("3d_fullres", 0).lock, "it"):
        assert train(work, "--fold", "0") == 1
    assert "BusyError: another process works on 3d_fullres fold 0" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folds", [["0"], ["all"]])
def test_a_budget_is_met_within_three_per_cent_scores_included(make_dataset, tiny, tmp_path, folds):
    """On a machine with nothing else to do; what else runs shows in the time that a step takes, and that is what is measured."""
    settings = tiny | {"training.steps_per_epoch": 20, "training.augmentation.transforms": []}
    dataset = make_dataset(cases=10, shape=(40, 96, 96))
    work = planned(dataset, tmp_path / "work", settings)
    budget = 60.0 * (1 if folds == ["0"] else 4)
    began = time.time()
    assert train(work, "--fold", *folds, "--budget", f"{budget:.0f}s") == 0
    took = max(path.stat().st_mtime for path in (work / "models/3d_fullres").glob("fold_*/scores.json")) - began
    print(f"a budget of {budget:.0f} s for folds {' '.join(folds)}: the last score came after {took:.1f} s ({took / budget:.1%})")
    assert 0.97 * budget <= took <= 1.03 * budget
