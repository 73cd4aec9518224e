"""A trained model: the plan and the weights of one or more folds, applied to arrays and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoseg.data.case import Case, LabelMap
from autoseg.data.choices import Choices
from autoseg.data.key import Key, read_key
from autoseg.data.labels import LabelSet
from autoseg.data.reading import case_of_array
from autoseg.data.writing import on_stored_grid
from autoseg.errors import ChannelError, GridError, IntensityError, ModelError, Problem
from autoseg.files import Work
from autoseg.fingerprint.kinds import kind_for_case
from autoseg.geometry import Grid
from autoseg.inference.case_files import Elsewhere, ModelSource, predict_case_files
from autoseg.inference.first_stage import first_stage_change
from autoseg.inference.loading import FoldName, load_folder
from autoseg.inference.postprocessing import apply_postprocessing
from autoseg.inference.predictor import Predictor, Progress, make_predictor
from autoseg.inference.results import CaseResult, Prediction
from autoseg.inference.room import require_memory
from autoseg.network.device import resolve_device
from autoseg.planning.keeping import disagreement
from autoseg.planning.schema import Plan
from autoseg.preprocessing.prepare import prepare_case
from autoseg.preprocessing.previous_stage import on_prepared_grid


@dataclass(frozen=True)
class Model:
    """A plan and the networks of one or more folds, ready on one device; `load_model` makes it.

    trained_on: fold -> content keys of the images that it was trained on, in any stage.
    notices: what was left out on loading, in words.
    first_stage: of a cascade; its result is an input of this one's networks.
    choices: how the files that it learnt from were read, and so others are.
    key: the numbers that cases have in WORK, if it learnt from a DICOM export.
    source: what `load_model` was told, by which another process loads it too.
    """

    plan: Plan
    configuration: str
    predictor: Predictor
    trained_on: Mapping[FoldName, frozenset[str]]
    notices: tuple[str, ...]
    first_stage: Model | None = None
    choices: Choices = field(default_factory=Choices)
    key: Key | None = field(default=None, repr=False)
    source: ModelSource | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The configurations that run one after the other."""
        return self.plan.stages(self.configuration)

    @property
    def folds(self) -> tuple[FoldName, ...]:
        """The folds whose networks are averaged."""
        return tuple(self.trained_on)

    @property
    def labels(self) -> LabelSet:
        """What the values of its label maps mean."""
        return self.predictor.labels

    def predict_array(self, array: np.ndarray, grid: Grid, *, probabilities: bool = False, progress: Progress | None = None) -> Prediction:
        """Segment an image in memory.

        Args:
            array: intensities (channel, z, y, x), or (z, y, x) for a model of one channel.
            grid: where its voxels lie in the patient.
            probabilities: give each output's probabilities too; they are held at the image's size.
            progress: called with the tiles done and the tiles in all, of each stage.

        Raises:
            ChannelError, GridError, IntensityError, ModelError: an image that the model cannot take.
        """
        image = np.asarray(array)
        image = image[None] if image.ndim == 3 else image
        if image.ndim != 4 or image.shape[1:] != tuple(grid.shape):
            raise GridError(
                f"an array of shape {np.shape(array)} does not lie on a grid of {tuple(grid.shape)}",
                remedy="Give (z, y, x) or (channel, z, y, x)",
            )
        if not np.isfinite(image).all() or any(channel.min() == channel.max() for channel in image):
            raise IntensityError("the image holds NaN or infinite values, or a channel is constant", remedy="Mend the image")
        case = case_of_array("array", image, grid, orientation=self.plan.dataset.orientation)
        return self.predict_case(case, probabilities=probabilities, progress=progress)

    def predict_case(self, case: Case, *, probabilities: bool = False, progress: Progress | None = None) -> Prediction:
        """Segment a case as `autoseg.data.reading.read_case` gives it.

        Raises:
            ChannelError, IntensityError, ModelError: a case that the model cannot take.
            ResourceError: memory does not suffice for it.
        """
        self._refuse_misfit(case)
        kinds, warnings = self._kinds(case)
        label_map, volume = self._segment(case, kinds, probabilities, progress)
        volume = None if volume is None else on_stored_grid(volume, case.orientation, case.stored)
        voxels = apply_postprocessing(label_map.voxels, self.plan.postprocessing, self.labels)
        stored = LabelMap(on_stored_grid(voxels, case.orientation, case.stored), case.stored)
        seen = tuple(fold for fold, keys in self.trained_on.items() if case.content_key in keys)
        if seen:
            warnings.append(
                _warning(
                    case.name,
                    "TrainedOn",
                    f"the model was trained on this image (fold {', '.join(map(str, seen))})",
                    "Its score would flatter the model: leave it out of any evaluation",
                )
            )
        return Prediction(stored, volume, case.content_key, seen, (*case.notices, *warnings))

    def _segment(
        self, case: Case, kinds: Sequence[str], probabilities: bool, progress: Progress | None
    ) -> tuple[LabelMap, np.ndarray | None]:
        """The label map and, if asked for, the probabilities, both on the oriented grid; the first stage of a cascade goes before."""
        part = self.plan.configurations[self.configuration]
        found = None if self.first_stage is None else self.first_stage._segment(case, kinds, False, progress)[0]
        prepared = prepare_case(case, part, self.plan.intensity, self.plan.dataset.channels, kinds, None)
        previous = None
        if found is not None:
            previous = on_prepared_grid(self.labels.encode(found.voxels), prepared.origin, prepared.image.shape[1:])
        require_memory(self.predictor, prepared.image.shape, prepared.origin, case=case.name, probabilities=probabilities)
        arguments = (prepared.image, prepared.spacing, prepared.origin)
        if probabilities:
            return self.predictor.predict_probabilities(*arguments, previous=previous, progress=progress)
        return self.predictor.predict(*arguments, previous=previous, progress=progress), None

    def predict_files(
        self,
        inputs: Path | str | Sequence[Path | str],
        output: Path | str,
        *,
        probabilities: bool = False,
        workers: int | None = None,
        cluster: str | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        on_case: Callable[[CaseResult], None] | None = None,
    ) -> list[CaseResult]:
        """Segment images and write their label maps; a case that fails does not stop the others.

        Args:
            inputs: an image, a folder of images or cases, a DICOM series, or several of these.
            output: the folder for `CASE` + the image's ending (`.nii.gz` where label maps cannot have it), each written whole.
            probabilities: write `CASE_probabilities.nii.gz` too, a float32 vector image with one component an output.
            workers: processes, each with the model of its own; None, 0 and 1: this one, in which a prediction uses all cores.
            cluster: address of a Dask scheduler, whose workers must see the model, `inputs` and `output` at the same paths.
            progress: called with the case, its tiles done and its tiles in all; in this process only.
            on_case: called with each result as it comes.

        Raises:
            DatasetError: no image was found.
            ModelError: a model that was not loaded from a folder, for other processes.
            ResourceError: the cluster cannot be used.
        """
        paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
        elsewhere = Elsewhere(workers or 0, cluster)
        results = []
        for result in predict_case_files(self, paths, Path(output), probabilities=probabilities, elsewhere=elsewhere, progress=progress):
            results.append(result)
            if on_case:
                on_case(result)
        return results

    def _refuse_misfit(self, case: Case) -> None:
        channels, expected = case.image.voxels.shape[0], self.plan.dataset.channels
        if channels != len(expected):
            raise ChannelError(
                f"it has {channels} channel(s), the model takes {len(expected)}: {', '.join(expected)}",
                case=case.name,
                remedy="Give the channels that the model was trained with, in that order",
            )
        if case.stored.planar and self.plan.configurations[self.configuration].network.dimension == 3:
            raise ModelError(
                "it is a two-dimensional image, the model takes volumes", case=case.name, remedy="Give the volume that the slice is from"
            )

    def _kinds(self, case: Case) -> tuple[list[str], list[Problem]]:
        """The intensity kind of each channel."""
        kinds, warnings = [], []
        for name, voxels in zip(self.plan.dataset.channels, case.image.voxels, strict=True):
            finding = kind_for_case(voxels, channel_name=name, kinds_in_plan=self.plan.intensity[name].keys())
            kinds.append(finding.kind)
            if not finding.sure:
                warnings.append(
                    _warning(
                        case.name,
                        "IntensityKind",
                        f"channel {name} is taken as {finding.kind}: {finding.why}",
                        "Look at the result, and rescale the image to what the model was trained with if it is poor",
                    )
                )
        return kinds, warnings


def load_model(
    path: Path | str,
    *,
    device: str = "auto",
    folds: Sequence[FoldName] | None = None,
    configurations: Sequence[str] | None = None,
    trust_code: bool = False,
) -> Model:
    """Read a trained model.

    Args:
        path: a WORK folder.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        folds: those to average, such as (0, 1) or ("full",), in each stage of a cascade; None: all of the plan's cross-validation that
            are trained, never "full".
        configurations: the one to use; None: the plan's default.
        trust_code: run a network factory that lies outside autoseg.

    Raises:
        ModelError: no model, no such fold or configuration, folds that were trained by different plans, damaged weights, or a
            factory that isn't trusted.
        PlanError: a plan.json that cannot be read.
        ResourceError: the device is not there.
    """
    device = resolve_device(device)
    loaded = load_folder(Path(path), folds=folds, configurations=configurations, trust_code=trust_code)
    predictor = make_predictor(loaded.plan, loaded.configuration, [fold.network for fold in loaded.folds], device=device)
    trained_on = {fold.name: fold.trained_on for fold in loaded.folds}
    key = Work(Path(path)).key
    told = (device, folds and tuple(folds), configurations and tuple(configurations), trust_code)
    source = ModelSource(load_model, Path(path).resolve(), *told)
    about = {"choices": loaded.choices, "key": read_key(key) if key.is_file() else None, "source": source}
    model = Model(loaded.plan, loaded.configuration, predictor, trained_on, loaded.notices, **about)
    return model if len(model.stages) == 1 else _with_first_stage(model, Path(path), device, trust_code)


def _with_first_stage(model: Model, path: Path, device: str, trust_code: bool) -> Model:
    """A cascade's second stage together with the same folds of the first."""
    stage = model.stages[0]
    first = load_model(path, device=device, folds=model.folds, configurations=[stage], trust_code=trust_code)
    if key := disagreement(model.plan, first.plan, stage):
        raise ModelError(
            f"{model.configuration} and {stage} were trained by different plans: {key} differs",
            remedy=f"Train {model.configuration} anew, or restore the folds of {stage} that it was trained on",
        )
    changes = {fold: first_stage_change(Work(path), model.configuration, fold) for fold in model.folds}
    stale = [f"{model.configuration} fold {fold}: {change}" for fold, change in changes.items() if change]
    trained_on = {fold: keys | first.trained_on[fold] for fold, keys in model.trained_on.items()}
    return replace(model, trained_on=trained_on, notices=(*model.notices, *first.notices, *stale), first_stage=first)


def _warning(case: str, kind: str, message: str, remedy: str) -> Problem:
    return Problem("warning", kind, message, remedy, case)
