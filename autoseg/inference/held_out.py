"""The cases that a fold held out, predicted from the store: WORK needs DATASET no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from autoseg.data.case import LabelMap
from autoseg.data.writing import on_stored_grid, write_labels
from autoseg.inference.predictor import Predictor, make_predictor
from autoseg.network import build
from autoseg.planning.schema import Plan
from autoseg.preprocessing.store import open_case


def predict_stored(
    predictor: Predictor, store: Path, cases: Sequence[str], folder: Path, on_case: Callable[[str], None]
) -> dict[str, Path]:
    """Write the label map of each stored case, on its own grid, into `folder`: case -> file."""
    written = {}
    for case in cases:
        stored = open_case(store, case)
        found = predictor.predict(stored.image(), stored.spacing, stored.origin)
        written[case] = folder / f"{case}.nii.gz"
        write_labels(written[case], LabelMap(on_stored_grid(found.voxels, stored.origin.orientation), stored.origin.stored))
        on_case(case)
    return written


def expected_seconds(plan: Plan, configuration: str, store: Path, cases: Sequence[str], *, device: str) -> float:
    """What `predict_stored` and scoring will take on this machine: a tile is timed with an untrained network.

    A third is added for upsampling and scoring, and a quarter of a second a case for files.
    """
    if not cases:
        return 0.0
    channels = len(plan.dataset.channels)
    network = build(plan.configurations[configuration].inside().network, channels, plan.dataset.label_set().outputs)
    shapes = [open_case(store, case).shape for case in cases]
    return 1.33 * make_predictor(plan, configuration, [network], device=device).seconds(channels, shapes) + 0.25 * len(cases)
