"""How far a run is, by epochs or by the time there is, and when to stop (DESIGN.md 6.6)."""

from __future__ import annotations

import time
from collections import deque

from autoseg.planning.schema import TrainingPlan


class Clock:
    """Progress from 0 (before the first step) to 1 (after the last).

    Without a deadline it is the share of the planned steps that are done. With one it is the share of the time that has gone: from
    what the run had reached when this session began, to 1 at the deadline. It never falls. `plateau` follows events: a deadline
    cuts it off, and its `epochs` hold; for the other schedules a deadline takes their place.

    Args:
        reached: progress when this session began.
        trained: seconds of training before this session.
        deadline: time.monotonic() at which training must have ended, weights written; None: `budget_seconds`, if planned.
    """

    def __init__(self, plan: TrainingPlan, *, reached: float, trained: float, deadline: float | None) -> None:
        self._plan = plan
        self._reached = reached
        self._began = time.monotonic()
        if deadline is None and plan.budget_seconds is not None:
            deadline = self._began + plan.budget_seconds - trained
        self._deadline = deadline
        self._recent: deque[float] = deque(maxlen=10)
        self._closing = 1.0  # for the last picture; checkpoint and weights are added as they are measured
        self._saved = self._lap = self._began

    @property
    def by_time(self) -> bool:
        """Whether time drives the schedule."""
        return self._deadline is not None

    @property
    def last_epoch(self) -> int | None:
        """How many epochs there are at most; None: as many as the time allows."""
        return None if self.by_time and self._plan.schedule.name != "plateau" else self._plan.epochs

    def progress(self, step: int, before: float) -> float:
        """Progress of the step that begins now.

        Args:
            step: steps that are done.
            before: progress of the last step.
        """
        if not self.by_time:
            return step / (self._plan.epochs * self._plan.steps_per_epoch)
        length = self._deadline - self._closing - self._began
        share = (time.monotonic() - self._began) / length if length > 0 else 1.0
        return min(max(before, self._reached + (1 - self._reached) * share), 1.0)

    def note_step(self, seconds: float) -> None:
        """A step, waiting for its data included, took so long."""
        self._recent.append(seconds)

    def note_checkpoint(self, seconds: float) -> None:
        """A checkpoint was written, in so many seconds; at the end comes a larger one, and the weights."""
        self._saved = time.monotonic()
        self._closing = max(self._closing, 1.0 + 4 * seconds)

    def checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is older than planned."""
        return time.monotonic() - self._saved >= 60 * self._plan.checkpoint_minutes

    def lap(self) -> float:
        """Seconds since this was asked last."""
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before

    def has_time_for(self, steps: float) -> bool:
        """Whether so many more steps, and what comes after the last, fit before the deadline; by the longest of the recent ones."""
        if self._deadline is None:
            return True
        return time.monotonic() + steps * max(self._recent, default=0.0) + self._closing <= self._deadline
