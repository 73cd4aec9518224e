"""Pictures of a cross-validation: the folds' losses, the cases' scores, and what was found in the best, middle and worst case."""

from __future__ import annotations

import json
import math
from pathlib import Path

from autoseg.data.case import LabelMap, Volume
from autoseg.data.labels import LabelSet
from autoseg.data.reading import read_labels
from autoseg.data.shearing import straight_labels
from autoseg.evaluation.crossval import CrossValidation
from autoseg.evaluation.scores import CaseScores
from autoseg.evaluation.summary import mean_of_defined
from autoseg.files import Work
from autoseg.geometry import box_slices
from autoseg.preprocessing.resampling import resample_labels
from autoseg.preprocessing.store import StoredCase, open_case
from autoseg.report.curves import draw_boxes, draw_loss_curves
from autoseg.report.pictures import draw_montage, slices_of


def draw_cross_validation(work: Work, configuration: str, result: CrossValidation, labels: LabelSet) -> list[Path]:
    """Write loss.png, dice.png and held_out.png into the configuration's folder of models; those that were drawn."""
    folder = work.models(configuration)
    drawn = []
    histories = {fold.fold: _rows(work.fold(configuration, fold.fold).history) for fold in result.folds}
    if draw_loss_curves(folder / "loss.png", histories):
        drawn.append(folder / "loss.png")
    values = {
        name: [scores.values.get("dice", math.nan) for case in result.cases if (scores := case.classes[name]).annotated]
        for name in result.classes
    }
    if draw_boxes(folder / "dice.png", values, title=f"Dice of {len(result.cases)} held-out cases"):
        drawn.append(folder / "dice.png")
    columns = []
    for what, case in best_middle_worst(result):
        columns += _columns(work, configuration, result, case, f"{what}: {case.case}", labels)
    draw_montage(folder / "held_out.png", columns, labels, title="Held-out cases by mean Dice: image, truth, prediction")
    return [*drawn, folder / "held_out.png"]


def best_middle_worst(result: CrossValidation) -> list[tuple[str, CaseScores]]:
    """Up to three cases by their mean Dice over the classes that they show."""

    def dice(case: CaseScores) -> float:
        shown = [scores.values["dice"] for name, scores in case.classes.items() if name not in result.groups and scores.present]
        return mean_of_defined(shown)

    ranked = sorted((case for case in result.cases if not math.isnan(dice(case))), key=dice, reverse=True) or list(result.cases)
    places = {"best": 0, "middle": len(ranked) // 2, "worst": len(ranked) - 1}
    chosen = {place: what for what, place in reversed(places.items())}  # one case is not shown twice
    return [(f"{chosen[place]} ({dice(ranked[place]):.2f})", ranked[place]) for place in sorted(chosen)]


def _rows(history: Path) -> list[dict]:
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()] if history.is_file() else []


def _columns(work: Work, configuration: str, result: CrossValidation, case: CaseScores, title: str, labels: LabelSet) -> list:
    """One slice of a held-out case, on the grid of its prepared image: WORK holds no other."""
    fold = next(fold.fold for fold in result.folds if case in fold.cases)
    stored = open_case(work.store(configuration), case.case)
    image = _prepared_image(stored)
    maps = (
        read_labels(work.reference(case.case), case=case.case),
        read_labels(work.fold(configuration, fold).held_out / work.reference(case.case).name, case=case.case),
    )
    truth, prediction = (_on_prepared_grid(label_map, stored, image) for label_map in maps)
    return slices_of(title, image, truth, prediction, labels, kind="arbitrary")


def _prepared_image(stored: StoredCase) -> Volume:
    """The prepared image in the order as read, on its grid."""
    order = stored.origin.transpose or (0, 1, 2)
    back = [order.index(axis) for axis in range(3)]
    voxels = stored.image().transpose(0, *(1 + axis for axis in back))
    return Volume(voxels, stored.origin.oriented.cropped(stored.origin.box).resampled(voxels.shape[1:]))


def _on_prepared_grid(label_map: LabelMap, stored: StoredCase, image: Volume) -> LabelMap:
    upright = straight_labels(label_map.voxels, stored.origin.stored) if stored.origin.stored.sheared else label_map.voxels
    oriented = stored.origin.orientation.apply(upright)[box_slices(stored.origin.box)]
    return LabelMap(resample_labels(oriented, image.grid.shape, order=0), image.grid)
