"""What each fold was trained on, of what it could be trained on by now: cases that are added later join only folds not yet begun."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoseg.errors import PlanError
from autoseg.files import FoldFolder, Work, read_json, write_json
from autoseg.planning.folds import Fold, few


@dataclass(frozen=True)
class Extent:
    """One fold that has begun.

    learnt, learnable: cases that it is trained on, and that folds.json would train it on now.
    scored, held_out: cases that it has scored, and that it holds out now; scored is None before the first score.
    """

    configuration: str
    fold: int | str
    learnt: int
    learnable: int
    scored: int | None
    held_out: int

    @property
    def is_behind(self) -> bool:
        """Whether cases have joined since it began, to learn from or to score."""
        return self.learnt < self.learnable or (self.scored is not None and self.scored < self.held_out)

    def __str__(self) -> str:
        text = f"{self.configuration} fold {self.fold}: trained on {self.learnt} of {self.learnable} cases"
        return text + (f", scored on {self.scored} of {self.held_out}" if self.scored is not None and self.scored < self.held_out else "")


def keep_cases(folder: FoldFolder, fold: Fold) -> None:
    """Write down what a fold is trained on, before its first step; one that has begun keeps what it has."""
    if not _has_begun(folder):
        write_json(folder.cases, "fold_cases", {"train": list(fold.train)})


def with_own_cases(work: Work, runs: Iterable[tuple[str, Fold]]) -> list[tuple[str, Fold]]:
    """(configuration, fold) with the training cases that each fold began with, if it has begun; held out is what folds.json says now.

    Raises:
        PlanError: a fold has learnt from cases that it would be tested on.
    """
    return [(name, _with_own(name, work.fold(name, fold.name), fold)) for name, fold in runs]


def _with_own(configuration: str, folder: FoldFolder, fold: Fold) -> Fold:
    own = _own_cases(folder)
    if own is None:
        return fold
    if known := set(own) & set(fold.held_out):
        raise PlanError(
            f"{configuration} fold {fold.name} was trained on {few(known)}, which folds.json now holds out: scores would be of known cases",
            file=folder.cases,
            remedy=f"Delete {folder.path.name} to train it anew, or restore the folds.json that it was trained by",
        )
    return Fold(fold.name, tuple(own), fold.held_out, fold.absent)


def extents(work: Work, configurations: Iterable[str], folds: Sequence[Fold]) -> list[Extent]:
    """The folds that have begun, with how far they are behind folds.json; the fold of all cases among them."""
    every = {case for fold in folds for case in (*fold.train, *fold.held_out)}
    found = []
    for name in configurations:
        for fold in (*folds, Fold("full", tuple(sorted(every)), ())):
            folder = work.fold(name, fold.name)
            if (own := _own_cases(folder)) is not None:
                scored = len(set(read_json(folder.scores, "scores")["cases"]) & set(fold.held_out)) if folder.scores.is_file() else None
                learnable = len({*own, *fold.train} - set(fold.held_out))
                found.append(Extent(name, fold.name, len(own), learnable, scored, len(fold.held_out)))
    return found


def _own_cases(folder: FoldFolder) -> list[str] | None:
    return list(read_json(folder.cases, "fold_cases")["train"]) if _has_begun(folder) and folder.cases.is_file() else None


def _has_begun(folder: FoldFolder) -> bool:
    return folder.checkpoint.is_file() or folder.weights.is_file()
