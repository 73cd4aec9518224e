"""The headline, what stands beside it, and the paper's Table 1, by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from autoseg.errors import PlanError
from autoseg.evaluation import cross_validate, crossval_text, write_crossval
from autoseg.evaluation.scores import CaseScores, ClassScores, FoldScores
from autoseg.metrics import METRICS, Overlap
from autoseg.planning.schema import EvaluationPlan


def counts(truth: int, dice: float, total: int = 100_000) -> Overlap:
    """Prediction and truth of the same size that overlap by `dice` (a multiple of 1/truth)."""
    tp = round(truth * dice)
    return Overlap(tp, truth - tp, truth - tp, total - 2 * truth + tp)


def case(name: str, **rows: Overlap) -> CaseScores:
    """A case of voxels of 0.01 ml."""
    return CaseScores(name, None, {c: ClassScores(row, {m: row[m] for m in METRICS}, 0.01) for c, row in rows.items()})


ABSENT = Overlap(0, 0, 0, 1000)
ALARM = Overlap(0, 300, 0, 700)
GROUPS = {"lungs": ("left", "right")}
# median Dice of left, right, infection by fold, from which Table 1 follows
LUNGS = {0: [(0.90, 0.80), (0.92, 0.84), (0.94, 0.88), (0.50, 0.40)], 1: [(0.60, 0.70), (0.70, 0.90)]}


def plan(summary: str = "median") -> EvaluationPlan:
    return EvaluationPlan(metrics=["dice", "sensitivity", "specificity"], tolerance_mm={}, summary=summary, empty_rule="count")


def folds() -> list[FoldScores]:
    infection = {0: [counts(100, 0.5), counts(100, 0.7), ABSENT, ALARM], 1: [counts(100, 0.2), ABSENT]}
    result = []
    for fold, lungs in LUNGS.items():
        cases = []
        for i, (left, right) in enumerate(lungs):
            both = counts(200, (left + right) / 2)
            cases.append(case(f"f{fold}c{i}", left=counts(100, left), right=counts(100, right), infection=infection[fold][i], lungs=both))
        result.append(FoldScores(fold, GROUPS, tuple(cases)))
    return result


def test_the_headline_is_the_mean_over_cases_that_show_the_class():
    found = cross_validate(folds(), plan()).classes["infection"]
    assert (found.present, found.absent, found.alarms) == (3, 3, 1)
    dice = found.metrics["dice"]
    assert dice.mean == pytest.approx(np.mean([0.5, 0.7, 0.2])) and dice.median == 0.5 and (dice.defined, dice.undefined) == (3, 0)
    assert (dice.lower, dice.upper) == pytest.approx((0.35, 0.6)) and dice.std == pytest.approx(np.std([0.5, 0.7, 0.2], ddof=1))
    # 300 voxels of 0.01 ml in one of three cases that do not show it
    assert found.false_positive_ml_max == pytest.approx(3.0) and found.false_positive_ml_mean == pytest.approx(1.0)


def test_a_class_that_a_case_does_not_annotate_enters_nothing():
    """Neither means and medians, nor absent cases and their alarms, nor what Table 1 leaves out."""
    unknown = ClassScores(Overlap(0, 0, 0, 0), dict.fromkeys(METRICS, math.nan), 0.01, annotated=False)
    usual = folds()
    added = [
        FoldScores(
            fold.fold, fold.groups, (*fold.cases, CaseScores(f"more{fold.fold}", None, {**fold.cases[0].classes, "infection": unknown}))
        )
        for fold in usual
    ]
    before, after = (cross_validate(some, plan()) for some in (usual, added))
    infection = after.classes["infection"]
    assert (infection.not_annotated, before.classes["infection"].not_annotated, after.classes["left"].not_annotated) == (2, 0, 0)
    assert dataclasses.replace(infection, not_annotated=0) == before.classes["infection"]
    column = [name for name, _ in before.table_1.columns].index("infection")
    assert [row[column] for row in after.table_1.rows.values()] == [row[column] for row in before.table_1.rows.values()]
    assert after.table_1.left_out[column] == before.table_1.left_out[column]
    text = crossval_text(after)
    assert "n/a: cases in which nobody annotated the class" in text and "n/a" not in crossval_text(before)


def test_an_undefined_value_is_counted_and_scored_neither_0_nor_1():
    missed = case("missed", a=Overlap(0, 0, 50, 950))  # nothing predicted: precision is undefined, Dice is 0
    found = cross_validate([FoldScores(0, {}, (missed, case("hit", a=counts(100, 0.8))))], plan("mean")).classes["a"]
    assert found.metrics["dice"].mean == pytest.approx(0.4)
    assert (found.metrics["precision"].defined, found.metrics["precision"].undefined) == (1, 1)
    assert found.metrics["precision"].mean == pytest.approx(0.8)
    nowhere = cross_validate([FoldScores(0, {}, (case("none", a=ABSENT),))], plan("mean"))
    assert nowhere.classes["a"].present == 0 and math.isnan(nowhere.classes["a"].metrics["dice"].mean)
    assert math.isnan(nowhere.foreground_mean) and "-" in crossval_text(nowhere)


def test_foreground_mean_leaves_groups_out():
    found = cross_validate(folds(), plan())
    means = [found.classes[name].metrics["dice"].mean for name in ("left", "right", "infection")]
    assert found.foreground_mean == pytest.approx(np.mean(means))


def test_table_1_is_the_mean_of_medians():
    table = cross_validate(folds(), plan()).table_1
    assert table.columns == tuple((n, m) for n in ("lungs", "infection") for m in ("dice", "sensitivity", "specificity"))
    # medians by fold: left .91 and .65, right .82 and .80
    assert table.rows[0][0] == pytest.approx((0.91 + 0.82) / 2) and table.rows[1][0] == pytest.approx((0.65 + 0.80) / 2)
    assert table.average[0] == pytest.approx(((0.91 + 0.82) / 2 + (0.65 + 0.80) / 2) / 2)
    # infection: fold 0 has .5, .7, undefined (left out) and 0 (predicted where it is not); fold 1 .2 and undefined
    assert table.rows[0][3] == pytest.approx(0.5) and table.rows[1][3] == pytest.approx(0.2) and table.average[3] == pytest.approx(0.35)
    assert table.left_out == (0, 0, 0, 2, 3, 0)  # sensitivity is undefined in the false alarm too
    assert cross_validate(folds(), plan("mean")).table_1 is None


def test_the_averages_of_the_published_table_come_out():
    # paper.md item 19: one case a fold makes the medians the published ones; lungs and infection DSC
    published = [(0.907, 0.556), (0.977, 0.801), (0.952, 0.829), (0.979, 0.853), (0.967, 0.765)]
    made_folds = [
        FoldScores(
            i + 1,
            GROUPS,
            (
                case(
                    f"c{i}",
                    left=counts(1000, lungs),
                    right=counts(1000, lungs),
                    infection=counts(1000, infection),
                    lungs=counts(2000, lungs),
                ),
            ),
        )
        for i, (lungs, infection) in enumerate(published)
    ]
    table = cross_validate(made_folds, plan()).table_1
    average = dict(zip(table.columns, table.average, strict=True))
    assert round(average["lungs", "dice"], 3) == 0.956 and round(average["infection", "dice"], 3) == 0.761


def test_folds_that_do_not_belong_together_are_refused():
    with pytest.raises(PlanError, match="two folds"):
        cross_validate([folds()[0], FoldScores(1, GROUPS, folds()[0].cases)], plan())
    with pytest.raises(PlanError, match="by the same plan"):
        cross_validate([folds()[0], FoldScores(1, {}, (case("x", other=counts(10, 0.5)),))], plan())
    with pytest.raises(PlanError, match="no fold"):
        cross_validate([], plan())


def test_text_and_json_say_the_same(tmp_path):
    result = cross_validate(folds(), plan())
    text = crossval_text(result)
    write_crossval(tmp_path / "crossval.json", result, text)
    stored = json.loads((tmp_path / "crossval.json").read_text())
    assert (tmp_path / "crossval.txt").read_text() == text
    assert stored["classes"]["infection"]["metrics"]["dice"]["mean"] == pytest.approx(0.4667, abs=1e-4)
    assert stored["table_1"]["average"]["lungs"]["dice"] == pytest.approx(result.table_1.average[0])
    assert stored["table_1"]["left_out"]["infection"] == {"dice": 2, "sensitivity": 3, "specificity": 0}
    assert stored["cases"]["f0c3"]["fold"] == 0 and stored["cases"]["f0c3"]["classes"]["infection"]["dice"] == 0
    assert "0.467" in text and "1 of 3" in text and "AVG" in text and "6 cases in 2 folds" in text
    headline = next(line for line in text.splitlines() if line.startswith("class"))
    for row in text.splitlines()[text.splitlines().index(headline) + 2 :][:4]:
        assert len(row) == len(headline)  # columns are flush
