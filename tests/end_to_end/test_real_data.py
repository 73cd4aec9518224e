"""Short trainings on real data: enough to tell learning from going through the motions."""

from __future__ import annotations

import pytest

from autoseg import pipeline

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
