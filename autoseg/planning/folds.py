"""Cross-validation folds: made, taken as given, checked, and joined by new cases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.files import read_json, write_json
from autoseg.fingerprint.types import Fingerprint
from autoseg.planning.schema import FoldsPlan

Given = Sequence[tuple[Sequence[str], Sequence[str]]]


@dataclass(frozen=True)
class Fold:
    """One split.

    name: 0, 1, ... or "full", which trains on every case and holds none out.
    """

    name: int | str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def make_folds(
    cases: Iterable[str],
    plan: FoldsPlan,
    groups: Mapping[str, str] | None = None,
    given: Given | None = None,
    *,
    presence: Mapping[str, Collection[str]] | None = None,
    excluded: Collection[str] = (),
) -> list[Fold]:
    """The folds that the plan asks for.

    Without groups and stratification they are scikit-learn's `KFold(count, shuffle=True, random_state=seed)` over the sorted
    names, as the peer's (peer 4.3) and those of paper.md item 3.

    Args:
        groups: case -> patient; cases of one group stay together if `plan.groups`.
        given: (train, held-out) lists of the dataset, for source "dataset".
        presence: case -> labels that it shows, for `plan.stratify`; see `class_presence`.
        excluded: cases that given folds may name and that are left out.

    Raises:
        PlanError: too few cases, or given folds that contradict themselves or the cases.
    """
    names = sorted(cases)
    groups = dict(groups or {}) if plan.groups else {}
    if plan.source == "dataset":
        if given is None:
            raise PlanError("folds.source is dataset, and the dataset brings no folds", remedy="Set folds.source=kfold or name a file")
        return _checked(given, names, groups, excluded, "the dataset's folds")
    if plan.source not in ("kfold", "blocks"):
        return _checked(read_splits(Path(plan.source)), names, groups, excluded, Path(plan.source).name)
    units = _units(names, groups)
    if len(units) < plan.count:
        what = "patients or groups" if len(units) < len(names) else "cases"
        remedy = f"Set folds.count={len(units)}" if len(units) > 1 else "Train with --fold full"
        raise PlanError(f"{len(units)} {what} cannot be split into {plan.count} folds", remedy=remedy)
    if plan.source == "blocks":
        held_out = [list(block) for block in np.array_split(np.arange(len(units)), plan.count)]
    elif plan.stratify and presence is not None:
        held_out = _stratified(units, plan, presence)
    else:
        held_out = _shuffled(units, plan)
    return [_fold(number, names, [case for unit in fold for case in units[unit]]) for number, fold in enumerate(held_out)]


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


def class_presence(fingerprint: Fingerprint, labels: LabelSet) -> dict[str, frozenset[str]]:
    """Case -> the labels that it shows."""
    named = list(zip(labels.names, labels.values, strict=True))
    return {
        case: frozenset(name for name, values in named if any(measures.label_voxels.get(v, 0) for v in values))
        for case, measures in fingerprint.cases.items()
    }


def extend_folds(folds: Sequence[Fold], cases: Iterable[str], groups: Mapping[str, str] | None = None) -> list[Fold]:
    """The same folds with new cases joined and lost ones left out; no case that stays changes its fold.

    A new case follows its group, or joins the fold that holds out the fewest.
    """
    names, groups = sorted(cases), dict(groups or {})
    held_out = {fold.name: [case for case in fold.held_out if case in names] for fold in folds}
    place = {case: name for name, group in held_out.items() for case in group}
    home = {groups[case]: name for case, name in place.items() if case in groups}
    for case in names:
        if case not in place:
            group = groups.get(case)
            name = home.get(group) if group in home else min(held_out, key=lambda n: len(held_out[n]))
            held_out[name].append(case)
            home |= {group: name} if group is not None else {}
    return [_fold(fold.name, names, held_out[fold.name]) for fold in folds]


def folds_as_json(folds: Sequence[Fold]) -> dict[str, Any]:
    """What folds.json holds."""
    return {"folds": [{"name": f.name, "train": list(f.train), "held_out": list(f.held_out)} for f in folds]}


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Write folds.json."""
    write_json(path, "folds", folds_as_json(folds))


def read_folds(path: Path) -> list[Fold]:
    """Read folds.json.

    Raises:
        PlanError: it is damaged, or a fold holds out a case that it trains on.
    """
    try:
        folds = [Fold(f["name"], tuple(f["train"]), tuple(f["held_out"])) for f in read_json(path, "folds")["folds"]]
    except (KeyError, TypeError) as error:
        remedy = "Restore the file, or delete it and run plan-and-preprocess again"
        raise PlanError(f"a fold lacks {error}", file=path, remedy=remedy) from error
    for fold in folds:
        if both := set(fold.train) & set(fold.held_out):
            raise PlanError(f"fold {fold.name} trains on {_few(both)} and holds it out", file=path, remedy="Correct the file")
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


def _fold(name: int | str, names: Sequence[str], held_out: Collection[str]) -> Fold:
    kept = frozenset(held_out)
    return Fold(name, tuple(n for n in names if n not in kept), tuple(n for n in names if n in kept))


def _units(names: Sequence[str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """What may not be torn: groups and single cases, in the order of their first names."""
    units: dict[tuple[str, str], list[str]] = {}
    for name in names:
        units.setdefault(("group", groups[name]) if name in groups else ("case", name), []).append(name)
    return [tuple(unit) for unit in units.values()]


def _shuffled(units: Sequence[tuple[str, ...]], plan: FoldsPlan) -> list[list[int]]:
    if plan.count < 2:
        raise PlanError("folds.count is 1, which leaves nothing to train on", remedy="Set folds.count to 2 or more, or train --fold full")
    from sklearn.model_selection import GroupKFold, KFold

    if any(len(unit) > 1 for unit in units):  # patients differ in their number of scans: even out the cases, not the patients
        order = np.random.RandomState(plan.seed).permutation(len(units))
        groups = np.repeat(np.arange(len(units)), [len(units[unit]) for unit in order])
        splits = GroupKFold(plan.count).split(np.zeros(len(groups)), groups=groups)
        return [[int(order[group]) for group in np.unique(groups[held_out])] for _, held_out in splits]
    return [list(held_out) for _, held_out in KFold(plan.count, shuffle=True, random_state=plan.seed).split(np.zeros(len(units)))]


def _stratified(units: Sequence[tuple[str, ...]], plan: FoldsPlan, presence: Mapping[str, Collection[str]]) -> list[list[int]]:
    """The rarest label first, each unit that shows it goes to the fold that has the fewest of it, then the fewest cases."""
    shown = [frozenset().union(*(presence.get(case, ()) for case in unit)) for unit in units]
    rarity = Counter(label for labels in shown for label in labels)
    waiting = list(np.random.RandomState(plan.seed).permutation(len(units)))
    folds: list[list[int]] = [[] for _ in range(plan.count)]
    for label in [*sorted(rarity, key=lambda name: (rarity[name], name)), None]:
        for unit in [u for u in waiting if label is None or label in shown[u]]:

            def load(fold: list[int], label: str | None = label) -> tuple[int, int]:
                return sum(label in shown[u] for u in fold), sum(len(units[u]) for u in fold)

            min(folds, key=load).append(unit)
            waiting.remove(unit)
    return folds


def _checked(given: Given, names: Sequence[str], groups: Mapping[str, str], excluded: Collection[str], what: str) -> list[Fold]:
    known, folds = set(names), []
    for number, (train, held_out) in enumerate(given):
        if unknown := {*train, *held_out} - known - set(excluded):
            raise PlanError(f"{what}: fold {number} names {_few(unknown)}, which the dataset does not have", remedy="Correct the folds")
        if both := set(train) & set(held_out):
            raise PlanError(f"{what}: fold {number} trains on {_few(both)} and holds it out", remedy="Correct the folds")
        torn = {groups[c] for c in train if c in groups} & {groups[c] for c in held_out if c in groups}
        if torn:
            raise PlanError(f"{what}: fold {number} tears group {_few(torn)} apart", remedy="Correct the folds, or set folds.groups=false")
        folds.append(Fold(number, tuple(sorted(set(train) & known)), tuple(sorted(set(held_out) & known))))
    seen = Counter(case for fold in folds for case in fold.held_out)
    if twice := {case for case, count in seen.items() if count > 1}:
        raise PlanError(f"{what}: {_few(twice)} is held out by two folds", remedy="Correct the folds: each case is scored once")
    if not folds or any(not f.train or not f.held_out for f in folds):
        raise PlanError(f"{what}: a fold trains on nothing or holds nothing out", remedy="Correct the folds")
    return folds


def _few(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
