"""The cases that a fold held out, predicted from the store: WORK needs DATASET no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from autoseg.data.case import LabelMap
from autoseg.data.writing import on_stored_grid, write_labels
from autoseg.files import Work
from autoseg.inference.loading import FoldName, load_folder
from autoseg.inference.predictor import Predictor, make_predictor
from autoseg.inference.room import require_memory
from autoseg.network import build
from autoseg.planning.schema import Plan
from autoseg.preprocessing.store import open_case


def predict_held_out(
    work: Work, configuration: str, fold: FoldName, cases: Sequence[str], *, device: str, on_case: Callable[[str], None]
) -> dict[str, Path]:
    """Predict cases of one configuration's store with one fold alone, into the fold's folder: case -> file.

    A cascade's second stage takes what the store holds of the first; see `autoseg.preprocessing.previous_stage`. The plan's code is run
    without a question: whoever trained the fold was asked.

    Raises:
        ModelError: the fold is not trained, or its files are damaged.
    """
    loaded = load_folder(work.path, folds=[fold], configurations=[configuration], trust_code=True)
    predictor = make_predictor(loaded.plan, configuration, [each.network for each in loaded.folds], device=device)
    return predict_stored(predictor, work.store(configuration), cases, work.fold(configuration, fold).held_out, on_case)


def predict_stored(
    predictor: Predictor, store: Path, cases: Sequence[str], folder: Path, on_case: Callable[[str], None]
) -> dict[str, Path]:
    """Write the label map of each stored case, on its own grid, into `folder`: case -> file.

    Raises:
        ResourceError: memory does not suffice for a case.
    """
    written = {}
    for case in cases:
        stored = open_case(store, case)
        previous = stored.previous() if predictor.configuration.previous_stage else None
        require_memory(predictor, (stored.channels, *stored.shape), stored.origin, case=case)
        found = predictor.predict(stored.image(), stored.spacing, stored.origin, previous=previous)
        written[case] = folder / f"{case}.nii.gz"
        write_labels(
            written[case], LabelMap(on_stored_grid(found.voxels, stored.origin.orientation, stored.origin.stored), stored.origin.stored)
        )
        on_case(case)
    return written


def expected_seconds(plan: Plan, configuration: str, store: Path, cases: Sequence[str], *, device: str) -> float:
    """What `predict_stored` and scoring will take on this machine: a tile is timed with an untrained network.

    A third is added for upsampling and scoring, and a quarter of a second a case for files.
    """
    if not cases:
        return 0.0
    channels = plan.input_channels(configuration)
    network = build(plan.configurations[configuration].inside().network, channels, plan.dataset.label_set().outputs)
    shapes = [open_case(store, case).shape for case in cases]
    return 1.33 * make_predictor(plan, configuration, [network], device=device).seconds(channels, shapes) + 0.25 * len(cases)
