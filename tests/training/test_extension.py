"""A finished run goes on by a stated rule, and a run by time is repeated step by step."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from autoseg.errors import PlanError
from autoseg.planning.plan_file import read_plan
from autoseg.training import checkpoints, history, loop
from autoseg.training.clock import Clock
from autoseg.training.optimisation import learning_rate
from autoseg.training.replay import copy_history, read_replay


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def longer(made, **changes):
    """The same fold folder, by a plan with other values."""
    return replace(made.again("x", **changes), folder=made.folder)


def test_an_extended_run_has_the_rates_that_the_longer_schedule_has_from_there_on(make_fold):
    made = make_fold().again("short", epochs=2, schedule__warmup=0)
    made.train()
    longer(made, epochs=5).train(extend=True)
    assert read_plan(made.folder.plan).training.epochs == 5
    rows = history.read_rows(made.folder.history)
    plan = made.plan.training
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5] and rows[-1]["step"] == 20
    for row in rows:
        steps = 8 if row["epoch"] <= 2 else 20
        assert row["lr"] == pytest.approx(learning_rate(plan.schedule, plan.optimiser.lr, (row["step"] - 1) / steps))
    assert rows[2]["lr"] > 5 * rows[1]["lr"], "the rate rises again"
    assert any("had finished after 2 epochs and is extended: it goes on 40% of the way" in m for m in made.messages)


def test_an_extended_constant_run_is_the_longer_run(make_fold):
    """Where the schedule knows no length there is no seam: bit by bit, optimiser, averages and sampling included."""
    made = make_fold().again("short", epochs=2, schedule__name="plateau", schedule__warmup=0, predict_with="average")
    made.train()
    longer(made, epochs=4).train(extend=True)
    whole = made.again("whole", epochs=4)
    whole.train()
    assert same(made.weights(), whole.weights())


def test_an_extension_that_is_interrupted_goes_on(make_fold, monkeypatch):
    made = make_fold().again("short", epochs=2)
    made.train()
    longer(made, epochs=5).train(extend=True)
    other = made.again("torn")
    other.train()
    before = other.weights()

    def stop(path, row, real=history.append_row):
        real(path, row)
        if row["epoch"] == 3:
            raise loop.Stopped

    with monkeypatch.context() as patched:
        patched.setattr(loop.history, "append_row", stop)
        with pytest.raises(KeyboardInterrupt):
            longer(other, epochs=5).train(extend=True)
    assert same(other.weights(), before), "the weights of the shorter run predict until the longer one has ended"
    longer(other, epochs=5).train(extend=True)
    assert same(other.weights(), made.weights())


@pytest.mark.parametrize("killed_after", ["write_plan", "save_checkpoint"])
def test_an_extension_that_is_killed_as_it_begins_is_begun_again(make_fold, monkeypatch, killed_after):
    made = make_fold().again("short", epochs=2)
    made.train()
    with monkeypatch.context() as patched:
        real = getattr(checkpoints, killed_after)

        def killed(*arguments):
            real(*arguments)
            raise SystemExit

        patched.setattr(checkpoints, killed_after, killed)
        with pytest.raises(SystemExit):
            longer(made, epochs=3).train(extend=True)
    longer(made, epochs=3).train(extend=True)
    assert [row["epoch"] for row in history.read_rows(made.folder.history)] == [1, 2, 3]


def test_nothing_more_is_no_extension_and_without_the_switch_nothing_goes_on(make_fold):
    made = make_fold().again("short", epochs=2)
    made.train()
    before = made.folder.weights.stat().st_mtime_ns
    with pytest.raises(PlanError, match="--epochs 3 or more"):
        longer(made, epochs=2).train(extend=True)
    with pytest.raises(PlanError, match=r"training\.epochs was 2 and is 4.*--extend"):
        longer(made, epochs=4).train()
    made.train()
    assert made.folder.weights.stat().st_mtime_ns == before


def test_an_early_stop_counts_anew_when_a_run_is_extended(make_fold):
    made = make_fold().again("stopped", epochs=40, steps_per_epoch=1, early_stop=2, optimiser__lr=1e-9)
    first = made.train()
    assert first.epochs < 40
    second = longer(made, epochs=41).train(extend=True)
    assert second.epochs >= first.epochs + 2


@pytest.mark.slow  # a run by time takes as long as it is given
def test_a_run_by_time_is_extended_by_time(make_fold):
    made = make_fold().again("timed", steps_per_epoch=6, schedule__warmup=0)
    made.train(deadline=time.monotonic() + 3)
    epochs = len(history.read_rows(made.folder.history))
    longer(made).train(extend=True, deadline=time.monotonic() + 3)
    rows = history.read_rows(made.folder.history)
    assert len(rows) > epochs
    progress = rows[epochs]["step_progress"]
    assert 0.2 < progress[0] < 0.8 and rows[-1]["step_progress"][-1] > 0.9, "as if the time had been the sum of both"


@pytest.mark.slow  # a run by time takes as long as it is given
def test_a_replay_does_the_same_steps_bit_by_bit(make_fold, monkeypatch):
    """A run by time, extended by time, with a rate that was halved and a batch that was split on the way."""
    made = make_fold().again("first", steps_per_epoch=6, predict_with="best_training_loss")
    real, calls = loop.train_step, []

    def step(setting, state, batch, message):
        calls.append(1)
        if len(calls) == 4:
            batch = replace(batch, image=batch.image * float("nan"))
        if len(calls) == 12:
            state.change(parts=2)
        return real(setting, state, batch, message)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", step)
        with patched.context() as shorter:  # three steps are lost, so it ends with eleven: not where an epoch does
            shorter.setattr(Clock, "has_time_for", lambda self, steps: len(calls) < 15)
            made.train(deadline=time.monotonic() + 3)
        longer(made).train(extend=True, deadline=time.monotonic() + 3)
    rows = history.read_rows(made.folder.history)
    assert any(row["steps"] < 6 for row in rows[:-1]), "the first leg was cut short"
    assert [change["parts"] for change in rows[-1]["changes"]] == [1, 2]

    again = made.again("again", budget_seconds=3)
    copy_history(made.folder.path, again.folder, again.fold, print)
    assert again.train().finished
    assert same(made.weights(), again.weights())
    keep = ("epoch", "steps", "loss", "dice", "lr", "progress", "step_progress", "changes")
    assert [{k: r.get(k) for k in keep} for r in history.read_rows(again.folder.history)] == [{k: r.get(k) for k in keep} for r in rows]

    torn = made.again("torn", budget_seconds=3)
    copy_history(made.folder.path, torn.folder, torn.fold, print)

    def stop(path, row, append=history.append_row):
        append(path, row)
        if row["epoch"] == 2:
            raise loop.Stopped

    with monkeypatch.context() as patched:
        patched.setattr(loop.history, "append_row", stop)
        with pytest.raises(KeyboardInterrupt):
            torn.train()
    torn.train()
    assert same(made.weights(), torn.weights())
    assert read_replay(torn.folder.history) == read_replay(made.folder.history), "a replay can be replayed"


def test_a_run_by_epochs_is_repeated_too_and_others_are_refused(make_fold):
    made = make_fold()
    made.train()
    again = made.again("again")
    copy_history(made.folder.path, again.folder, again.fold, print)
    again.train()
    assert same(made.weights(), again.weights())
    with pytest.raises(PlanError, match="in its own folder"):
        copy_history(made.folder.path, made.folder, made.fold, print)
    with pytest.raises(PlanError, match="that is fold 0 of 4 cases, this is fold 1"):
        copy_history(made.folder.path, made.again("b").folder, replace(made.fold, name=1), print)
    with pytest.raises(PlanError, match="fold 0 of 4 cases, this is fold 0 of 3"):
        copy_history(made.folder.path, made.again("b").folder, replace(made.fold, train=made.fold.train[:3]), print)
    other = made.again("c")
    other.train()
    with pytest.raises(PlanError, match="begun already"):
        copy_history(made.folder.path, other.folder, other.fold, print)
    other.folder.weights.unlink()
    with pytest.raises(PlanError, match="has not finished"):
        copy_history(other.folder.path, made.again("d").folder, made.fold, print)
