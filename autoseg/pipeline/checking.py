"""How a dataset, its DICOM series and a WORK stand: what `doctor` and `info` tell. Nothing is written."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from autoseg.data.choices import Choices, settled_choices
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.folders.listing import SeriesListing, look_for_series
from autoseg.data.key import Key, read_key
from autoseg.data.labels import LabelSet
from autoseg.files import Work
from autoseg.fingerprint.checks import check
from autoseg.fingerprint.kept import KeptMeasures
from autoseg.fingerprint.measure import Measurement, measure
from autoseg.planning.explain import explain
from autoseg.planning.plan_file import read_plan
from autoseg.progress import bar
from autoseg.standing import Diagnosis, compare, folds_text

log = logging.getLogger("autoseg")


def doctor(
    dataset: Path, work: Path | None = None, *, choices: Choices | None = None, workers: int | None = None, quiet: bool = False
) -> Diagnosis:
    """Read every case of a dataset and find what is wrong or doubtful; nothing is written.

    Args:
        work: a WORK made from it, whose orientation and choices are used, and which it is compared with.

    Raises:
        DatasetError: no layout fits, or no case can be used.
    """
    kept = read_plan(Work(work).planned().plan) if work else None
    reading, key = _kept_reading(work, choices)
    orientation, labels = (kept.dataset.orientation, kept.dataset.label_set()) if kept else ("lps", None)
    before = KeptMeasures(Work(work).measured, writes=False) if work else None
    measured = measured_dataset(dataset, orientation, reading, key, workers, quiet, labels=labels, kept=before)
    doubts = check(measured.dataset, measured.fingerprint)
    measured = replace(measured, problems=tuple(dict.fromkeys([*measured.problems, *doubts])))
    return Diagnosis(measured, compare(Work(work), kept, measured) if kept else None)


def list_series(dataset: Path, work: Path | None = None, *, choices: Choices | None = None, workers: int | None = None) -> SeriesListing:
    """Every DICOM image under a folder, with the case that it becomes; nothing is read but headers.

    Raises:
        DatasetError: the folder has another layout than an export's, and no case in it can be used.
    """
    return look_for_series(dataset, *_kept_reading(work, choices), workers=workers)


def info(path: Path) -> str:
    """A WORK's plan in words with the state of its folds, or what a dataset holds.

    Raises:
        DatasetError: it is neither.
    """
    work = Work(path)
    if not work.plan.is_file():
        found = open_dataset(path)
        labels = ", ".join(found.labels.names) if found.labels else "to be found in the files"
        return f"{found.name}: {found.layout} layout, {len(found.cases)} cases\nchannels: {', '.join(found.channels)}\nlabels: {labels}\n"
    plan = read_plan(work.plan)
    return f"{explain(plan)}\n{folds_text(work, plan)}\n"


def measured_dataset(
    dataset: Path,
    orientation: str,
    choices: Choices,
    key: Key,
    workers: int | None,
    quiet: bool,
    *,
    labels: LabelSet | None,
    cluster: str | None = None,
    kept: KeptMeasures | None = None,
) -> Measurement:
    """The dataset, measured; `labels` are those of a plan that is kept, `kept` is what was measured before."""
    found = open_dataset(dataset, choices=choices, key=key, workers=workers)
    log.info("%s: %s layout, %d cases, channels %s", found.name, found.layout, len(found.cases), ", ".join(found.channels))
    with bar("measuring", len(found.cases), quiet=quiet) as tick:
        crew = {"workers": workers, "cluster": cluster, "on_case": tick}
        return measure(found, orientation=orientation, kept_labels=labels, kept=kept, **crew)


def _kept_reading(work: Path | None, choices: Choices | None) -> tuple[Choices, Key]:
    """What is chosen about reading files, and the numbers of an export's cases, as WORK keeps both."""
    if work is None:
        return choices or Choices(), Key()
    return settled_choices(choices or Choices(), Work(work).dataset), read_key(Work(work).key)
