"""The demo: the three commands on made chest phantoms, as a user would run them, with pictures of what came out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg import pipeline
from autoseg.data.case import Case, CaseFiles
from autoseg.data.labels import LabelSet
from autoseg.data.reading import read_case, read_labels
from autoseg.demo.baseline import threshold_baseline
from autoseg.demo.phantoms import LABELS, make_phantoms
from autoseg.evaluation.folders import Evaluation, evaluation_text
from autoseg.evaluation.tables import crossval_text
from autoseg.fingerprint.kinds import intensity_kind
from autoseg.metrics import overlap
from autoseg.progress import clock
from autoseg.report.pictures import draw_montage, slices_of

log = logging.getLogger("autoseg")

PHANTOMS, FRESH = 20, 4
TRAINING_SECONDS = 215.0  # of the five minutes that the demo may take
SETTINGS = {  # a run of some 150 steps a fold: a small, plain network, a high rate, no augmentation, the small class weighted up
    "spacing": [5.0, 4.5, 4.5],
    "patch_size": [16, 48, 48],
    "network.features": [12, 24, 48, 96],
    "training.steps_per_epoch": 20,
    "training.validation.batches": 1,
    "training.optimiser.lr": 0.008,
    "training.oversampling.foreground": 1.0,
    "training.deep_supervision": False,
    "training.augmentation.transforms": [],
    "training.augmentation.mirror_axes": [],
    "training.loss.tversky.class_weight": [1, 1, 1, 2],
    "training.loss.cross_entropy.weight": 0.3,
    "prediction.overlap": 0.25,
}


@dataclass(frozen=True)
class Demo:
    """What the demo showed.

    evaluation: of the fresh phantoms, by the ensemble.
    baseline: the threshold rule's mean infection Dice on the same phantoms.
    text: all that there is to say.
    """

    evaluation: Evaluation
    baseline: float
    pictures: tuple[Path, ...]
    seconds: float
    text: str


def run_demo(folder: Path, *, seed: int = 0, quiet: bool = False) -> Demo:
    """Make phantoms, plan, train five folds, predict fresh phantoms with their ensemble, score and draw.

    Args:
        folder: for everything that is made; run again, it goes on where it was.
        seed: of phantoms and training.
    """
    began = time.monotonic()
    log.info("Making %d chest phantoms to learn from and %d fresh ones.", PHANTOMS, FRESH)
    make_phantoms(folder / "dataset", PHANTOMS, seed)
    fresh = make_phantoms(folder / "fresh", FRESH, seed, first=PHANTOMS)
    work, predictions = folder / "work", folder / "predictions"

    pipeline.plan_and_preprocess(folder / "dataset", work, settings=SETTINGS, seed=seed, quiet=quiet)
    trained = pipeline.train(work, budget_seconds=TRAINING_SECONDS, quiet=quiet)
    pipeline.predict(work, folder / "fresh" / "imagesTr", predictions, quiet=quiet)
    evaluation = pipeline.evaluate(predictions, folder / "fresh" / "labelsTr", labels=folder / "fresh")

    baseline = float(np.mean([_baseline_dice(folder / "fresh", name) for name in fresh]))
    pictures = (_montage(folder, fresh), *sorted((work / "models" / "3d_fullres").glob("*.png")))
    seconds = time.monotonic() - began
    parts = [
        *(crossval_text(result) for result in trained.crossvals.values()),
        f"Fresh phantoms, by the ensemble of the five folds.\n\n{evaluation_text(evaluation)}",
        f"Infection Dice of a threshold and connected components on the same phantoms: {baseline:.3f}; "
        f"of the ensemble: {evaluation.classes['infection'].metrics['dice'].mean:.3f}",
        "Pictures:\n" + "\n".join(f"  {path}" for path in pictures),
        f"The plan in words: autoseg info {work}\nIt took {clock(seconds)}. Next: your own data, see docs/tutorial.md",
    ]
    return Demo(evaluation, baseline, pictures, seconds, "\n\n".join(parts))


def _fresh_case(folder: Path, name: str) -> Case:
    files = CaseFiles(name, (folder / "imagesTr" / f"{name}_0000.nii.gz",), folder / "labelsTr" / f"{name}.nii.gz")
    return read_case(files, 1, orientation="lps")


def _baseline_dice(folder: Path, name: str) -> float:
    case = _fresh_case(folder, name)
    assert case.labels is not None  # every phantom has a label map
    voxels, infection = case.image.voxels[0], case.labels.voxels == LABELS["infection"]
    found = threshold_baseline(voxels, intensity_kind(voxels, channel_name="CT").kind, case.image.grid.spacing)
    return overlap(found.astype(np.uint8), infection.astype(np.uint8), {"infection": (1,)})["infection"].dice


def _montage(folder: Path, fresh: list[str]) -> Path:
    """One slice of each fresh phantom: CT, truth, prediction, in the paper's colours."""
    labels, columns = LabelSet.declared(LABELS), []
    for name in fresh:
        case = _fresh_case(folder / "fresh", name)
        prediction = read_labels(folder / "predictions" / f"{name}.nii.gz", case=name)
        kind = intensity_kind(case.image.voxels[0], channel_name="CT").kind
        columns += slices_of(name, case.image, case.labels, prediction, labels, kind=kind)
    path = folder / "fresh_phantoms.png"
    draw_montage(path, columns, labels, title="Fresh phantoms: CT, truth, prediction of the ensemble")
    return path
