"""Cases into folds: by chance, evenly by class, in runs of neighbours, or as given; and new cases into folds that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.fingerprint.numbering import number, stacks
from autoseg.fingerprint.types import Fingerprint
from autoseg.planning.folds import Fold, Given, few, read_splits
from autoseg.planning.schema import FoldsPlan


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
    names, as the peer's (peer 4.3) and those of paper.md item 3. One patient alone makes one fold that holds nothing out.

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
    if (lists := given_lists(plan, given)) is not None:
        what = "the dataset's folds" if plan.source == "dataset" else Path(plan.source).name
        return _checked(lists, names, groups, excluded, what)
    units = _units(names, groups)
    if len(units) == plan.count == 1:
        return [Fold(0, tuple(names), ())]
    if len(units) < plan.count:
        what = "patients or groups" if len(units) < len(names) else "cases"
        raise PlanError(f"{len(units)} {what} cannot be split into {plan.count} folds", remedy=f"Set folds.count={max(len(units), 1)}")
    if plan.count < 2:
        raise PlanError("folds.count is 1, which leaves nothing to train on", remedy="Set folds.count to 2 or more, or train --fold full")
    if plan.source == "blocks":
        held_out = _blocks(units, plan.count)
    elif plan.stratify and presence is not None:
        held_out = _stratified(units, plan, presence)
    else:
        held_out = _shuffled(units, plan)
    return [_fold(position, names, cases) for position, cases in enumerate(held_out)]


def given_lists(plan: FoldsPlan, given: Given | None) -> Given | None:
    """The lists that the plan's source brings; None where autoseg splits by itself.

    Raises:
        PlanError: the source is not there.
    """
    if plan.source in ("kfold", "blocks"):
        return None
    if plan.source != "dataset":
        return read_splits(Path(plan.source))
    if given is None:
        raise PlanError("folds.source is dataset, and the dataset brings no folds", remedy="Set folds.source=kfold or name a file")
    return given


def class_presence(fingerprint: Fingerprint, labels: LabelSet) -> dict[str, frozenset[str]]:
    """Case -> the labels that it shows."""
    named = list(zip(labels.names, labels.values, strict=True))
    return {
        case: frozenset(name for name, values in named if any(measures.label_voxels.get(v, 0) for v in values))
        for case, measures in fingerprint.cases.items()
    }


def extend_folds(
    folds: Sequence[Fold],
    cases: Iterable[str],
    plan: FoldsPlan,
    groups: Mapping[str, str] | None = None,
    given: Given | None = None,
    *,
    presence: Mapping[str, Collection[str]] | None = None,
) -> list[Fold]:
    """The same folds with new cases joined and lost ones left out; no case that stays changes its fold, nor one that comes back.

    A new case follows its group, or in serial sections its neighbour, or joins the fold that holds out the fewest (of its rarest
    label, where folds are stratified). Given folds take in what their lists name by now, and nothing else.

    Args:
        given: (train, held-out) lists by fold, as they are now; None where autoseg split by itself.
    """
    names = set(cases)
    home = {case: fold.name for fold in folds for case in (*fold.held_out, *fold.absent)}
    known = {*home, *(case for fold in folds for case in fold.train)}
    new = sorted(names - known)
    if given is None:
        home |= _joining(new, folds, home, plan, dict(groups or {}) if plan.groups else {}, presence or {})
        learns = {fold.name: names for fold in folds}
    else:
        home |= {case: fold.name for fold, (_, held_out) in zip(folds, given, strict=False) for case in held_out if case in new}
        learns = {fold.name: {*fold.train, *train} for fold, (train, _) in zip(folds, given, strict=False)}
    back = {case for fold in folds for case in fold.absent} & names
    result = []
    for fold in folds:
        own = {case for case, name in home.items() if name == fold.name}
        train = ({*fold.train, *((back | set(new)) & learns.get(fold.name, set()))} - own) & names
        result.append(Fold(fold.name, tuple(sorted(train)), tuple(sorted(own & names)), tuple(sorted(own - names))))
    return result


def _joining(
    new: Sequence[str],
    folds: Sequence[Fold],
    home: Mapping[str, int | str],
    plan: FoldsPlan,
    groups: Mapping[str, str],
    presence: Mapping[str, Collection[str]],
) -> dict[str, int | str]:
    """New case -> the fold that holds it out."""
    place: dict[str, int | str] = dict(home)
    patients = {groups[case]: name for case, name in home.items() if case in groups}
    rarity = Counter(label for labels in presence.values() for label in labels)
    for case in new:
        shown = min(presence.get(case, ()), key=lambda label: (rarity[label], label), default=None) if plan.stratify else None

        def load(name: int | str, shown: str | None = shown) -> tuple[int, int]:
            inside = [other for other, fold in place.items() if fold == name]
            return sum(shown in presence.get(other, ()) for other in inside) if shown else 0, len(inside)

        chosen = patients.get(groups.get(case, ""))
        if chosen is None and plan.source == "blocks":
            chosen = _fold_of_neighbour(case, place)
        if chosen is None:
            chosen = min((fold.name for fold in folds), key=load)
        place[case] = chosen
        if case in groups:
            patients[groups[case]] = chosen
    return {case: place[case] for case in new}


def _fold_of_neighbour(case: str, place: Mapping[str, int | str]) -> int | str | None:
    """The fold of the image of the same stack with the nearest number."""
    stack = next(names for names in stacks([*place, case]) if case in names)
    others = [name for name in stack if name != case]
    return place[min(others, key=lambda name: (abs(number(name) - number(case)), name))] if others else None


def _fold(name: int | str, names: Sequence[str], held_out: Collection[str]) -> Fold:
    kept = frozenset(held_out)
    return Fold(name, tuple(n for n in names if n not in kept), tuple(n for n in names if n in kept))


def _units(names: Sequence[str], groups: Mapping[str, str]) -> list[tuple[str, ...]]:
    """What may not be torn: groups and single cases, in the order of their first names."""
    units: dict[tuple[str, str], list[str]] = {}
    for name in names:
        units.setdefault(("group", groups[name]) if name in groups else ("case", name), []).append(name)
    return [tuple(unit) for unit in units.values()]


def _shuffled(units: Sequence[tuple[str, ...]], plan: FoldsPlan) -> list[list[str]]:
    order = np.random.RandomState(plan.seed).permutation(len(units))
    if any(len(unit) > 1 for unit in units):  # patients differ in their number of scans: even out the cases, not the patients
        from sklearn.model_selection import GroupKFold

        groups = np.repeat(np.arange(len(units)), [len(units[unit]) for unit in order])
        splits = GroupKFold(plan.count).split(np.zeros(len(groups)), groups=groups)
        parts = [[int(order[group]) for group in np.unique(groups[held_out])] for _, held_out in splits]
    else:
        # KFold(plan.count, shuffle=True, random_state=plan.seed) in numpy: the same lists without the second that sklearn takes to import
        parts = [sorted(part) for part in np.array_split(order, plan.count)]
    return [[case for unit in part for case in units[unit]] for part in parts]


def _stratified(units: Sequence[tuple[str, ...]], plan: FoldsPlan, presence: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The rarest label first, and of it the patients with most cases that show it: each goes to the fold that has the fewest such
    cases, then the fewest cases."""
    shows = [Counter(label for case in unit for label in presence.get(case, ())) for unit in units]
    rarity = sum(shows, Counter())
    waiting = [int(unit) for unit in np.random.RandomState(plan.seed).permutation(len(units))]
    folds: list[list[int]] = [[] for _ in range(plan.count)]
    for label in [*sorted(rarity, key=lambda name: (rarity[name], name)), None]:
        those = [unit for unit in waiting if label is None or shows[unit][label]]
        for unit in sorted(those, key=lambda unit, label=label: -(shows[unit][label] if label else len(units[unit]))):

            def load(fold: list[int], label: str | None = label) -> tuple[int, int]:
                return sum(shows[u][label] for u in fold) if label else 0, sum(len(units[u]) for u in fold)

            min(folds, key=load).append(unit)
            waiting.remove(unit)
    return [[case for unit in fold for case in units[unit]] for fold in folds]


def _blocks(units: Sequence[tuple[str, ...]], count: int) -> list[list[str]]:
    """Runs of neighbours of about the same number of cases; whole stacks where there are enough of them, else cut within."""
    patient = {unit[0]: unit for unit in units}
    runs = [[case for first in run for case in patient[first]] for run in stacks(patient)]
    pieces = runs if len(runs) >= count else [list(patient[first]) for run in stacks(patient) for first in run]
    total, done = sum(map(len, pieces)), 0
    folds: list[list[str]] = [[] for _ in range(count)]
    for position, piece in enumerate(pieces):
        wanted = int((done + len(piece) / 2) * count / total)
        left = count - (len(pieces) - position)  # as many pieces as folds remain: each gets one
        fold = max(min(wanted, position), left)
        if fold and not folds[fold - 1]:
            fold -= 1
        folds[fold] += piece
        done += len(piece)
    return folds


def _checked(given: Given, names: Sequence[str], groups: Mapping[str, str], excluded: Collection[str], what: str) -> list[Fold]:
    known, folds = set(names), []
    for position, (train, held_out) in enumerate(given):
        if unknown := {*train, *held_out} - known - set(excluded):
            raise PlanError(f"{what}: fold {position} names {few(unknown)}, which the dataset does not have", remedy="Correct the folds")
        if both := set(train) & set(held_out):
            raise PlanError(f"{what}: fold {position} trains on {few(both)} and holds it out", remedy="Correct the folds")
        torn = {groups[c] for c in train if c in groups} & {groups[c] for c in held_out if c in groups}
        if torn:
            raise PlanError(f"{what}: fold {position} tears group {few(torn)} apart", remedy="Correct the folds, or set folds.groups=false")
        folds.append(Fold(position, tuple(sorted(set(train) & known)), tuple(sorted(set(held_out) & known))))
    seen = Counter(case for fold in folds for case in fold.held_out)
    if twice := {case for case, count in seen.items() if count > 1}:
        raise PlanError(f"{what}: {few(twice)} is held out by two folds", remedy="Correct the folds: each case is scored once")
    if not folds or any(not f.train or not f.held_out for f in folds):
        raise PlanError(f"{what}: a fold trains on nothing or holds nothing out", remedy="Correct the folds")
    return folds
