"""What the steps of one session share, from a fold's beginning or its resumption until it ends or is interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autoseg.files import FoldFolder
from autoseg.training.clock import Clock
from autoseg.training.interruption import Interruption
from autoseg.training.rescue import NotFinite
from autoseg.training.setting import Setting
from autoseg.training.state import TrainingState
from autoseg.training.step import Outcome, read, reads_at_once
from autoseg.training.tracking import Logger
from autoseg.training.watching import ProgressPicture, StepLine

READ_EVERY = 2.0  # seconds; a GPU computes ahead of us until we ask it for a number


@dataclass
class Unread:
    """Outcomes of steps that still lie on the device.

    cases: of the last batch. since: when they were read last, as time.monotonic(). seconds: of the steps since then.
    """

    device: str
    outcomes: list[Outcome] = field(default_factory=list)
    cases: tuple[str, ...] = ()
    since: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.cases = outcome.cases

    @property
    def is_due(self) -> bool:
        return reads_at_once(self.device) or time.monotonic() - self.since >= READ_EVERY

    def take(self) -> list[Outcome]:
        """All of them; none is left."""
        taken, self.outcomes, self.since = self.outcomes, [], time.monotonic()
        return taken


@dataclass(frozen=True)
class Session:
    """One session of one fold's training.

    unread: what steps gave and nobody looked at yet.
    """

    setting: Setting
    state: TrainingState
    clock: Clock
    folder: FoldFolder
    interruption: Interruption
    line: StepLine
    picture: ProgressPicture
    loggers: list[Logger]
    message: Callable[[str], None]
    unread: Unread

    @property
    def steps_of_epoch(self) -> int:
        """Steps of the open epoch that are done, read or not."""
        return self.state.sums.steps + len(self.unread.outcomes)

    def read_outcomes(self) -> None:
        """Add what the steps gave to the epoch's sums.

        Raises:
            NotFinite: a loss is no number.
        """
        outcomes = self.unread.take()
        for outcome, (loss, parts, counts) in zip(outcomes, read(outcomes), strict=True):
            if not math.isfinite(loss):
                raise NotFinite(outcome.step, outcome.cases)
            self.state.sums.add(loss, parts, counts)

    def note_step(self, seconds: float) -> None:
        """A step took so long; a GPU's are known by their mean once they have been read, since before that it was only asked for them."""
        self.unread.seconds.append(seconds)
        if not self.unread.outcomes:
            taken, self.unread.seconds = self.unread.seconds, []
            for _ in taken:
                self.clock.note_step(sum(taken) / len(taken))

    def note_time(self) -> None:
        """Count the time since the last call as training."""
        seconds = self.clock.lap()
        self.state.seconds += seconds
        self.state.sums.seconds += seconds
