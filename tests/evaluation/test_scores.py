"""Scores of a case and of a fold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from autoseg.data.case import LabelMap
from autoseg.data.labels import LabelSet
from autoseg.errors import GridError, LabelError, PlanError
from autoseg.evaluation.scores import FoldScores, read_scores, score_case, values_present, write_scores
from autoseg.geometry import Grid, Orientation
from autoseg.metrics import METRICS, Overlap

LABELS = LabelSet.declared({"background": 0, "left": 1, "right": 2, "infection": 5, "ignore": 255})
GROUPS = {"lungs": ("left", "right")}


def maps(seed=0, shape=(6, 7, 8)):
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 2, 5, 255], np.uint8)
    truth = values[rng.integers(0, 5, shape)]
    return values[:4][rng.integers(0, 4, shape)], truth


def scored(prediction, truth, grid=None, prediction_grid=None, **changes):
    grid = grid or Grid(truth.shape, (2.0, 1.0, 0.5), (3.0, -4.0, 5.0))
    arguments = {"case": "a", "labels": LABELS, "groups": GROUPS, "metrics": METRICS, **changes}
    return score_case(LabelMap(prediction, prediction_grid or grid), LabelMap(truth, grid), **arguments)


def test_classes_and_groups_are_scored_one_against_the_rest_without_ignored_voxels():
    prediction, truth = maps()
    found = scored(prediction, truth, content_key="key")
    counted = truth != 255
    for name, values in {"left": [1], "right": [2], "infection": [5], "lungs": [1, 2]}.items():
        t, p = np.isin(truth[counted], values), np.isin(prediction[counted], values)
        scores = found.classes[name]
        assert scores.values["dice"] == pytest.approx(f1_score(t, p)) and scores.values["sensitivity"] == pytest.approx(recall_score(t, p))
        assert scores.truth_ml == pytest.approx(t.sum() * 0.001) and scores.prediction_ml == pytest.approx(p.sum() * 0.001)
        assert scores.false_positive_ml == pytest.approx((p & ~t).sum() * 0.001)
    assert list(found.classes) == ["left", "right", "infection", "lungs"] and found.content_key == "key"


def test_one_lattice_in_two_axis_orders_is_compared_point_by_point():
    prediction, truth = maps()
    grid = Grid(truth.shape, (2.0, 1.0, 0.5), (3.0, -4.0, 5.0))
    turned = Orientation((2, 0, 1), (True, False, True))
    again = scored(turned.apply(prediction), truth, grid, grid.oriented(turned))
    assert again == scored(prediction, truth, grid)


def test_another_grid_is_refused():
    prediction, truth = maps()
    with pytest.raises(GridError, match="grid"):
        scored(prediction, truth, prediction_grid=Grid(truth.shape, (2.0, 1.0, 0.6)))
    with pytest.raises(GridError, match="shape"):
        scored(prediction[1:], truth, prediction_grid=Grid((5, 7, 8), (2.0, 1.0, 0.5)))


def test_undeclared_values_and_unknown_names_are_refused():
    prediction, truth = maps()
    with pytest.raises(LabelError, match=r"the prediction holds \[9\]"):
        scored(np.where(prediction == 5, 9, prediction).astype(np.uint8), truth)
    with pytest.raises(PlanError, match="lobes"):
        scored(prediction, truth, groups={"lungs": ("lobes",)})
    with pytest.raises(PlanError, match="kappa"):
        scored(prediction, truth, metrics=("kappa",))


def test_regions_may_overlap():
    regions = LabelSet.declared({"background": 0, "whole": [1, 2], "core": [2]}, region_order=[1, 2])
    truth, prediction = np.array([[[0, 1, 2, 2]]], np.uint8), np.array([[[1, 1, 2, 1]]], np.uint8)
    found = scored(prediction, truth, labels=regions, groups={})
    assert found.classes["whole"].values["dice"] == pytest.approx(6 / 7) and found.classes["core"].values["dice"] == pytest.approx(2 / 3)


def test_voxels_to_ignore_are_out_of_the_counts_of_regions_too():
    regions = LabelSet.declared({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, region_order=[1, 2])
    truth, prediction = np.array([[[0, 1, 2, 2, 3, 3]]], np.uint8), np.array([[[1, 1, 2, 1, 2, 0]]], np.uint8)
    found = scored(prediction, truth, labels=regions, groups={})
    assert vars(found.classes["whole"].counts) == {"TP": 3, "FP": 1, "FN": 0, "TN": 0}
    assert vars(found.classes["core"].counts) == {"TP": 1, "FP": 0, "FN": 1, "TN": 2}


def test_a_class_that_nobody_annotated_in_the_case_is_not_scored(tmp_path):
    prediction, truth = maps()
    truth[truth == 2] = 0
    found, whole = scored(prediction, truth, annotated=("left", "infection")), scored(prediction, truth)
    assert [name for name, scores in found.classes.items() if not scores.annotated] == [
        "right",
        "lungs",
    ]  # a group needs all of its members
    assert found.classes["left"] == whole.classes["left"]
    right = found.classes["right"]
    assert not right.present and not right.absent and right.counts == Overlap(0, 0, 0, 0) and math.isnan(right.values["dice"])
    write_scores(tmp_path / "scores.json", FoldScores(0, GROUPS, (found, whole)))
    stored = json.loads((tmp_path / "scores.json").read_text())["cases"]["a"]["classes"]
    assert "annotated" not in stored["left"]
    write_scores(tmp_path / "scores.json", FoldScores(0, GROUPS, (found,)))
    back = read_scores(tmp_path / "scores.json").cases[0]
    assert back.classes["right"].annotated is False and math.isnan(back.classes["right"].values["dice"])
    assert back.classes["left"].counts == found.classes["left"].counts and list(back.classes) == list(found.classes)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_values_present(kind):
    array = np.zeros((3, 4, 5), kind)
    array[1, 2, 3], array[0, 0, 0] = 7, 255
    assert values_present(array).tolist() == [0, 7, 255]


def test_scores_survive_the_file_and_undefined_is_null(tmp_path):
    empty = np.zeros((2, 3, 4), np.uint8)
    fold = FoldScores(3, GROUPS, (scored(*maps(1)), scored(empty, empty, case="empty", content_key="k")))
    write_scores(tmp_path / "scores.json", fold)
    back = read_scores(tmp_path / "scores.json")
    assert back.fold == 3 and back.groups == GROUPS and back.classes == ("left", "right", "infection")
    for one, other in zip(fold.cases, back.cases, strict=True):
        assert one.case == other.case and one.content_key == other.content_key and list(one.classes) == list(other.classes)
        for name, scores in one.classes.items():
            assert other.classes[name].counts == scores.counts and other.classes[name].values == pytest.approx(scores.values, nan_ok=True)
    stored = json.loads((tmp_path / "scores.json").read_text())["cases"]["empty"]["classes"]["infection"]
    assert stored["dice"] is None and stored["specificity"] == 1 and stored["truth_ml"] == 0
    assert math.isnan(back.cases[1].classes["infection"].values["dice"])


def test_a_damaged_scores_file_is_named(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text('{"schema": "autoseg.scores/1", "fold": 0}')
    with pytest.raises(PlanError, match=r"scores\.json"):
        read_scores(path)
