"""Images in files to label maps in files: each case by itself, in this process, in others, or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from autoseg.data.case import Case, CaseFiles, Volume
from autoseg.data.choices import Choices
from autoseg.data.folders.layouts import find_inputs
from autoseg.data.key import KEY_NAME, Key, read_key, write_key
from autoseg.data.names import PICTURE_ENDINGS, TIFF_ENDINGS, split_ending
from autoseg.data.reading import read_case
from autoseg.data.writing import LOSSY_ENDINGS, write_labels, write_volume
from autoseg.errors import AutosegError, ModelError, Problem, ResourceError
from autoseg.inference.loading import FoldName
from autoseg.inference.results import CaseResult, Prediction
from autoseg.network.device import is_out_of_memory
from autoseg.parallel import map_cases, require_shared
from autoseg.planning.schema import Plan

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Endings of volumes that label maps are written with too."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ModelSource:
    """How a model was loaded, so that another process loads it too: by `loader`, a function's name to that process, as it was told."""

    loader: Callable[..., CaseModel]
    path: Path
    device: str
    folds: tuple[FoldName, ...] | None
    configurations: tuple[str, ...] | None
    trust_code: bool


class CaseModel(Protocol):
    """What a model must have so that cases in files can be predicted with it; see `autoseg.inference.model.Model`."""

    plan: Plan
    choices: Choices
    key: Key | None
    source: ModelSource | None

    def predict_case(self, case: Case, *, probabilities: bool, progress: Callable[[int, int], None] | None) -> Prediction: ...


@dataclass(frozen=True)
class Elsewhere:
    """Where cases are predicted. workers: processes; 0 and 1: this one. cluster: address of a Dask scheduler, used instead."""

    workers: int
    cluster: str | None

    @property
    def is_here(self) -> bool:
        return self.workers <= 1 and self.cluster is None


def predict_case_files(
    model: CaseModel, inputs: Sequence[Path], output: Path, *, probabilities: bool, elsewhere: Elsewhere, progress: Progress | None
) -> Iterator[CaseResult]:
    """A result for each case of `inputs`, as they finish; see `Model.predict_files`."""
    if not elsewhere.is_here:
        inputs, output = [path.resolve() for path in inputs], output.resolve()
    wanted: list[CaseFiles] = []
    for path in inputs:
        found, problems = _found(model, path, output)
        for problem in problems:
            yield CaseResult(problem.case or problem.file or path.name, None, problem, 0.0)
        for files in found:
            if files.case in {other.case for other in wanted}:
                again = ModelError("another image of that name is predicted already", case=files.case, remedy="Rename one of them")
                yield CaseResult(files.case, None, Problem.of(again), 0.0)
            else:
                wanted.append(files)
    function = partial(_predict_here, model, output, probabilities, progress)
    if not elsewhere.is_here:
        if model.source is None:
            raise ModelError("it was not loaded from a folder, so other processes cannot load it", remedy="Use load_model, or no workers")
        if elsewhere.cluster:
            output.mkdir(parents=True, exist_ok=True)
            require_shared(elsewhere.cluster, [model.source.path, *inputs, output])
        function = partial(_predict_there, model.source, output, probabilities)
    for outcome in map_cases(function, wanted, workers=elsewhere.workers, name=lambda files: files.case, cluster=elsewhere.cluster):
        yield outcome.value if outcome.error is None else CaseResult(outcome.item.case, None, Problem.of(outcome.error), 0.0)


def _found(model: CaseModel, path: Path, output: Path) -> tuple[list[CaseFiles], list[Problem]]:
    """The cases of one input, and what keeps others from being cases; numbers given to cases of an export are written to OUTPUT."""
    channels, numbers = len(model.plan.dataset.channels), _numbers(model, output)
    found, problems, key = find_inputs(path, channels, choices=model.choices, key=numbers)
    _keep_new_numbers(model, key, [files.case for files in found], output)
    return found, [problem for problem in problems if problem.severity == "error"]


def _numbers(model: CaseModel, output: Path) -> Key | None:
    """The numbers that cases of a DICOM export have in WORK, and those that OUTPUT has given to others; None if there are none."""
    known, others = model.key, read_key(output / KEY_NAME)
    if known is None:
        return others if others.cases else None
    return Key({**known.patients, **others.patients}, {**known.cases, **others.cases})


def _keep_new_numbers(model: CaseModel, key: Key, cases: Sequence[str], output: Path) -> None:
    """Write whom the numbers stand for that WORK doesn't know."""
    known = model.key.cases if model.key else {}
    fresh = key.of_cases([case for case in {*cases, *read_key(output / KEY_NAME).cases} if case not in known])
    if fresh.cases:
        write_key(output / KEY_NAME, fresh)


def _predict_there(source: ModelSource, output: Path, probabilities: bool, files: CaseFiles) -> CaseResult:
    return _predict_here(_model_of(source), output, probabilities, None, files)


@lru_cache(maxsize=1)
def _model_of(source: ModelSource) -> CaseModel:
    """The model, loaded once in each process."""
    told = {"device": source.device, "folds": source.folds, "configurations": source.configurations, "trust_code": source.trust_code}
    return source.loader(source.path, **told)


def _predict_here(model: CaseModel, output: Path, probabilities: bool, progress: Progress | None, files: CaseFiles) -> CaseResult:
    began = time.monotonic()
    told = None if progress is None else lambda done, count: progress(files.case, done, count)
    try:
        target, prediction = _one_case(model, files, output, probabilities, told)
    except AutosegError as error:
        return CaseResult(files.case, None, Problem.of(error.in_case(files.case)), time.monotonic() - began)
    seconds = time.monotonic() - began
    return CaseResult(files.case, target, None, seconds, prediction.content_key, prediction.trained_on, prediction.warnings)


def _one_case(
    model: CaseModel, files: CaseFiles, output: Path, probabilities: bool, progress: Callable[[int, int], None] | None
) -> tuple[Path, Prediction]:
    about = model.plan.dataset
    case = read_case(files, len(about.channels), orientation=about.orientation, regrid=about.regrid)
    target = output / f"{files.case}{output_ending(files, planar=case.stored.planar)}"
    if target.resolve() in [image.resolve() for image in files.images]:
        raise ModelError("its label map would overwrite the image", case=files.case, file=target, remedy="Give another OUTPUT folder")
    try:
        prediction = model.predict_case(case, probabilities=probabilities, progress=progress)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"memory did not suffice ({str(error).splitlines()[0] if str(error) else 'MemoryError'})",
            case=files.case,
            remedy="Use --device cpu or a machine with more memory, without --probabilities",
        ) from error
    if prediction.probabilities is not None:
        write_volume(output / f"{files.case}_probabilities.nii.gz", Volume(prediction.probabilities, prediction.labels.grid))
    write_labels(target, prediction.labels)
    return target, prediction


def output_ending(files: CaseFiles, *, planar: bool) -> str:
    """The ending of a case's label map: its image's own where label maps can have it, else .nii.gz (.png for other pictures)."""
    image = files.images[0]
    ending = "" if image.is_dir() else split_ending(image.name)[1]
    if ending in VOLUME_ENDINGS:
        return ending
    if ending in TIFF_ENDINGS or (ending in PICTURE_ENDINGS and planar):
        return ".png" if ending in LOSSY_ENDINGS else ending
    return ".nii.gz"
