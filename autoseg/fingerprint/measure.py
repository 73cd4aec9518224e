"""One pass over the cases: each is read, checked and measured once; all problems are gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoseg.data.annotations.segments import Names
from autoseg.data.case import CaseFiles, Dataset
from autoseg.data.formats.nifti import voxels_in_header
from autoseg.data.labels import LabelSet
from autoseg.data.names import split_ending
from autoseg.data.reading import read_case
from autoseg.errors import DatasetError, LabelError, Problem, excluded_cases, problem_table
from autoseg.fingerprint.case_measures import MeasuredCase, measure_case
from autoseg.fingerprint.kept import KeptMeasures, measuring_key
from autoseg.fingerprint.merge import summarise
from autoseg.fingerprint.naming import with_named_labels
from autoseg.fingerprint.spread import Sort, Spread, add
from autoseg.fingerprint.types import CaseMeasures, Fingerprint
from autoseg.parallel import map_cases, one_blas_thread, seconds_of_work, worker_count

_IMPORTS_GB = 0.4
_VOLUMES = 3  # float32 copies of a case that a worker holds at most; up to 2.9 were measured (tests/benchmarks/bench_memory.py)
_VOXELS_A_BYTE = {".tif": 2, ".tiff": 2, ".png": 2, ".jpg": 12, ".jpeg": 12}  # other files: 1
MOST_UNDECLARED = 255  # distinct values in label maps without dataset.json; more mean that they are images


@dataclass(frozen=True)
class Measurement:
    """What the pass found.

    dataset: with labels resolved and without the cases that an error excludes.
    problems: of the layout and of single cases; those of the dataset as a whole are what `check` says.
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
    kept: KeptMeasures | None = None,
) -> Measurement:
    """Measure all cases. Reads files.

    Args:
        dataset: as a layout described it; `labels` None means that values are to be found in the files.
        orientation: `lps` or `as_stored`, as `read_case` takes it.
        workers: processes; None: as many as cores and memory allow.
        cluster: address of a Dask scheduler, whose workers measure instead; they must see the files at the same paths.
        on_case: called with a case's name when it is done.
        kept: what was measured before, and where more is kept; a case whose files are the same is not read again.
        kept_labels: those of a plan that is kept, which files that name their segments are to follow.

    Raises:
        DatasetError: no case is left, the label maps show no foreground or do not look like label maps, or only some of them name
            their segments.
    """
    with one_blas_thread():
        return _measure(dataset, _Pass(orientation, workers, cluster, kept), on_case, kept_labels)


@dataclass(frozen=True)
class _Pass:
    """How one pass over the cases goes; see `measure`."""

    orientation: str
    workers: int | None
    cluster: str | None
    kept: KeptMeasures | None


def _measure(dataset: Dataset, how: _Pass, on_case: Callable[[str], None] | None, kept_labels: LabelSet | None) -> Measurement:
    measured, spread, problems, named = _measure_files(dataset, how, on_case)
    problems = [*dataset.problems, *problems]
    _require_cases(measured, problems)
    if dataset.labels is None and named:
        labels, measured, doubts = with_named_labels(measured, named, kept_labels)
        dataset, problems = replace(dataset, labels=labels), [*problems, *doubts]
    elif dataset.labels is None:
        labels = labels_found(measured)
        dataset = replace(dataset, labels=labels)
        if labels.background != 0:  # the first pass took all voxels for foreground
            measured, spread, again, _ = _measure_files(dataset, how, None)
            problems = list(dict.fromkeys([*problems, *again]))
            _require_cases(measured, problems)
    dataset = replace(dataset, cases=tuple(files for files in dataset.cases if files.case in measured))
    fingerprint = summarise(measured, spread, dataset)
    return Measurement(dataset, fingerprint, tuple(dict.fromkeys(problems)))


def _require_cases(measured: Mapping[str, CaseMeasures], problems: list[Problem]) -> None:
    if not measured:
        table = problem_table(problems) or "the dataset has no cases"
        raise DatasetError(f"no case can be used:\n{table}\n", remedy="Mend these and run the command again")


def _measure_files(
    dataset: Dataset, how: _Pass, on_case: Callable[[str], None] | None
) -> tuple[dict[str, CaseMeasures], Spread, list[Problem], dict[str, tuple[Names, ...]]]:
    """Measures in the order of the dataset's cases, the histograms of all of them added up, and problems in the same order.

    The last is what the label values of each case stand for whose label file names its segments, where the dataset declares no labels.
    """
    # A worker holds one case as float32, the file as it is unpacked, and about as much again for masks and statistics.
    sizes = [sum(_bytes(path) for path in files.files()) for files in dataset.cases]
    largest = max((sum(_unpacked(path) for path in files.images) for files in dataset.cases), default=0)
    seconds = seconds_of_work(len(sizes), sum(sizes))  # a compressed voxel takes about a byte, and others are worth the processes
    processes = worker_count(len(sizes), _IMPORTS_GB + _VOLUMES * 4 * largest / 2**30, how.workers, seconds=seconds)
    # what travels with each case
    context = replace(dataset, cases=(), groups={}, intensity_kinds={}, labels_present={}, given_folds=None, problems=(), key=None)
    found: dict[str, CaseMeasures] = {}
    spread: Spread = {}
    said: dict[str, list[Problem]] = {}
    named: dict[str, tuple[Names, ...]] = {}
    function = partial(_measure_file, context, how.orientation, how.kept)
    for outcome in map_cases(function, dataset.cases, workers=processes, name=lambda files: files.case, cluster=how.cluster):
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


def _measure_file(dataset: Dataset, orientation: str, kept: KeptMeasures | None, files: CaseFiles) -> tuple[MeasuredCase, list[Problem]]:
    """Read and measure one case, or take what was measured of the same files before."""
    key = measuring_key(files, dataset, orientation) if kept else None
    name = files.case if dataset.labels else f"{files.case}.undeclared"  # where both passes are needed, neither replaces the other's
    if kept and (before := kept.read(name, key)):
        return before
    regrid = "to_first" if dataset.choices.regrid else "none"
    case = read_case(files, len(dataset.channels), orientation=orientation, regrid=regrid, labels=dataset.labels)
    measured, notices = measure_case(case, replace(dataset, cases=(files,))), list(case.notices)
    if kept:
        kept.write(name, key, measured, notices)
    return measured, notices


def _bytes(path: Path) -> int:
    """Size of a file; 0 where there is none, which the reader will report."""
    return path.stat().st_size if path.is_file() else 0


def _unpacked(path: Path) -> float:
    """Values that a file or folder holds, as its header says or about: compressed images shrink to half a byte a voxel."""
    if path.is_dir():
        return sum(_bytes(file) for file in path.iterdir())
    if path.name.endswith((".nii", ".nii.gz")) and (voxels := voxels_in_header(path)):
        return voxels
    return _VOXELS_A_BYTE.get(split_ending(path.name)[1], 1) * _bytes(path)


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
