"""What was measured of each case, kept in WORK so that no case is measured twice.

A case is CASE.npz: its measures, its notices and its histograms, with the key of what they were measured from. A file that is missing,
damaged or of another key is no error: the case is measured again. Nothing else reads these files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.case import CaseFiles, Dataset
from autoseg.data.formats.tiff import spacing_files
from autoseg.data.names import split_ending
from autoseg.errors import Problem, ResourceError
from autoseg.files import appears_whole, digest
from autoseg.fingerprint.case_measures import MeasuredCase
from autoseg.fingerprint.histogram import Histogram
from autoseg.fingerprint.spread import ForegroundHistograms
from autoseg.fingerprint.types import CaseMeasures

_VERSION = 1  # part of every key: what a later autoseg measures otherwise, it measures anew
# Headers whose voxels lie in another file, and the line that names it
_DETACHED = {
    ".mhd": re.compile(rb"^ElementDataFile[ \t]*=[ \t]*(.+?)\s*$", re.M),
    ".nhdr": re.compile(rb"^data ?file:[ \t]*(.+?)\s*$", re.M | re.I),
}
_DETACHED[".seg.nhdr"] = _DETACHED[".nhdr"]


@dataclass(frozen=True)
class KeptMeasures:
    """Where measures are kept. writes: whether more may be; a dry run and `doctor` only read."""

    folder: Path
    writes: bool

    def read(self, name: str, key: str | None) -> tuple[MeasuredCase, list[Problem]] | None:
        """What was measured under this name and key; None if that is not there."""
        path = self._path(name)
        if key is None or not path.is_file():
            return None
        try:
            with np.load(path) as arrays:
                about = json.loads(arrays["about"].tobytes())
                return _case(about, arrays) if about["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):  # damaged, or of another version
            return None

    def write(self, name: str, key: str | None, measured: MeasuredCase, notices: list[Problem]) -> None:
        """Keep what was measured of a case; where there is no room it is not kept, and what must be written will say so."""
        if key is None or not self.writes:
            return
        arrays: dict[str, np.ndarray] = {}
        about = {
            "key": key,
            "measures": measured.measures.model_dump(mode="json"),
            "combinations": measured.combinations,
            "notices": [asdict(notice) for notice in notices],
            "histograms": [_about_histograms(found, f"channel_{n}", arrays) for n, found in enumerate(measured.histograms)],
        }
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with contextlib.suppress(ResourceError), appears_whole(self._path(name), durable=False) as beside:
            np.savez(beside, **arrays)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def measuring_key(files: CaseFiles, dataset: Dataset, orientation: str) -> str | None:
    """What the measures of a case follow from: the bytes of its files, and how they are read.

    None where that cannot be told without reading it: a file that is not there, or voxels in a series of files that a header describes.
    """
    every = files.files()
    every += [beside for path in every for beside in spacing_files(path) if beside.is_file()]
    try:
        every += [beside for path in every if (beside := _voxel_file(path))]
        contents = [[path.name, _content(path)] for path in every]
    except OSError:  # the reader will name it
        return None
    reading = [files.case, files.private, [choice.pattern for choice in files.series], asdict(dataset.choices), orientation]
    labels = None if dataset.labels is None else asdict(dataset.labels)
    return digest(_VERSION, contents, len(files.images), files.label is not None, reading, list(dataset.channels), labels)


def _voxel_file(header: Path) -> Path | None:
    """Where the voxels of a detached header lie; None for other files.

    Raises:
        FileNotFoundError: there is no one such file.
    """
    if not (line := _DETACHED.get(split_ending(header.name)[1])):
        return None
    named = line.search(header.read_bytes())
    return (header.parent / named[1].decode("utf-8", "replace")).resolve(strict=True) if named else None


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _about_histograms(found: ForegroundHistograms | None, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
    if found is None:
        return None
    alike = found.hu is found.stored
    about: dict[str, Any] = {}
    for which, histogram in {"stored": found.stored, **({} if alike else {"hu": found.hu})}.items():
        about[which] = {"shift": histogram.shift, "whole": histogram.whole}
        arrays |= {f"{name}_{which}_bins": histogram.bins, f"{name}_{which}_counts": histogram.counts}
    return about


def _case(about: dict[str, Any], arrays: Any) -> tuple[MeasuredCase, list[Problem]]:
    def histogram(channel: int, which: str) -> Histogram:
        said, name = about["histograms"][channel][which], f"channel_{channel}_{which}"
        return Histogram(said["shift"], arrays[f"{name}_bins"], arrays[f"{name}_counts"], said["whole"])

    found: list[ForegroundHistograms | None] = []
    for channel, said in enumerate(about["histograms"]):
        if said is None:
            found.append(None)
            continue
        stored = histogram(channel, "stored")
        found.append(ForegroundHistograms(stored, histogram(channel, "hu") if "hu" in said else stored))
    combinations = about["combinations"]
    names = None if combinations is None else tuple(tuple(each) for each in combinations)
    measures = CaseMeasures.model_validate(about["measures"])
    return MeasuredCase(measures, tuple(found), names), [Problem(**notice) for notice in about["notices"]]
