"""A run that is killed at any moment, by SIGKILL, and taken up again gives the weights of one that was not. A log is printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from autoseg.errors import BusyError
from autoseg.training import history
from autoseg.training.state import previous_checkpoint

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

import torch

from autoseg import files
from autoseg.files import FoldFolder
from autoseg.network import weights
from autoseg.planning.folds import Fold
from autoseg.planning.schema import Plan
from autoseg.training import history, loop, state

given = json.loads(Path(sys.argv[1]).read_text())
where, count = sys.argv[2], int(sys.argv[3])
calls = {"n": 0}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


real_save, real_replace, real_append, real_weights = torch.save, Path.replace, history.append_row, weights.save_weights


def half_written(content, path):
    calls["n"] += 1
    real_save(content, path)
    if calls["n"] == count:
        os.truncate(path, os.path.getsize(path) // 2)
        die()


def renamed(self, target):
    name = Path(target).name
    mine = {"before the previous": "checkpoint_previous.pt", "before the last": "checkpoint_last.pt"}.get(where)
    calls["n"] += name == mine
    if name == mine and calls["n"] == count:
        die()
    return real_replace(self, target)


def appended(path, row):
    calls["n"] += 1
    if calls["n"] == count:
        with path.open("a") as file:
            file.write(json.dumps(row)[:40])
            file.flush()
        die()
    real_append(path, row)


def weights_written(path, *arguments):
    die()


if where == "half a checkpoint":
    torch.save = half_written
elif where in ("before the previous", "before the last"):
    Path.replace = renamed
elif where == "half a history row":
    history.append_row = appended
elif where == "before the weights":
    from autoseg.training import checkpoints
    checkpoints.save_weights = weights_written

torch.set_num_threads(given["threads"])
plan, fold = Plan.model_validate(given["plan"]), Fold(0, tuple(given["train"]), tuple(given["held_out"]))
files.sweep(Path(given["folder"]))  # as the command does
print("up", flush=True)
loop.train_fold(plan, "net", fold, Path(given["store"]), FoldFolder(Path(given["folder"])), device="cpu", workers=given["workers"],
                deadline=None, quiet=True, message=lambda text: print(text, flush=True))
"""


class Runs:
    """Starts a fold in processes of its own."""

    def __init__(self, made, folder: Path, workers: int) -> None:
        self.script, self.given = folder / "run.py", folder / "given.json"
        self.script.write_text(SCRIPT)
        content = {"plan": made.content, "train": made.fold.train, "held_out": made.fold.held_out, "store": str(made.store)}
        self.given.write_text(json.dumps({**content, "folder": str(made.folder.path), "workers": workers, "threads": 1}))
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def start(self, where: str = "nowhere", count: int = 0) -> subprocess.Popen:
        command = [sys.executable, str(self.script), str(self.given), where, str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        assert process.stdout.readline() == "up\n"
        return process


def wait_for_steps(made, steps: int) -> None:
    """Until so many more checkpoints have appeared; there is one a step."""
    before = None
    until = time.monotonic() + 300
    while steps > 0:
        assert time.monotonic() < until
        now = made.folder.checkpoint.stat().st_mtime_ns if made.folder.checkpoint.is_file() else before
        steps -= before is not None and now != before
        before = now
        time.sleep(0.005)


def step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["values"]["step"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 1])
def test_fourteen_kills_and_the_same_weights(make_fold, tmp_path, workers):
    made = make_fold().again("whole", epochs=10, steps_per_epoch=10, predict_with="best_training_loss", checkpoint_minutes=1e-6)
    made.train()
    other = made.again("killed")
    runs = Runs(other, tmp_path, workers)
    rng = np.random.default_rng(workers)
    kills = [
        *[("half a checkpoint", 4), ("before the previous", 7), ("before the last", 9), ("half a history row", 1)],
        *[("a random moment", 0)] * 8,
        *[("half a checkpoint", 2), ("before the weights", 1)],
    ]
    for number, (where, count) in enumerate(kills, 1):
        process, began = runs.start(where if where != "a random moment" else "nowhere", count), time.monotonic()
        if where == "a random moment":
            assert "goes on after" in process.stdout.readline()
            wait_for_steps(other, int(rng.integers(1, 9)))
            time.sleep(float(rng.uniform(0.0, 0.3)))
            process.kill()
        said = process.stdout.read().strip().replace("\n", " | ")
        assert process.wait() == -signal.SIGKILL, f"kill {number} ({where}) came too late: {said}"
        rows = len(history.read_rows(other.folder.history))
        kept = {path.name: step_of(path) for path in (other.folder.checkpoint, previous_checkpoint(other.folder)) if path.is_file()}
        at = ", ".join(f"{name} of step {step}" for name, step in kept.items())
        print(f"kill {number:2d}, {workers} workers, {where}, after {time.monotonic() - began:.1f} s: {rows} epochs written, {at}. {said}")
    process = runs.start()
    print(f"the last run said: {process.stdout.read().strip()}")
    assert process.wait() == 0
    assert all(torch.equal(weight, made.weights()[name]) for name, weight in other.weights().items())
    keep = ("epoch", "step", "loss", "dice", "val_loss", "lr", "progress")
    rows, others = ([{k: r[k] for k in keep} for r in history.read_rows(m.folder.history)] for m in (made, other))
    assert rows == others
    left = [p.name for p in other.folder.path.iterdir() if p.name.startswith(".") and p.name != ".lock"]
    assert not left, "nothing half-written stays"
    assert step_of(other.folder.checkpoint) == 100 >= step_of(previous_checkpoint(other.folder))


@pytest.mark.timeout(200)
def test_a_fold_that_is_being_trained_is_refused_and_a_dead_ones_is_taken_over(make_fold, tmp_path):
    """And its data workers die with it."""
    made = make_fold().again("long", epochs=10_000)
    process = Runs(made, tmp_path, workers=2).start()
    try:
        until = time.monotonic() + 120
        while not made.folder.history.is_file() or not made.folder.history.stat().st_size:
            assert time.monotonic() < until
            time.sleep(0.05)
        with pytest.raises(BusyError, match="another process works on net fold 0"):
            made.train()
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "no orphan process remains"
    epochs = len(history.read_rows(made.folder.history))

    def stop(path, row, real=history.append_row):
        from autoseg.training.interruption import Stopped

        real(path, row)
        raise Stopped

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(history, "append_row", stop)
        with pytest.raises(KeyboardInterrupt):
            made.train()
    assert any("goes on after" in m for m in made.messages)
    assert len(history.read_rows(made.folder.history)) >= min(epochs, 1)


def test_what_a_killed_process_was_writing_is_removed(make_fold):
    made = make_fold()
    made.folder.path.mkdir(parents=True)
    (made.folder.path / ".0a1b2c3d.checkpoint_last.pt").write_bytes(b"half")
    made.train()
    assert [p.name for p in made.folder.path.iterdir() if p.name.startswith(".")] == [".lock"]
