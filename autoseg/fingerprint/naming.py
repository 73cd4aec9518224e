"""Files that name their segments, each in its own way, to the labels of the dataset, without reading any file again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from autoseg.data.annotations.segments import Names, as_values, gathered, same_name, some
from autoseg.data.labels import LabelSet
from autoseg.errors import DatasetError, Problem
from autoseg.fingerprint.types import CaseMeasures


def with_named_labels(
    measured: Mapping[str, CaseMeasures], combinations: Mapping[str, Sequence[Names]], kept: LabelSet | None
) -> tuple[LabelSet, dict[str, CaseMeasures], list[Problem]]:
    """The dataset's labels, the measures in terms of their file values, and warnings.

    Args:
        measured: cases as measured, each with label values of its own.
        combinations: what these values stand for, as names.
        kept: the labels of a plan that is kept; None: those that the files name.

    Raises:
        DatasetError: other cases have label maps of numbers.
        LabelError: no case outlines anything.
    """
    if plain := [case for case in measured if case not in combinations]:
        raise DatasetError(
            f"{len(combinations)} cases name their segments ({some(list(combinations), 3)}), {len(plain)} have numbers ({some(plain, 3)})",
            remedy="Declare `labels` in dataset.json: the names that the segments have, with the numbers of the label maps",
        )
    labels = kept or gathered(
        {combinations[name][value]: count for value, count in case.label_voxels.items()} for name, case in measured.items()
    )
    result, problems = {}, []
    for name, case in measured.items():
        result[name], unknown = _renumbered(case, combinations[name], labels)
        if unknown:
            message = f"segments that are no labels of the plan are left out: {some(unknown)}"
            problems.append(Problem("warning", "LabelError", message, "Use --replan if they are meant", case=name))
    return labels, result, problems


def _renumbered(case: CaseMeasures, combinations: Sequence[Names], labels: LabelSet) -> tuple[CaseMeasures, list[str]]:
    """The measures of a case in file values and names of `labels`, and its names that are none."""
    values, unknown = as_values(combinations, labels)
    voxels: Counter[int] = Counter()
    for value, count in case.label_voxels.items():
        voxels[int(values[value])] += count
    spelled = {same_name(name): name for name in labels.names}

    def known(pairs: Mapping[str, float]) -> dict[str, float]:
        named = {tuple(spelled.get(same_name(part)) for part in pair.split("|")): value for pair, value in pairs.items()}
        return {"|".join(pair): value for pair, value in named.items() if None not in pair}

    sides = {"side_overlap": known(case.side_overlap), "side_offset": known(case.side_offset)}
    return case.model_copy(update={"label_voxels": dict(sorted(voxels.items())), **sides}), unknown
