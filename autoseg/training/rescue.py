"""What counts as training gone wrong: a loss that is no number, and a collapse to background. Training patches alone decide.

The rule is the plan's `training.rescue`. A loss that is no number sends the run back to its last checkpoint; a collapse sends the
weights back to the best epoch that found the foreground, while steps and schedule go on. Either way the learning rate shrinks, and after
`returns` of them the run stops. A network that never found anything yet is slow, not collapsed: that is told, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoseg.planning.schema import RescuePlan


class WentWrong(Exception):
    """Training cannot go on as it is.

    Args:
        what: in words.
        cases: of the last batch.
        remedy: what the user can do if going back does not mend it.
    """

    def __init__(self, what: str, cases: Sequence[str], remedy: str) -> None:
        super().__init__(what)
        self.what, self.cases, self.remedy = what, tuple(cases), remedy


class NotFinite(WentWrong):
    """A loss or a weight that is no number."""

    def __init__(self, step: int, cases: Sequence[str]) -> None:
        super().__init__(
            f"the loss is not finite at step {step}",
            cases,
            "Look at these cases with doctor; if they are sound, plan with a lower training.optimiser.lr or a gradient_clip",
        )


class Collapsed(WentWrong):
    """A network that found the foreground and does not find any of it any more."""

    def __init__(self, epoch: int, epochs: int, cases: Sequence[str]) -> None:
        super().__init__(
            f"the network has predicted nothing but background in {epochs} epochs up to epoch {epoch}, after it had found the foreground",
            cases,
            "Plan with a lower training.optimiser.lr, or so that more patches show foreground (--set training.oversampling.foreground=0.5)",
        )


@dataclass
class ForegroundWatch:
    """Whether training patches are being recognised, epoch by epoch.

    ever: a true positive was seen. slow_epochs: epochs without one so far. found: the foreground was found for long enough to count.
    found_in_a_row, lost_in_a_row: epochs of late that found it well, or not at all.
    """

    ever: bool = False
    slow_epochs: int = 0
    found: bool = False
    found_in_a_row: int = 0
    lost_in_a_row: int = 0

    def step(self, counts: Sequence[Sequence[int]], mean_dice: float | None, plan: RescuePlan) -> str:
        """Take in an epoch's training patches: `sound`, `slow` (said once) or `collapsed`.

        Args:
            counts: TP, FP, FN of each foreground output over the epoch. An epoch whose patches show no foreground says nothing.
        """
        if not any(tp + fn for tp, _, fn in counts):
            return "sound"
        if not any(tp for tp, _, _ in counts):
            self.found_in_a_row = 0
            self.lost_in_a_row += 1
            self.slow_epochs += not self.ever
            if self.found and plan.collapse_epochs is not None and self.lost_in_a_row >= plan.collapse_epochs:
                return "collapsed"
            return "slow" if not self.ever and self.slow_epochs == plan.slow_epochs else "sound"
        self.ever, self.lost_in_a_row = True, 0
        self.found_in_a_row = self.found_in_a_row + 1 if (mean_dice or 0) >= plan.found_dice else 0
        self.found = self.found or (plan.collapse_epochs is not None and self.found_in_a_row >= plan.collapse_epochs)
        return "sound"

    @property
    def finds(self) -> bool:
        """Whether the last epoch found the foreground well."""
        return self.found_in_a_row > 0

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
