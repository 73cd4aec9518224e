"""Cross-validation folds and their files; `splitting` makes them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import read_json, write_json

Given = Sequence[tuple[Sequence[str], Sequence[str]]]


@dataclass(frozen=True)
class Fold:
    """One split.

    name: 0, 1, ... or "full", which trains on every case and holds none out.
    absent: cases that it held out and that the dataset has no more; one that comes back is held out by the same fold again.
    """

    name: int | str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    absent: tuple[str, ...] = ()


def full_fold(cases: Iterable[str]) -> Fold:
    """Every case trains, none is held out."""
    return Fold("full", tuple(sorted(cases)), ())


def choose_folds(folds: Sequence[Fold], wanted: Iterable[int | str]) -> list[Fold]:
    """The folds that are asked for by number, "all" for every one, "full" for one that holds nothing out.

    Raises:
        PlanError: there is no such fold.
    """
    every = {fold.name: fold for fold in folds} | {"full": full_fold({case for f in folds for case in (*f.train, *f.held_out)})}
    names = [name for asked in wanted for name in ([fold.name for fold in folds] if asked == "all" else [asked])]
    if unknown := [name for name in names if name not in every]:
        raise PlanError(f"there is no fold {unknown[0]}", remedy=f"Choose among {', '.join(map(str, every))}, all")
    return [every[name] for name in dict.fromkeys(names)]


def folds_as_json(folds: Sequence[Fold]) -> dict[str, Any]:
    """What folds.json holds."""
    rows = [{"name": f.name, "train": list(f.train), "held_out": list(f.held_out), "absent": list(f.absent)} for f in folds]
    return {"folds": rows}


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Write folds.json."""
    write_json(path, "folds", folds_as_json(folds))


def read_folds(path: Path) -> list[Fold]:
    """Read folds.json.

    Raises:
        PlanError: it is damaged, or a fold holds out a case that it trains on.
    """
    try:
        rows = read_json(path, "folds")["folds"]
        folds = [Fold(f["name"], tuple(f["train"]), tuple(f["held_out"]), tuple(f.get("absent", ()))) for f in rows]
    except (KeyError, TypeError) as error:
        remedy = "Restore the file, or delete it and run plan-and-preprocess again"
        raise PlanError(f"a fold lacks {error}", file=path, remedy=remedy) from error
    for fold in folds:
        if both := set(fold.train) & set(fold.held_out):
            raise PlanError(f"fold {fold.name} trains on {few(both)} and holds it out", file=path, remedy="Correct the file")
    return folds


def read_splits(path: Path) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(train, held-out) lists of a file in the peer's splits_final.json form (peer 7.5).

    Raises:
        PlanError: it is not there or of another form.
    """
    remedy = 'Give a list of {"train": [cases], "val": [cases]}, as nnU-Net\'s splits_final.json'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [(tuple(map(str, fold["train"])), tuple(map(str, fold["val"]))) for fold in content]
    except OSError as error:
        raise PlanError(
            f"folds.source cannot be read ({error.strerror})", file=path, remedy="Set folds.source to kfold, blocks or a file"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError("these are no folds", file=path, remedy=remedy) from error


def few(names: Collection[str]) -> str:
    """The first three of the names, and how many more there are."""
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
