"""Short trainings on real data: enough to tell learning from going through the motions."""

from __future__ import annotations

import pytest

from autoseg import pipeline
from autoseg.files import Work
from autoseg.network.weights import read_about
from autoseg.preprocessing.previous_stage import read_made_by
from autoseg.preprocessing.store import stored_cases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def _mean_dice(work, name: str) -> float:
    return pipeline.evaluate_work(work)["3d_fullres"].classes[name].metrics["dice"].mean


def test_hippocampus_in_four_minutes(shared_data, tmp_path):
    work = tmp_path / "work"
    pipeline.plan_and_preprocess(shared_data("hippocampus"), work, quiet=True)
    trained = pipeline.train(work, folds=[0], budget_seconds=240, quiet=True)
    assert not trained.problems
    assert min(_mean_dice(work, "anterior"), _mean_dice(work, "posterior")) > 0.7


def test_chest_ct_by_the_papers_recipe_in_four_minutes(shared_data, tmp_path):
    work = tmp_path / "work"
    settings = {"spacing": [5.0, 2.8, 2.8], "patch_size": [32, 80, 80], "network.features": [16, 32, 64, 128, 256]}
    settings["network.norm.momentum"] = 0.1  # the paper's .01 needs more steps than these minutes hold to settle
    pipeline.plan_and_preprocess(shared_data("covid_ct_small"), work, recipe="covid19-ct-sides", settings=settings, quiet=True)
    trained = pipeline.train(work, folds=[0], budget_seconds=240, quiet=True)
    assert not trained.problems
    assert _mean_dice(work, "lungs") > 0.6
    text = (work / "models" / "3d_fullres" / "crossval.txt").read_text()
    assert "Table 1 of the paper" in text and "lungs DSC" in text
    predicted = pipeline.predict(work, shared_data("covid_ct_small") / "imagesTs", tmp_path / "out", quiet=True)
    assert all(result.output for result in predicted.results), "Hounsfield units go through a model of gray values"


def test_a_cascade_on_chest_ct(shared_data, tmp_path):
    """Both stages find the lungs; each case's input is by a fold that did not train on it; fresh scans go through both."""
    work = Work(tmp_path / "work")
    settings = {
        "3d_lowres.spacing": [12.0, 8.0, 8.0],
        "3d_lowres.patch_size": [16, 32, 32],
        "3d_lowres.features": [8, 16, 32],
        "3d_fullres.spacing": [6.0, 4.0, 4.0],
        "3d_fullres.patch_size": [16, 48, 48],
        "3d_fullres.features": [8, 16, 32, 64],
        "training.epochs": 20,
        "training.steps_per_epoch": 25,
    }
    dataset = shared_data("covid_ct_small")
    pipeline.plan_and_preprocess(dataset, work.path, settings=settings, configurations=["3d_cascade_fullres"], quiet=True)
    trained = pipeline.train(work.path, folds=[0], quiet=True)
    assert not trained.problems and list(trained.crossvals) == ["3d_lowres", "3d_cascade_fullres"]
    for stage, result in trained.crossvals.items():
        assert result.classes["lungs"].metrics["dice"].mean > 0.7, stage
    for case in stored_cases(work.store("3d_cascade_fullres")):
        made_by = read_made_by(work.store("3d_cascade_fullres"), case)
        assert case not in read_about(work.fold("3d_lowres", made_by.fold).weights)[0]["trained_on"]
    predicted = pipeline.predict(work.path, dataset / "imagesTs", tmp_path / "out", quiet=True)
    assert predicted.model.stages == ("3d_lowres", "3d_cascade_fullres") and all(result.output for result in predicted.results)
