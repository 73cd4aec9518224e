"""One fold's training: repeatable to the bit, resumable, ended on time, steered by nothing that is held out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.errors import BusyError, PlanError, TrainingError
from autoseg.files import locked
from autoseg.network.weights import load_weights
from autoseg.planning.plan_file import read_plan
from autoseg.preprocessing.store import write_case
from autoseg.training import history, loop
from autoseg.training.state import previous_checkpoint


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Interrupted:
    """Sends this process a signal when its n-th training step begins."""

    def __init__(self, monkeypatch, steps: int, number: int = signal.SIGTERM) -> None:
        real, self.left = loop.train_step, steps

        def step(*arguments):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), number)
            return real(*arguments)

        monkeypatch.setattr(loop, "train_step", step)


def test_a_run_leaves_its_plan_weights_history_and_picture(make_fold):
    made = make_fold()
    run = made.train()
    assert (run.epochs, run.steps, run.finished) == (3, 12, True)
    assert read_plan(made.folder.plan) == made.plan
    _, about = load_weights(made.folder.weights)
    assert about["trained_on"] == {f"case_{i}": f"key_{i}" for i in range(4)}
    assert about["labels"] == {"left": [1], "right": [2]} and about["channels"] == ["channel_0"] and about["steps"] == 12
    rows = history.read_rows(made.folder.history)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and [row["step"] for row in rows] == [4, 8, 12]
    for row in rows:
        assert set(row["dice"]) == set(row["val_dice"]) == {"left", "right"}
        assert row["loss"] == pytest.approx(row["tversky"] + row["cross_entropy"], rel=1e-5)
        assert 0 <= row["data_wait"] <= 1 and row["val_loss"] > 0
    assert rows[-1]["progress"] == 11 / 12
    assert made.folder.progress.read_bytes()[:4] == b"\x89PNG"


def test_the_loss_falls_and_dice_rises(make_fold):
    made = make_fold().again("long", epochs=12, steps_per_epoch=10)
    made.train()
    rows = history.read_rows(made.folder.history)
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["val_dice"]["left"] > 0.6 and rows[-1]["val_dice"]["right"] > 0.6


@pytest.mark.parametrize(("dimension", "channels", "regions"), [(2, 1, False), (2, 3, True), (3, 2, True)])
def test_one_loop_for_2d_3d_channels_and_regions(make_fold, dimension, channels, regions):
    made = make_fold(dimension, channels, regions).again("x", deep_supervision=True, case_order="with_replacement")
    assert made.train().finished
    row = history.read_rows(made.folder.history)[-1]
    assert set(row["dice"]) == ({"whole", "left", "right"} if regions else {"left", "right"})


@pytest.mark.parametrize("backend", ["native", "batchgenerators"])
def test_weights_do_not_depend_on_the_number_of_workers(make_fold, backend):
    """Threads, or processes for batchgenerators."""
    made = make_fold().again("workers_0", augmentation__backend=backend)
    made.train(workers=0)
    for workers in (1, 2):
        other = made.again(f"workers_{workers}")
        other.train(workers=workers)
        assert same(made.weights(), other.weights())


@pytest.mark.parametrize("dimension", [2, 3])
def test_images_changed_on_the_device_that_trains_give_a_run_that_repeats(make_fold, dimension):
    made = make_fold(dimension, channels=2).again("there", augmentation__device="training")
    made.train(workers=0)
    other = made.again("there_again")
    other.train(workers=2)
    assert same(made.weights(), other.weights())


def test_seed_and_fold_change_the_weights_and_nothing_else_does(make_fold):
    made = make_fold()
    torch.manual_seed(1)
    made.train()
    torch.manual_seed(2)
    again = made.again("again")
    expected = torch.rand(3)
    torch.manual_seed(2)
    again.train()
    assert torch.equal(torch.rand(3), expected)  # the caller's generator is left alone
    assert same(made.weights(), again.weights())
    other_seed = made.again("seed", seed=1)
    other_seed.train()
    assert not same(made.weights(), other_seed.weights())
    other_fold = replace(made.again("fold"), fold=replace(made.fold, name=1))
    other_fold.train()
    assert not same(made.weights(), other_fold.weights())


def test_held_out_labels_steer_nothing(make_fold, one_case):
    made = make_fold().again("seen", predict_with="best_training_loss", schedule__name="plateau", schedule__patience=1, early_stop=3)
    made.train()
    for number in (4, 5):
        case = one_case(number, 1)
        shuffled = np.random.default_rng(0).permutation(case.labels.ravel()).reshape(case.labels.shape)
        write_case(made.store, replace(case, labels=shuffled), "other key")
    other = made.again("shuffled")
    other.train()
    rows, others = (history.read_rows(m.folder.history) for m in (made, other))
    assert [r["val_loss"] for r in rows] != [r["val_loss"] for r in others]  # the labels did change what was seen
    assert [r["loss"] for r in rows] == [r["loss"] for r in others]
    assert same(made.weights(), other.weights())
    unseen = made.again("unseen", validation__batches=0)
    unseen.train()
    assert same(made.weights(), unseen.weights())


@pytest.mark.parametrize(("at", "predict_with"), [(1, "average"), (4, "best_training_loss"), (6, "average"), (12, "best_training_loss")])
def test_interrupted_and_resumed_is_not_interrupted(make_fold, monkeypatch, at, predict_with):
    """Bit by bit, also in the middle and at the very end of an epoch; the history reads as if nothing had been."""
    made = make_fold().again("whole", predict_with=predict_with, schedule__name="plateau", schedule__patience=1)
    made.train()
    other = made.again("torn")
    with monkeypatch.context() as patched:
        Interrupted(patched, at)
        with pytest.raises(KeyboardInterrupt):
            other.train()
    assert not other.folder.weights.is_file()
    assert other.train().finished
    assert any("interrupted" in m for m in other.messages) and any("goes on" in m for m in other.messages)
    assert same(made.weights(), other.weights())
    keep = ("epoch", "step", "steps", "loss", "dice", "val_loss", "val_dice", "lr", "progress")
    rows, others = ([{k: r[k] for k in keep} for r in history.read_rows(m.folder.history)] for m in (made, other))
    assert rows == others


def test_ctrl_c_while_waiting_for_data_ends_at_once(make_fold, monkeypatch):
    made = make_fold()
    made.train()
    before = signal.getsignal(signal.SIGINT)
    other, real, left = made.again("torn"), loop.SampleMaker.__call__, iter(range(100))

    def make(self, ticket):
        if next(left) == 7:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the signal was not obeyed")
        return real(self, ticket)

    with monkeypatch.context() as patched:
        patched.setattr(loop.SampleMaker, "__call__", make)
        with pytest.raises(KeyboardInterrupt):
            other.train()
    assert signal.getsignal(signal.SIGINT) is before
    other.train()
    assert same(made.weights(), other.weights())


def test_killed_and_resumed_is_not_killed(make_fold, tmp_path):
    """SIGKILL at random times, in a process of its own, checkpoint and history writes included."""
    made = make_fold().again("whole", epochs=6)
    made.train()
    other = made.again("killed", checkpoint_minutes=1e-6)  # after every step
    plan = tmp_path / "plan_content.json"
    plan.write_text(json.dumps(other.content))
    script = tmp_path / "run.py"
    script.write_text(
        "import json, torch\nfrom pathlib import Path\nfrom autoseg.files import FoldFolder\nfrom autoseg.planning.folds import Fold\n"
        "from autoseg.planning.schema import Plan\nfrom autoseg.training.loop import train_fold\n"
        f"plan = Plan.model_validate(json.loads(Path({str(plan)!r}).read_text()))\n"
        f"fold = Fold(0, {made.fold.train!r}, {made.fold.held_out!r})\ntorch.set_num_threads(1)\nprint('up', flush=True)\n"
        f"train_fold(plan, 'net', fold, Path({str(made.store)!r}), FoldFolder(Path({str(other.folder.path)!r})), device='cpu', workers=0,\n"
        "           deadline=None, quiet=True, message=print)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    rng, kills = np.random.default_rng(0), 0
    for _ in range(20):
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout.readline() == "up\n"
            if kills < 2:
                time.sleep(float(rng.uniform(0.1, 0.6)))
                process.kill()
                kills += 1
                continue
            process.stdout.read()
        assert process.returncode == 0
        break
    assert same(made.weights(), other.weights())


def test_a_damaged_checkpoint_is_passed_over_for_the_previous(make_fold, monkeypatch):
    made = make_fold()
    made.train()
    other = made.again("torn", checkpoint_minutes=1e-6)
    with monkeypatch.context() as patched:
        Interrupted(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            other.train()
    assert previous_checkpoint(other.folder).is_file()
    whole = other.folder.checkpoint.read_bytes()
    other.folder.checkpoint.write_bytes(whole[: len(whole) // 2])
    other.train()
    assert any("checkpoint_last.pt was passed over" in m for m in other.messages)
    # checkpoint_minutes differs between the plans, which changes nothing that is trained
    assert same(made.weights(), other.weights())


def test_no_readable_checkpoint_is_an_error_not_a_fresh_start(make_fold):
    made = make_fold()
    made.train()
    made.folder.weights.unlink()
    for path in (made.folder.checkpoint, previous_checkpoint(made.folder)):
        path.write_bytes(b"rubbish")
    with pytest.raises(TrainingError, match="Delete the fold's folder"):
        made.train()


def test_a_finished_fold_is_left_as_it_is(make_fold):
    made = make_fold()
    made.train()
    before = made.folder.weights.stat().st_mtime_ns, made.folder.checkpoint.stat().st_mtime_ns
    assert made.train().finished
    assert (made.folder.weights.stat().st_mtime_ns, made.folder.checkpoint.stat().st_mtime_ns) == before
    made.folder.weights.unlink()  # as if killed between the checkpoint and the weights
    made.train()
    assert made.folder.weights.is_file()


def test_a_fold_keeps_the_plan_it_was_begun_with(make_fold, monkeypatch):
    made = make_fold()
    Interrupted(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    changed = replace(made.again("x", optimiser__lr=0.5), folder=made.folder)
    with pytest.raises(PlanError, match=r"training\.optimiser\.lr was 0\.01 and is 0\.5"):
        changed.train()


def test_a_second_process_on_the_fold_is_refused(make_fold):
    made = make_fold()
    with locked(made.folder.lock, "it"), pytest.raises(BusyError, match="net fold 0"):
        made.train()


def test_ends_on_time_and_spends_the_schedule(make_fold):
    make_fold().train()  # what is compiled or imported once is paid for
    made = make_fold().again("timed", steps_per_epoch=2)
    began = time.monotonic()
    run = made.train(deadline=began + 4)
    took = time.monotonic() - began
    assert run.finished and made.folder.weights.is_file()
    assert 2.5 < took < 4.1  # a second is kept for the last picture
    rows = history.read_rows(made.folder.history)
    progress = [p for row in rows for p in row["step_progress"]]
    assert len(progress) == run.steps and progress == sorted(progress) and progress[-1] > 0.8
    assert rows[-1]["lr"] < 0.15 * max(r["lr"] for r in rows)  # the cosine has come down
    assert run.epochs > made.plan.training.epochs  # time takes the place of the number of epochs


def test_a_budget_in_the_plan_is_the_deadline_of_its_schedule(make_fold):
    made = make_fold().again("budget", budget_seconds=3)
    began = time.monotonic()
    made.train()
    assert 1.5 < time.monotonic() - began < 3.2


def test_plateau_keeps_its_number_of_epochs_under_a_deadline(make_fold):
    made = make_fold().again("plateau", schedule__name="plateau")
    assert made.train(deadline=time.monotonic() + 60).epochs == 3


def test_early_stop_by_the_training_loss(make_fold):
    made = make_fold().again("stopped", epochs=50, steps_per_epoch=1, early_stop=2, optimiser__lr=1e-9)
    run = made.train()
    losses = [row["loss"] for row in history.read_rows(made.folder.history)]
    best = int(np.argmin(losses))
    assert run.finished and run.epochs < 50 and len(losses) == best + 3


def test_weights_of_the_best_training_loss_predict(make_fold, monkeypatch):
    """The weights are those after the epoch of the lowest mean training loss, not the last and not the best held-out ones."""
    kept = []
    real = loop.history.append_row

    def append(path, row):
        kept.append((row["loss"], {k: v.clone() for k, v in states[-1].network.state_dict().items()}))
        real(path, row)

    states, fresh = [], loop.fresh_state
    monkeypatch.setattr(loop, "fresh_state", lambda setting: states.append(fresh(setting)) or states[-1])
    monkeypatch.setattr(loop.history, "append_row", append)
    made = make_fold().again("best", predict_with="best_training_loss", epochs=6, optimiser__lr=0.2)
    made.train()
    assert same(made.weights(), min(kept, key=lambda k: k[0])[1])


def test_averaged_weights_average_the_norms_statistics_too(make_fold):
    made = make_fold().again("average", predict_with="average")
    made.train()
    last = torch.load(made.folder.checkpoint, weights_only=True)["parts"]["network"]
    averaged = made.weights()
    running = [k for k in averaged if k.endswith("running_mean")]
    assert running and all(not torch.equal(averaged[k], last[k]) for k in running)


class BadLoss:
    """A loss that is not finite at given calls."""

    def __init__(self, monkeypatch, bad) -> None:
        real, self.calls = loop.train_step, 0

        def step(setting, state, batch, message):
            self.calls += 1
            if self.calls in bad:
                batch = replace(batch, image=batch.image * float("nan"))
            return real(setting, state, batch, message)

        monkeypatch.setattr(loop, "train_step", step)


def test_a_loss_that_is_not_finite_goes_back_with_half_the_rate(make_fold, monkeypatch):
    made = make_fold().again("x", schedule__name="constant", schedule__warmup=0)
    BadLoss(monkeypatch, {6})
    assert made.train().finished
    assert any("back at step 0 with the rate x 0.5" in m for m in made.messages)
    rows = history.read_rows(made.folder.history)
    assert [r["epoch"] for r in rows] == [1, 2, 3] and all(r["lr"] == 0.005 for r in rows)


def test_a_loss_that_stays_not_finite_names_the_cases(make_fold, monkeypatch):
    made = make_fold()
    BadLoss(monkeypatch, range(1, 100))
    with pytest.raises(TrainingError, match=r"not finite at step 1.*cases: case_\d, case_\d"):
        made.train()


def test_a_broken_case_is_named(make_fold):
    made = make_fold()
    for path in made.store.iterdir():
        if path.name.startswith("case_2"):
            for file in [path] if path.is_file() else path.rglob("*"):
                if file.is_file():
                    file.write_bytes(b"rubbish")
    for workers in (0, 1):
        with pytest.raises(Exception, match="case_2"):
            made.train(workers=workers)


def test_values_that_training_cannot_obey_are_refused(make_fold):
    made = make_fold()
    with pytest.raises(PlanError, match="weight_average"):
        made.again("a", predict_with="average", weight_average=None).train()
    with pytest.raises(PlanError, match="--weights"):
        made.again("b", start__freeze_epochs=2).train()


WAYS = {
    "SGD, polynomial decay": {"optimiser__name": "sgd", "optimiser__momentum": 0.99, "schedule__name": "poly"},
    "AdamW, one cycle": {
        "optimiser__name": "adamw",
        "optimiser__weight_decay": 0.01,
        "schedule__name": "one_cycle",
        "schedule__warmup": 0.3,
    },
    "plateau": {"schedule__name": "plateau", "schedule__patience": 1, "early_stop": 9, "gradient_clip": None},
    "Tversky alone, weighted classes": {
        "loss__cross_entropy__weight": 0.0,
        "loss__tversky__fn_weight": 0.7,
        "loss__tversky__fp_weight": 0.3,
        "loss__tversky__class_weight": [0.1, 1.0, 2.0],
    },
    "focal Tversky": {"loss__tversky__power": 0.75, "loss__tversky__background": False},
    "cross-entropy of the hardest tenth": {"loss__tversky__weight": 0.0, "loss__cross_entropy__top_k": 0.1},
    "every patch on foreground, by rarity": {"oversampling__foreground": 1.0, "oversampling__by": "rarity"},
    "any foreground voxel": {"oversampling__foreground": 0.5, "oversampling__by": "voxel"},
    "deep supervision without averages": {"deep_supervision": True, "weight_average": None, "predict_with": "last"},
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_plan_can_say_of_training_is_obeyed_by_a_value(make_fold, way):
    made = make_fold().again("way", epochs=1, **WAYS[way])
    assert made.train().finished
    row = history.read_rows(made.folder.history)[-1]
    training = made.plan.training
    weighted = training.loss.tversky.weight * row["tversky"] + training.loss.cross_entropy.weight * row["cross_entropy"]
    assert row["loss"] == pytest.approx(weighted, rel=1e-4) and np.isfinite(row["loss"])
    plain = made.again("plain", **WAYS["plateau"])
    if way != "plateau":
        plain.train()
        assert not same(made.weights(), plain.weights()), "the values change what is trained"


def test_one_model_of_all_cases_looks_at_none_that_is_held_out(make_fold):
    made = make_fold()
    cases = (*made.fold.train, *made.fold.held_out)
    full = replace(made.again("full", predict_with="best_training_loss"), fold=replace(made.fold, name="full", train=cases, held_out=()))
    assert full.train().finished
    rows = history.read_rows(full.folder.history)
    assert all(row["val_loss"] is None and row["val_dice"] is None for row in rows)
    assert set(load_weights(full.folder.weights)[1]["trained_on"]) == set(cases)


def test_bfloat16_and_contiguous_layout_train(make_fold, monkeypatch):
    from autoseg.training import setting

    monkeypatch.setattr(setting, "resolve_precision", lambda precision, device: precision)  # emulated where the machine lacks it
    made = make_fold().again("short", precision="bfloat16", memory_layout="contiguous")
    assert made.train().finished
    assert all(v.dtype in (torch.float32, torch.int64) for v in made.weights().values())
