"""How far a run is, by epochs, by the time there is, or as another run was; and when to stop (DESIGN.md 6.6)."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from autoseg.planning.schema import TrainingPlan
from autoseg.training.replay import Replay

REVISED_AT = 0.8  # share of a session's time after which its deadline is set anew


class Clock:
    """Progress from 0 (before the first step) to 1 (after the last).

    Without a deadline it is the share of the planned steps that are done. With one it is the share of the time that has gone: from
    what the run had reached when this session began, to 1 at the deadline. It never falls. `plateau` follows events: a deadline
    cuts it off, and its `epochs` hold; for the other schedules a deadline takes their place. A replay takes all of it from a history.

    Args:
        reached: progress when this session began.
        trained: seconds of training before this session.
        deadline: time.monotonic() at which training must have ended, weights written; None: `budget_seconds`, if planned.
        replay: a run to repeat; neither deadline nor budget counts then.
    """

    def __init__(self, plan: TrainingPlan, *, reached: float, trained: float, deadline: float | None, replay: Replay | None = None) -> None:
        self._plan = plan
        self._reached = reached
        self._began = time.monotonic()
        self._replay = replay
        if deadline is None and plan.budget_seconds is not None:
            deadline = self._began + plan.budget_seconds - trained
        self._deadline = None if replay else deadline
        self._recent: deque[float] = deque(maxlen=10)
        self._closing = 1.0  # for the last picture; checkpoint and weights are added as they are measured
        self._saved = self._lap = self._began
        self._steps = 0
        self._revised = False

    @property
    def by_time(self) -> bool:
        """Whether time drives the schedule."""
        return self._deadline is not None

    @property
    def last_epoch(self) -> int | None:
        """How many epochs there are at most; None: as many as the time allows."""
        if self._replay:
            return len(self._replay.steps)
        return None if self.by_time and self._plan.schedule.name != "plateau" else self._plan.epochs

    @property
    def planned_steps(self) -> int | None:
        """What progress is a share of; None if it is not one of steps: then each step's progress is worth a record."""
        return None if self.by_time or self._replay else self._plan.epochs * self._plan.steps_per_epoch

    @property
    def repeats(self) -> bool:
        """Whether another run is repeated."""
        return self._replay is not None

    def changes_at(self, step: int) -> list[dict[str, Any]]:
        """What the run that is repeated changed before this step."""
        return self._replay.changes_at(step) if self._replay else []

    def is_over(self, epochs: int) -> bool:
        """Whether so many epochs are all there are."""
        return self.last_epoch is not None and epochs >= self.last_epoch

    def steps_in(self, epoch: int) -> int:
        """How many steps epoch `epoch` (from 0) has at most."""
        return self._replay.steps[epoch] if self._replay else self._plan.steps_per_epoch

    def progress(self, step: int, before: float) -> float:
        """Progress of the step that begins now.

        Args:
            step: steps that are done.
            before: progress of the last step.
        """
        if self._replay:
            return self._replay.progress[step]
        if not self.by_time:
            return min(step / self.planned_steps, 1.0)
        length = self._deadline - self._closing - self._began
        share = (time.monotonic() - self._began) / length if length > 0 else 1.0
        return min(max(before, self._reached + (1 - self._reached) * share), 1.0)

    def note_step(self, seconds: float) -> None:
        """A step, waiting for its data included, took so long."""
        self._recent.append(seconds)
        self._steps += 1

    def note_checkpoint(self, seconds: float) -> None:
        """A checkpoint was written, in so many seconds; at the end comes a larger one, and the weights."""
        self._saved = time.monotonic()
        self._closing = max(self._closing, 1.0 + 2 * seconds)

    def checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is older than planned."""
        return time.monotonic() - self._saved >= 60 * self._plan.checkpoint_minutes

    def lap(self) -> float:
        """Seconds since this was asked last."""
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before

    def revision_is_due(self) -> bool:
        """Whether most of the time has gone, so that what comes after training is worth a better guess; true once."""
        due = self.by_time and not self._revised and time.monotonic() - self._began >= REVISED_AT * (self._deadline - self._began)
        self._revised |= due
        return due

    def move_deadline(self, deadline: float) -> None:
        """Training must have ended earlier, or may end later, than was thought."""
        self._deadline = deadline

    def has_time_for(self, steps: float) -> bool:
        """Whether so many more steps, and what comes after the last, fit before the deadline; by the longest of the recent ones."""
        if self._deadline is None:
            return True
        return time.monotonic() + steps * max(self._recent, default=0.0) + self._closing <= self._deadline

    def seconds_left(self, step: int) -> float | None:
        """How long training will go on, by the mean pace of this session; None if nothing is known yet.

        Args:
            step: steps that are done.
        """
        now = time.monotonic()
        if self._deadline is not None:
            return max(self._deadline - now, 0.0)
        if not self._steps:
            return None
        steps = sum(self._replay.steps) if self._replay else self.planned_steps
        return (now - self._began) / self._steps * max(steps - step, 0)
