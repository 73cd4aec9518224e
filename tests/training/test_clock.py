"""Progress by epochs and by time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autoseg.training import clock as module
from autoseg.training.clock import Clock
from autoseg.training.replay import Replay


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


def test_the_deadline_is_set_anew_once_late_in_a_run_by_time(now):
    clock = Clock(plan(), reached=0, trained=0, deadline=now.value + 100)
    assert not clock.revision_is_due()
    now.value += 81
    assert clock.revision_is_due() and not clock.revision_is_due()
    clock.note_step(1)
    assert clock.has_time_for(10)
    clock.move_deadline(now.value + 5)
    assert not clock.has_time_for(10) and clock.progress(1, 0) > 0.9
    by_epochs = Clock(plan(), reached=0, trained=0, deadline=None)
    now.value += 1e6
    assert not by_epochs.revision_is_due()


def test_time_left_is_that_to_the_deadline_or_by_the_pace_so_far(now):
    clock = Clock(plan(), reached=0, trained=0, deadline=now.value + 100)
    now.value += 30
    assert clock.seconds_left(3) == 70
    clock = Clock(plan(), reached=0, trained=0, deadline=None)
    assert clock.seconds_left(0) is None
    for _ in range(10):
        now.value += 2
        clock.note_step(1.5)
    assert clock.seconds_left(10) == pytest.approx(40 * 2), "what comes between the steps is counted too"


def test_a_replay_goes_by_what_was_and_by_no_clock(now):
    replay = Replay((5, 2, 5), (0.0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, *[0.9] * 5), ({"step": 6, "rate_factor": 0.5, "parts": 1},))
    clock = Clock(plan(budget=1), reached=0, trained=0, deadline=now.value - 1, replay=replay)
    assert clock.last_epoch == 3 and [clock.steps_in(e) for e in range(3)] == [5, 2, 5] and clock.repeats
    assert clock.progress(6, 0.0) == 0.5 and clock.has_time_for(1e9) and not clock.by_time
    assert clock.changes_at(6) == [{"step": 6, "rate_factor": 0.5, "parts": 1}] and clock.changes_at(5) == []
    assert [clock.is_over(e) for e in (2, 3)] == [False, True] and clock.planned_steps is None
