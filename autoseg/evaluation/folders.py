"""Predictions against references: a few pairs of files, or two whole folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoseg.data.folders.description import Description, describe
from autoseg.data.labels import LabelSet
from autoseg.data.names import entries, split_channel, without_label_suffix
from autoseg.data.reading import read_labels
from autoseg.errors import AutosegError, DatasetError, Problem
from autoseg.evaluation.crossval import classes_as_json
from autoseg.evaluation.predictions import read_summary
from autoseg.evaluation.scores import CaseScores, ClassScores, FoldScores, case_as_json, none_if_undefined, score_case, values_present
from autoseg.evaluation.summary import ClassSummary, foreground_mean, summarise
from autoseg.evaluation.tables import cases_text, headline
from autoseg.files import write_json
from autoseg.metrics import Overlap
from autoseg.parallel import map_cases, worker_count

WORKER_GB = 1.5


@dataclass(frozen=True)
class Pair:
    """One case's two label maps, and its image's content key where that is known.

    annotated: the classes that somebody annotated in the case; None: all.
    """

    case: str
    prediction: Path
    reference: Path
    content_key: str | None = None
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Evaluation:
    """A folder of predictions against one of references.

    cases: what the headline comes from.
    trained_on: cases that the model was trained on; they are in no summary.
    classes: class or group -> summary of `cases`.
    problems: pairs that could not be scored, cases without partner, doubts.
    """

    cases: tuple[CaseScores, ...]
    trained_on: tuple[CaseScores, ...]
    groups: dict[str, tuple[str, ...]]
    classes: dict[str, ClassSummary]
    foreground_mean: float
    problems: tuple[Problem, ...]


def score_pairs(
    pairs: Sequence[Pair],
    *,
    labels: LabelSet | None,
    groups: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    workers: int | None,
    on_case: Callable[[str], None] | None = None,
) -> tuple[list[CaseScores], list[Problem]]:
    """Scores of each pair in the given order, and a problem for each that cannot be scored.

    Args:
        labels: None takes every value above 0 that a case shows for a class of that name.
        workers: processes; None: as cores and memory allow.
    """
    scored: dict[str, CaseScores] = {}
    problems = []
    function = partial(_score_pair, labels=labels, groups=dict(groups), metrics=tuple(metrics))
    count = worker_count(len(pairs), WORKER_GB, workers) if len(pairs) > 2 or workers is not None else 1
    for outcome in map_cases(function, pairs, workers=count, name=lambda pair: pair.case):
        if outcome.error is not None:
            problems.append(Problem.of(outcome.error.in_case(outcome.item.case)))
        else:
            scored[outcome.item.case] = outcome.value
        if on_case:
            on_case(outcome.item.case)
    return [scored[pair.case] for pair in pairs if pair.case in scored], problems


def _score_pair(pair: Pair, labels: LabelSet | None, groups: dict[str, Sequence[str]], metrics: Sequence[str]) -> CaseScores:
    prediction = read_labels(pair.prediction, case=pair.case)
    reference = read_labels(pair.reference, case=pair.case, onto=prediction.grid, labels=labels)
    if labels is None:
        labels = labels_of_values({*values_present(reference.voxels).tolist(), *values_present(prediction.voxels).tolist()})
    try:
        return score_case(
            prediction,
            reference,
            case=pair.case,
            labels=labels,
            groups=groups,
            metrics=metrics,
            content_key=pair.content_key,
            annotated=pair.annotated,
        )
    except AutosegError as error:  # what is wrong with a pair is wrong with its prediction
        raise type(error)(error.message, case=pair.case, file=pair.prediction, remedy=error.remedy) from error


def labels_of_values(values: set[int]) -> LabelSet:
    """A class for each value above 0, named by it; voxels of 0 are the background."""
    foreground = {str(v): v for v in sorted(values) if v}
    return LabelSet.declared({"background": 0, **(foreground or {"1": 1})})


def fold_scores(
    fold: int | str,
    pairs: Sequence[Pair],
    *,
    labels: LabelSet,
    groups: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    workers: int | None = None,
) -> tuple[FoldScores, list[Problem]]:
    """A fold's held-out cases against their truth, and what could not be scored."""
    cases, problems = score_pairs(pairs, labels=labels, groups=groups, metrics=metrics, workers=workers)
    return FoldScores(fold, {name: tuple(members) for name, members in groups.items()}, tuple(cases)), problems


def evaluate_folders(
    predictions: Path,
    references: Path,
    *,
    labels: LabelSet | None,
    groups: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    annotated: Mapping[str, Sequence[str]] | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Score each prediction against the reference of the same case.

    A case that the model was trained on, as the predictions' summary.json says, is scored but enters no summary.

    Args:
        labels: None: of a dataset.json in or beside one of the folders, else a class for each value found.
        groups: group -> classes that are scored together too; empty with `labels` None: those of that dataset.json.
        annotated: case -> classes that somebody annotated in it (`labels_present`), where not all; None with `labels` None: that
            dataset.json's.

    Raises:
        DatasetError: a folder is not there, or no case has both a prediction and a reference.
        LabelError: a dataset.json whose labels contradict themselves.
    """
    predicted, true = label_files(predictions), label_files(references)
    if labels is None:
        found = find_description(references, predictions)
        labels, groups = found.labels, groups or found.label_groups
        annotated = found.labels_present if annotated is None else annotated
    both = pair_files(predicted, true)
    if not both:
        raise DatasetError(
            f"no case has both: {_some(predicted)} in {predictions.name}, {_some(true)} in {references.name}",
            remedy="Name predictions and references alike",
        )
    used = {path for pair in both.values() for path in pair}
    problems = [_unpaired(name, "a reference, but no prediction", path) for name, path in sorted(true.items()) if path not in used]
    problems += [_unpaired(name, "a prediction, but no reference", path) for name, path in sorted(predicted.items()) if path not in used]
    about, doubts = read_summary(predictions / "summary.json")
    known = {case: tuple(names) for case, names in (annotated or {}).items()}
    pairs = [Pair(case, *files, about.get(case, {}).get("content_key"), known.get(case)) for case, files in both.items()]
    scored, failed = score_pairs(pairs, labels=labels, groups=groups, metrics=metrics, workers=workers)
    cases = scored if labels is not None else with_same_classes(scored)
    seen = {case for case in both if about.get(case, {}).get("trained_on")}
    problems += [*failed, *doubts, *(_seen(case, about[case]["trained_on"]) for case in sorted(seen))]
    return _evaluation(cases, seen, {name: tuple(members) for name, members in groups.items()}, problems)


def _evaluation(cases: Sequence[CaseScores], seen: set[str], groups: dict[str, tuple[str, ...]], problems: Sequence[Problem]) -> Evaluation:
    counted = tuple(case for case in cases if case.case not in seen)
    classes = summarise(counted)
    trained_on = tuple(case for case in cases if case.case in seen)
    return Evaluation(counted, trained_on, groups, classes, foreground_mean(classes, groups), tuple(problems))


def label_files(folder: Path) -> dict[str, Path]:
    """File name without ending -> label map, for a folder of label maps.

    Raises:
        DatasetError: there is no such folder, or two files of one name.
    """
    if not folder.is_dir():
        raise DatasetError("there is no such folder", file=folder, remedy="Give a folder of label maps")
    found: dict[str, Path] = {}
    for entry in entries(folder):
        if entry.stem.endswith("_probabilities"):
            continue
        if entry.stem in found:
            names = f"{found[entry.stem].name} and {entry.path.name}"
            raise DatasetError(f"{names} are both of case {entry.stem}", file=folder, remedy="Remove one of them")
        found[entry.stem] = entry.path
    return found


def pair_files(predicted: Mapping[str, Path], true: Mapping[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Case -> (prediction, reference): of equal names; what is left, of names equal without `_0000` or a suffix such as `_seg`."""
    both = {case: (predicted[case], true[case]) for case in sorted(true) if case in predicted}
    left = {_bare(name): path for name, path in predicted.items() if name not in both}
    more = {_bare(name): path for name, path in true.items() if name not in both}
    return {**both, **{case: (left[case], more[case]) for case in sorted(more) if case in left and case not in both}}


def _bare(name: str) -> str:
    channel = split_channel(name)
    return channel[0] if channel and channel[1] == 0 else without_label_suffix(name)


def find_description(*folders: Path) -> Description:
    """The dataset.json in or above one of the folders that declares labels; an empty one without any."""
    for folder in folders:
        for place in (folder, folder.resolve().parent):
            description = describe(place)
            if description.labels is not None:
                return description
    return Description("")


def with_same_classes(cases: Sequence[CaseScores]) -> list[CaseScores]:
    """Cases whose classes were found in their own values, each with the classes of all: one that a case does not show is absent there."""
    names = sorted({name for case in cases for name in case.classes}, key=lambda name: (len(name), name))
    filled = []
    for case in cases:
        known = next(iter(case.classes.values()))
        voxels = known.counts.TP + known.counts.FP + known.counts.FN + known.counts.TN
        nothing = Overlap(0, 0, 0, voxels)
        absent = ClassScores(nothing, {metric: nothing[metric] for metric in known.values}, known.voxel_ml)
        filled.append(replace(case, classes={name: case.classes.get(name, absent) for name in names}))
    return filled


def _unpaired(case: str, what: str, path: Path) -> Problem:
    return Problem("error", "DatasetError", f"it has {what}", "Add the other file, or remove this one", case, path.name)


def _seen(case: str, folds: Sequence[int | str]) -> Problem:
    return Problem(
        "warning",
        "TrainedOn",
        f"the model was trained on it (fold {', '.join(map(str, folds))}): listed apart, not in the headline",
        "Evaluate on cases that the model has not seen",
        case,
    )


def _some(files: Mapping[str, Path]) -> str:
    names = ", ".join(sorted(files)[:3])
    return f"{len(files)} cases" + (f" ({names}{', ...' if len(files) > 3 else ''})" if names else "")


def write_evaluation(path: Path, result: Evaluation) -> None:
    """Write the evaluation as JSON, whole or not at all; undefined values are null."""
    write_json(
        path,
        "evaluation",
        {
            "groups": {name: list(members) for name, members in result.groups.items()},
            "classes": classes_as_json(result.classes),
            "foreground_mean": {"dice": none_if_undefined(result.foreground_mean)},
            "cases": {case.case: case_as_json(case) for case in result.cases},
            "trained_on": {case.case: case_as_json(case) for case in result.trained_on},
            "problems": [vars(problem) for problem in result.problems],
        },
    )


def evaluation_text(result: Evaluation) -> str:
    """The evaluation as text: headline, cases, and apart the cases that the model was trained on."""
    count = len(result.cases)
    unseen = " that the model was not trained on" if result.trained_on else ""
    parts = [f"Evaluation of {count} {'case' if count == 1 else 'cases'}{unseen}."]
    if result.cases:
        parts += [
            headline(result.classes, result.groups, result.foreground_mean),
            f"Dice by case, and predicted/true volume in ml.\n\n{cases_text(result.cases)}",
        ]
    if result.trained_on:
        parts.append(f"Trained on, so not counted above.\n\n{cases_text(result.trained_on)}")
    return "\n\n".join(parts) + "\n"
