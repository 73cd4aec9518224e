"""A dataset into the stores of its configurations: each file is read once for all of them, and never twice for the same plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg.data.case import Case, CaseFiles, Dataset, LabelMap
from autoseg.errors import DatasetError, Problem
from autoseg.files import Work, digest
from autoseg.fingerprint.types import CaseMeasures, Fingerprint
from autoseg.parallel import available_cores, map_cases, seconds_of_work, worker_count
from autoseg.planning.schema import Plan
from autoseg.preprocessing.prepare import Mending, prepare_case, target_spacing
from autoseg.preprocessing.room import require_disk
from autoseg.preprocessing.store import has_case, write_case

log = logging.getLogger("autoseg")

_STORE_VERSION = 3  # part of every key: a store of another form is made anew
_IMPORTS_GB = 0.3
_VOLUMES = 4  # float32 copies of a case that a worker holds at most beyond its imports, held by tests/preprocessing/test_memory.py


@dataclass(frozen=True)
class _Task:
    """One case and the configurations that still want it: name -> key."""

    files: CaseFiles
    kinds: tuple[str, ...]
    mendings: tuple[Mending | None, ...]
    content_key: str
    annotated: tuple[str, ...] | None
    wanted: dict[str, str]
    work: Path
    plan: Plan
    threads: int


def preprocess(
    dataset: Dataset,
    fingerprint: Fingerprint,
    plan: Plan,
    work: Work,
    *,
    configurations: Sequence[str],
    workers: int | None,
    cluster: str | None = None,
    on_case: Callable[[str], None] | None = None,
) -> list[Problem]:
    """Prepare and store the cases that are not in the stores yet, and each case's label map in WORK/references.

    Args:
        dataset: the cases, those that the fingerprint excluded left out.
        fingerprint: content keys and intensity kinds of the cases.
        configurations: names in the plan.
        workers: processes; None follows cores and free memory, 0 stays in this process.
        cluster: address of a Dask scheduler, whose workers are used instead; they must see DATASET and WORK at the same paths.
        on_case: called with each case's name once it is stored, was there already, or has failed.

    Returns:
        A row for each case that failed; the others are stored.

    Raises:
        ResourceError: what is missing surely does not fit on the disk; nothing was begun.
    """
    tasks, problems = [], []
    for files in dataset.cases:
        measures, annotated = fingerprint.cases[files.case], dataset.labels_present.get(files.case)
        keys = {name: case_key(plan, name, measures, annotated) for name in configurations}
        missing = {name: key for name, key in keys.items() if not has_case(work.store(name), files.case, key)}
        if missing or not work.reference(files.case).is_file():
            kinds = tuple(channel.kind for channel in measures.channels)
            mendings = tuple(channel.look and (channel.minimum, channel.look.offset) for channel in measures.channels)
            tasks.append(_Task(files, kinds, mendings, measures.content_key, annotated, missing, work.path, plan, 1))
        elif on_case:
            on_case(files.case)
    missing = ((name, fingerprint.cases[task.files.case]) for task in tasks for name in task.wanted)
    if warning := require_disk(plan, missing, work.path):
        log.warning("%s", warning)
    sizes = [_voxels(task, fingerprint.cases[task.files.case]) for task in tasks]
    memory = _IMPORTS_GB + _VOLUMES * max((max(size) for size in sizes), default=0) * 4 / 2**30
    count = worker_count(len(tasks), memory, workers, seconds=seconds_of_work(len(tasks), sum(map(sum, sizes))))
    threads = 1 if cluster else max(1, available_cores() // max(count, 1))  # a cluster's workers have their own threads
    tasks = [replace(task, threads=threads) for task in tasks]
    for outcome in map_cases(_store, tasks, workers=count, name=lambda task: task.files.case, cluster=cluster):
        if outcome.error is not None:
            problems.append(Problem.of(outcome.error.in_case(outcome.item.files.case)))
        if on_case:
            on_case(outcome.item.files.case)
    return problems


def case_key(plan: Plan, configuration: str, measures: CaseMeasures, annotated: tuple[str, ...] | None = None) -> str:
    """What a stored case is made of: its voxels and grid, what of it is annotated, and the part of the plan that matters for it."""
    part = plan.configurations[configuration]
    kinds = [channel.kind for channel in measures.channels]
    steps = [
        plan.intensity[name][kind].model_dump() if kind in plan.intensity[name] else None
        for name, kind in zip(plan.dataset.channels, kinds, strict=True)
    ]
    dataset = plan.dataset.model_dump(include={"labels", "regions", "region_order", "ignore_label", "orientation"})
    decisions = part.model_dump(include={"spacing", "transpose", "crop", "normalise_in_mask"})
    resampling = part.resampling.model_dump(include={"size", "image", "labels"})
    grid = measures.model_dump(include={"content_key", "label_key", "spacing", "shape", "orientation"})
    return digest(_STORE_VERSION, grid, annotated, kinds, steps, dataset, decisions, resampling, part.network.dimension)


def _voxels(task: _Task, measures: CaseMeasures) -> list[float]:
    """Values of all channels as read, and as each configuration that still wants the case has them."""
    sizes = [float(np.prod(measures.shape)) * len(measures.channels)]
    for part in [task.plan.configurations[name].inside() for name in task.wanted]:
        spacing = [measures.spacing[a] for a in part.transpose or (0, 1, 2)]
        sizes.append(sizes[0] * float(np.prod(spacing) / np.prod(target_spacing(part, spacing))))
    return sizes


def _store(task: _Task) -> None:
    """Read one case, write its label map and what each configuration wants of it."""
    from autoseg.data.reading import read_case

    plan, work = task.plan, Work(task.work)
    about, labels = plan.dataset, plan.dataset.label_set()
    case = read_case(task.files, len(about.channels), orientation=about.orientation, regrid=about.regrid, labels=labels)
    if case.content_key != task.content_key:
        raise DatasetError(
            "its image has changed since the fingerprint was taken",
            case=case.name,
            file=task.files.images[0],
            remedy="Run plan-and-preprocess again",
        )
    _write_reference(case, work)
    for name, key in task.wanted.items():
        configuration = plan.configurations[name]
        prepared = prepare_case(
            case, configuration, plan.intensity, about.channels, task.kinds, labels, mendings=task.mendings, threads=task.threads
        )
        write_case(
            work.store(name),
            prepared,
            key,
            labels=labels,
            annotated=task.annotated,
            by_slices=configuration.network.dimension == 2,
        )
        del prepared  # before the next one is made


def _write_reference(case: Case, work: Work) -> None:
    from autoseg.data.writing import on_stored_grid, write_labels

    if case.labels is not None:
        write_labels(work.reference(case.name), LabelMap(on_stored_grid(case.labels.voxels, case.orientation, case.stored), case.stored))
