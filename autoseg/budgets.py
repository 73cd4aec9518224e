"""How much of a fold's time its held-out cases will take, so that training leaves just that much (DESIGN.md 6.6).

Twice: before training by timing a tile, and late in training by predicting and scoring one training case whole with the network as it is
then. No held-out case is looked at.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from autoseg.errors import ResourceError
from autoseg.evaluation.folders import Pair, fold_scores
from autoseg.files import Work
from autoseg.inference.held_out import predict_stored
from autoseg.inference.predictor import Predictor, make_predictor
from autoseg.inference.sliding_window import tile_count
from autoseg.planning.folds import Fold
from autoseg.planning.schema import Plan
from autoseg.preprocessing.store import StoredCase, open_case
from autoseg.progress import clock

LEAST_SHARE = 0.02  # of the time; where held-out cases take less, being wrong about them matters little
LOADING = 0.5  # seconds for weights and the last messages
SETTLED = 2.0  # seconds; a case that takes less is done again, since the first call finds kernels and memory


def training_deadline(until: float, held_out: float, count: int) -> float:
    """When training must end so that `count` held-out cases, which take `held_out` seconds, are scored at `until`.

    Raises:
        ResourceError: that leaves less than a fifth of the time for training.
    """
    there = until - time.monotonic()
    if there - held_out < 0.2 * there or there <= 0:
        raise ResourceError(
            f"{clock(max(there, 0))} are left for it, and predicting its {count} held-out cases alone takes about {clock(held_out)}",
            remedy="Give a longer --budget, or fewer folds (--fold)",
        )
    return until - held_out


def revision(
    work: Work, plan: Plan, configuration: str, fold: Fold, *, until: float, expected: float, device: str
) -> Callable[[nn.Module], float] | None:
    """What training calls late with its network, to learn its deadline anew; None if the held-out cases take hardly any of the time.

    Args:
        until: time.monotonic() at which the last score must be there.
        expected: seconds that the held-out cases are thought to take.
    """
    if not fold.held_out or expected < LEAST_SHARE * (until - time.monotonic()):
        return None
    return lambda network: until - held_out_seconds(work, plan, configuration, fold, network, device=device)


def held_out_seconds(work: Work, plan: Plan, configuration: str, fold: Fold, network: nn.Module, *, device: str) -> float:
    """What predicting, writing and scoring a fold's held-out cases will take, from doing so with one training case like them.

    Prediction goes by tiles, the rest by voxels of the original image.
    """
    store, part = work.store(configuration), plan.configurations[configuration].inside()
    cases, patch = (*fold.train, *fold.held_out), tuple(part.patch_size)
    tiles = {case: tile_count(open_case(store, case).shape, patch, plan.prediction) for case in cases}
    wanted = sorted(tiles[case] for case in fold.held_out)[len(fold.held_out) // 2]
    sample = min(fold.train, key=lambda case: abs(tiles[case] - wanted))
    predictor = make_predictor(plan, configuration, [copy.deepcopy(network)], device=device)
    predicting, scoring = _one_case(work, plan, configuration, predictor, sample)
    if predicting + scoring < SETTLED:
        predicting, scoring = _one_case(work, plan, configuration, predictor, sample)
    voxels = _voxels(store, sample)
    each = (predicting * tiles[case] / tiles[sample] + scoring * _voxels(store, case) / voxels for case in fold.held_out)
    return sum(each) + LOADING


def _one_case(work: Work, plan: Plan, configuration: str, predictor: Predictor, case: str) -> tuple[float, float]:
    """Seconds to predict and write a case, and to score it."""
    with tempfile.TemporaryDirectory(prefix="autoseg-") as folder:
        began = time.monotonic()
        written = predict_stored(predictor, work.store(configuration), [case], Path(folder), lambda _: None)[case]
        predicted = time.monotonic()
        labels, groups = plan.dataset.label_set(), plan.dataset.groups_of_labels
        pair = Pair(case, written, work.reference(case))
        fold_scores("timed", [pair], labels=labels, groups=groups, metrics=plan.evaluation.metrics, workers=0)
        return predicted - began, time.monotonic() - predicted


def _voxels(store: Path, case: str) -> int:
    stored: StoredCase = open_case(store, case)
    z, y, x = stored.origin.stored.shape
    return z * y * x
