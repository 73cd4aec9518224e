"""Progress by epochs and by time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autoseg.training import clock as module
from autoseg.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    time = SimpleNamespace(value=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.value))
    return time


def plan(schedule="cosine", budget=None):
    return SimpleNamespace(
        epochs=10, steps_per_epoch=5, budget_seconds=budget, checkpoint_minutes=2, schedule=SimpleNamespace(name=schedule)
    )


def test_by_epochs_it_is_the_share_of_steps(now):
    clock = Clock(plan(), reached=0, trained=0, deadline=None)
    assert [clock.progress(s, 0) for s in (0, 25, 49)] == [0, 0.5, 0.98]
    assert clock.last_epoch == 10 and not clock.by_time
    now.value += 1e6
    assert clock.has_time_for(1000)


def test_by_time_it_goes_on_from_where_a_session_began_and_never_falls(now):
    clock = Clock(plan(), reached=0.4, trained=50, deadline=now.value + 101)  # one second is kept for the end
    assert clock.progress(7, 0.4) == pytest.approx(0.4)
    now.value += 50
    assert clock.progress(8, 0.4) == pytest.approx(0.7)
    assert clock.progress(8, 0.75) == 0.75
    now.value += 100
    assert clock.progress(9, 0.75) == 1.0


def test_a_budget_is_what_is_left_of_it(now):
    clock = Clock(plan(budget=60), reached=0.5, trained=30, deadline=None)
    clock.note_step(5)
    assert clock.has_time_for(1) and not clock.has_time_for(6)
    now.value += 25
    assert not clock.has_time_for(1)


def test_the_end_is_kept_free_for_writing(now):
    clock = Clock(plan(), reached=0, trained=0, deadline=now.value + 20)
    clock.note_step(1)
    assert clock.has_time_for(10)
    clock.note_checkpoint(8)
    assert not clock.has_time_for(10)


def test_a_plateau_keeps_its_epochs(now):
    assert Clock(plan("plateau"), reached=0, trained=0, deadline=2000).last_epoch == 10
    assert Clock(plan("poly"), reached=0, trained=0, deadline=2000).last_epoch is None


def test_checkpoints_fall_due(now):
    clock = Clock(plan(), reached=0, trained=0, deadline=None)
    assert not clock.checkpoint_is_due()
    now.value += 121
    assert clock.checkpoint_is_due()
    clock.note_checkpoint(1)
    assert not clock.checkpoint_is_due()
