"""One pass over the cases: each is read, checked and measured once; all problems are gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from autoseg.data.annotations.segments import Names, meaning
from autoseg.data.case import Case, CaseFiles, Dataset
from autoseg.data.labels import LabelSet
from autoseg.data.reading import content_key, read_case
from autoseg.errors import DatasetError, LabelError, Problem, excluded_cases, problem_table
from autoseg.fingerprint.checks import check
from autoseg.fingerprint.histogram import describe
from autoseg.fingerprint.kinds import looks_like, mended, says_ct, settle_kind
from autoseg.fingerprint.merge import summarise
from autoseg.fingerprint.naming import with_named_labels
from autoseg.fingerprint.places import label_places
from autoseg.fingerprint.sides import measure_sides
from autoseg.fingerprint.signature import sign
from autoseg.fingerprint.spread import ForegroundHistograms, Sort, Spread, add
from autoseg.fingerprint.types import CaseMeasures, ChannelMeasures, Fingerprint
from autoseg.geometry import Box, Grid, to_lps, whole_box
from autoseg.parallel import map_cases, one_blas_thread, seconds_of_work, worker_count

MOST_UNDECLARED = 255  # distinct values in label maps without dataset.json; more mean that they are images


@dataclass(frozen=True)
class Measurement:
    """What the pass found.

    dataset: with labels resolved and without the cases that an error excludes.
    problems: of the layout, of single cases, and of the dataset as a whole.
    """

    dataset: Dataset
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]


def measure(
    dataset: Dataset,
    *,
    orientation: str,
    workers: int | None,
    cluster: str | None = None,
    on_case: Callable[[str], None] | None = None,
    kept_labels: LabelSet | None = None,
) -> Measurement:
    """Measure all cases. Reads files.

    Args:
        dataset: as a layout described it; `labels` None means that values are to be found in the files.
        orientation: `lps` or `as_stored`, as `read_case` takes it.
        workers: processes; None: as many as cores and memory allow.
        cluster: address of a Dask scheduler, whose workers measure instead; they must see the files at the same paths.
        on_case: called with a case's name when it is done.
        kept_labels: those of a plan that is kept, which files that name their segments are to follow.

    Raises:
        DatasetError: no case is left, the label maps show no foreground or do not look like label maps, or only some of them name
            their segments.
    """
    with one_blas_thread():
        return _measure(dataset, orientation, workers, cluster, on_case, kept_labels)


def _measure(
    dataset: Dataset,
    orientation: str,
    workers: int | None,
    cluster: str | None,
    on_case: Callable[[str], None] | None,
    kept_labels: LabelSet | None,
) -> Measurement:
    measured, spread, problems, named = _measure_files(dataset, orientation, workers, cluster, on_case)
    problems = [*dataset.problems, *problems]
    _require_cases(measured, problems)
    if dataset.labels is None and named:
        labels, measured, doubts = with_named_labels(measured, named, kept_labels)
        dataset, problems = replace(dataset, labels=labels), [*problems, *doubts]
    elif dataset.labels is None:
        labels = labels_found(measured)
        dataset = replace(dataset, labels=labels)
        if labels.background != 0:  # the first pass took all voxels for foreground
            measured, spread, again, _ = _measure_files(dataset, orientation, workers, cluster, None)
            problems = list(dict.fromkeys([*problems, *again]))
            _require_cases(measured, problems)
    dataset = replace(dataset, cases=tuple(files for files in dataset.cases if files.case in measured))
    fingerprint = summarise(measured, spread, dataset)
    return Measurement(dataset, fingerprint, tuple(dict.fromkeys([*problems, *check(dataset, fingerprint)])))


def _require_cases(measured: Mapping[str, CaseMeasures], problems: list[Problem]) -> None:
    if not measured:
        table = problem_table(problems) or "the dataset has no cases"
        raise DatasetError(f"no case can be used:\n{table}\n", remedy="Mend these and run the command again")


def _measure_files(
    dataset: Dataset, orientation: str, workers: int | None, cluster: str | None, on_case: Callable[[str], None] | None
) -> tuple[dict[str, CaseMeasures], Spread, list[Problem], dict[str, tuple[Names, ...]]]:
    """Measures in the order of the dataset's cases, the histograms of all of them added up, and problems in the same order.

    The last is what the label values of each case stand for whose label file names its segments, where the dataset declares no labels.
    """
    # A worker holds one case: what its files unpack to as float32, and about as much again for masks and statistics.
    sizes = [sum(_bytes(path) for path in files.files()) for files in dataset.cases]
    seconds = seconds_of_work(len(sizes), sum(sizes))  # a compressed voxel takes about a byte, and others are worth the processes
    processes = worker_count(len(sizes), 0.4 + 8 * max(sizes, default=0) / 2**30, workers, seconds=seconds)
    # what travels with each case
    context = replace(dataset, cases=(), groups={}, intensity_kinds={}, labels_present={}, given_folds=None, problems=(), key=None)
    found: dict[str, CaseMeasures] = {}
    spread: Spread = {}
    said: dict[str, list[Problem]] = {}
    named: dict[str, tuple[Names, ...]] = {}
    function = partial(_measure_file, context, orientation)
    for outcome in map_cases(function, dataset.cases, workers=processes, name=lambda files: files.case, cluster=cluster):
        name = outcome.item.case
        error = outcome.error or _unannotated(outcome.item, outcome.value[0].measures, dataset)
        if error is not None:
            said[name] = [Problem.of(error.in_case(name))]
        else:
            case, said[name] = outcome.value
            if not excluded_cases(said[name]):
                found[name] = case.measures
                named |= {} if case.combinations is None else {name: case.combinations}
                gather(spread, case, dataset.channels, dataset.intensity_kinds.get(name, {}))
        if on_case:
            on_case(name)
    order = [files.case for files in dataset.cases]
    measured = {name: found[name] for name in order if name in found}
    return measured, spread, [problem for name in order for problem in said.get(name, ())], named


def gather(spread: Spread, case: MeasuredCase, channels: Sequence[str], given: Mapping[str, str]) -> None:
    """Add a case's histograms to those of the cases that look like it.

    Args:
        given: channel -> kind that dataset.json says the case has.
    """
    for number, (name, measures, found) in enumerate(zip(channels, case.measures.channels, case.histograms, strict=True)):
        if found is not None:
            add(spread, Sort(number, measures.look.kind, measures.look.sure, given.get(name)), found)


def _unannotated(files: CaseFiles, measures: CaseMeasures, dataset: Dataset) -> LabelError | None:
    """What is wrong with a case whose label map shows a value of classes or regions that `labels_present` says nobody annotated."""
    if files.case not in dataset.labels_present:
        return None
    labels, names = dataset.labels, dataset.labels_present[files.case]
    named = list(zip(labels.names, labels.values, strict=True))
    known = {labels.background, labels.ignore, *(value for name, values in named if name in names for value in values)}
    if not (others := sorted(set(measures.label_voxels) - known)):
        return None
    hidden = [name for name, values in named if set(values) & set(others)]
    return LabelError(
        f"`labels_present` says that it annotates {', '.join(names)}, and its label map shows {', '.join(hidden)} too",
        case=files.case,
        file=files.label,
        remedy=f"Add {', '.join(hidden)} to its `labels_present` in dataset.json, or take the value out of the label map",
    )


def _measure_file(dataset: Dataset, orientation: str, files: CaseFiles) -> tuple[MeasuredCase, list[Problem]]:
    regrid = "to_first" if dataset.choices.regrid else "none"
    case = read_case(files, len(dataset.channels), orientation=orientation, regrid=regrid, labels=dataset.labels)
    return measure_case(case, replace(dataset, cases=(files,))), list(case.notices)


def _bytes(path: Path) -> int:
    """Size of a file; 0 where there is none, which the reader will report."""
    return path.stat().st_size if path.is_file() else 0


@dataclass(frozen=True)
class MeasuredCase:
    """One case: what the fingerprint keeps of it, and a histogram of each channel's foreground, None where it has none.

    combinations: see `autoseg.data.case.Case`.
    """

    measures: CaseMeasures
    histograms: tuple[ForegroundHistograms | None, ...]
    combinations: tuple[Names, ...] | None = None


def measure_case(case: Case, dataset: Dataset) -> MeasuredCase:
    """Everything that a fingerprint is made of from one case; kinds are as the case alone gives them (`merge.settled` has the last word).

    Args:
        case: as read; its foreground is every voxel that is not background, `ignore` included (peer 1.3).
        dataset: for channels and labels; labels None takes 0 for background.

    Raises:
        LabelError: values that are not declared.
        DatasetError: the case has no label map.
    """
    if case.labels is None:
        raise DatasetError("it has no label map", case=case.name, remedy="Add one, or leave the image out of the dataset")
    voxels, labels = case.image.voxels, case.labels.voxels
    counts = label_counts(labels)
    background = 0
    if dataset.labels is not None:
        _require_declared(counts, dataset.labels, case, dataset)
        background = dataset.labels.background
    foreground = labels != background
    lps = to_lps(case.image.grid)
    overlap, offset = {}, {}
    if (known := dataset.labels or meaning(case.combinations or ())) is not None:
        overlap, offset = measure_sides(lps.apply(labels), case.image.grid.oriented(lps).spacing, known)
    channels = [measure_channel(channel, foreground, name) for channel, name in zip(voxels, dataset.channels, strict=True)]
    measures = CaseMeasures(
        content_key=case.content_key,
        label_key=content_key(lps.apply(labels)[None]),
        spacing=case.image.grid.spacing,
        shape=case.image.grid.shape,
        planar=case.image.grid.planar,
        tilt=case.image.grid.tilt(),
        orientation=letters(case.stored),
        crop_box=nonzero_box(voxels),
        channels=[measured for measured, _ in channels],
        label_voxels=counts,
        side_overlap=overlap,
        side_offset=offset,
        label_places=label_places(lps.apply(labels)),
        origin=case.stored.origin,
        signature=sign(voxels[0], case.image.grid.spacing, lps),
    )
    return MeasuredCase(measures, tuple(histograms for _, histograms in channels), case.combinations)


def measure_channel(voxels: np.ndarray, foreground: np.ndarray, name: str) -> tuple[ChannelMeasures, ForegroundHistograms | None]:
    """One channel (z, y, x) of a case and its foreground (boolean)."""
    whole = describe(voxels)
    look = looks_like(whole)
    kind = settle_kind(look, is_ct=says_ct(name), channel_name=name)
    stored, in_hu = describe(voxels, foreground), None
    if stored is not None and (values := mended(voxels, whole.minimum, look.offset)) is not voxels:
        in_hu = describe(values, foreground)
    measures = ChannelMeasures(
        **kind.model_dump(),
        look=look,
        minimum=whole.minimum,
        maximum=whole.maximum,
        mean=whole.mean,
        std=whole.std,
        foreground=stored and stored.measures(),
        foreground_hu=in_hu and in_hu.measures(),
    )
    return measures, stored and ForegroundHistograms(stored.histogram, (in_hu or stored).histogram)


def label_counts(labels: np.ndarray) -> dict[int, int]:
    """Voxels of each value that occurs in an unsigned label map."""
    if labels.dtype.itemsize <= 2:
        size = int(labels.max()) + 1
        counts = sum(np.bincount(plane.ravel(), minlength=size) for plane in labels)  # plane by plane: bincount copies to 64 bits
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _require_declared(counts: Mapping[int, int], labels: LabelSet, case: Case, dataset: Dataset) -> None:
    if unknown := labels.unknown(np.array(list(counts))):
        found = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:8]) + (" and more" if len(unknown) > 8 else "")
        files = next((files for files in dataset.cases if files.case == case.name), None)
        raise LabelError(
            f"its label map has values that dataset.json does not declare: {found}; declared are {sorted(labels.file_values)}",
            case=case.name,
            file=files.label if files else None,
            remedy="Declare them under `labels`, or correct the label map",
        )


def labels_found(measured: Mapping[str, CaseMeasures]) -> LabelSet:
    """Labels named `label_<value>` from the values in the files; background is 0, or the smallest value where 0 never occurs.

    Raises:
        DatasetError: no foreground, or too many values for label maps.
    """
    values = sorted(set().union(*(case.label_voxels for case in measured.values())))
    if len(values) > MOST_UNDECLARED:
        raise DatasetError(
            f"the label maps hold {len(values)} different values and no dataset.json declares them",
            remedy="Check that the label folder holds label maps and not images, or declare `labels` in dataset.json",
        )
    background, *foreground = values
    if not foreground:
        raise DatasetError(f"all label maps hold only the value {background}", remedy="Give label maps that mark something")
    return LabelSet.declared({"background": background} | {f"label_{value}": value for value in foreground})


def nonzero_box(voxels: np.ndarray) -> Box:
    """The half-open box of the voxels (C, z, y, x) where any channel is not 0; all of the volume if there are none.

    The peer fills holes in the mask first (1.2), which does not move its box.
    """
    shape = voxels.shape[1:]
    inside = [np.zeros(n, dtype=bool) for n in shape]
    for channel in voxels:
        for z, plane in enumerate(channel):
            mask = plane != 0
            rows = mask.any(axis=1)
            inside[0][z] |= bool(rows.any())
            inside[1] |= rows
            inside[2] |= mask.any(axis=0)
    if not inside[0].any():
        return whole_box(shape)
    found = [np.flatnonzero(axis) for axis in inside]
    return tuple((int(f[0]), int(f[-1]) + 1) for f in found)


def letters(grid: Grid) -> str:
    """Where the stored axes x, y, z lead, in ITK's letters (LPS: to the left, to the back, to the head)."""
    orientation = to_lps(grid)
    named = {axis: pair[flip] for axis, flip, pair in zip(orientation.axes, orientation.flips, ("SI", "PA", "LR"), strict=True)}
    return "".join(named[axis] for axis in (2, 1, 0))
