"""Plans of other data as recipes: another WORK's, and the peer's."""

from __future__ import annotations

import json
import shutil

import pytest

from autoseg.errors import PlanError
from autoseg.planning import plan_from_fingerprint, to_nnunet_plans
from autoseg.planning.plan_file import write_plan
from autoseg.planning.planner import plan as make_plan
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import MadeFor


@pytest.fixture
def taken(planned, measured, tmp_path):
    """(source, plan of other data by it)."""

    def make(source: dict, settings: dict | None = None, memory_gb: float | None = None, **data):
        work = tmp_path / "first"
        first = planned(**source)
        write_plan(work / "plan.json", first)
        dataset, fingerprint = measured(**data)
        options = {"set": settings or {}} | ({"memory_gb": memory_gb} if memory_gb else {})
        return first, make_plan(dataset, fingerprint, load_recipe(work), made_for=MadeFor(device="cuda", memory_gb=80), options=options)

    return make


OTHER = {"names": [f"x{i}" for i in range(7)], "spacing": (5.0, 0.7, 0.7), "shape": (40, 512, 512)}


def test_what_networks_depend_on_is_the_other_plans(taken):
    first, plan = taken({"settings": {"training.epochs": 77}}, **OTHER)
    for name, part in first.configurations.items():
        assert plan.configurations[name].model_copy(update={"median_shape": part.median_shape}) == part
    assert plan.intensity == first.intensity
    assert plan.training.model_dump() == first.training.model_dump() and plan.prediction == first.prediction
    assert (plan.made_for, plan.dataset.orientation) == (first.made_for, first.dataset.orientation)
    assert plan.default_configurations == first.default_configurations


def test_what_these_data_decide_is_decided_anew(taken):
    labels = {"background": 0, "liver": 1}
    first, plan = taken({}, labels=labels, pairs=[], **OTHER)
    spacing = first.configurations["3d_fullres"].spacing
    expected = [round(s / t * n) for s, t, n in zip(OTHER["spacing"], spacing, OTHER["shape"], strict=True)]
    assert plan.configurations["3d_fullres"].median_shape == expected
    assert plan.dataset.labels == labels and plan.dataset.side_pairs == []
    assert plan.folds.count == 5
    tversky = plan.training.loss.tversky
    assert tversky.weight == pytest.approx(first.training.loss.tversky.weight * 3), "one class instead of three"


def test_reasons_say_where_it_came_from(taken):
    _, plan = taken({}, labels={"background": 0, "liver": 1}, pairs=[], **OTHER)
    told = {r.decision: r.because for r in plan.reasons}
    assert "the plan of made (recipe auto)" in told["configurations"]
    assert "lung_left, lung_right, infection; here liver" in told["configurations"]
    assert "that of the plan of made" in told["configurations.3d_fullres.spacing"]
    assert "channel CT in the plan of made" in told["intensity.CT"]
    assert plan.recipe.startswith("plan of made (")
    assert not any("CPU half" in r.because for r in plan.reasons), "no reason that was of the other data's recipe"


def test_settings_are_written_over_what_is_taken(taken):
    _, plan = taken({}, {"training.epochs": 9, "3d_fullres.batch_size": 3}, **OTHER)
    assert plan.training.epochs == 9 and plan.configurations["3d_fullres"].batch_size == 3
    with pytest.raises(PlanError, match="--memory changes nothing"):
        taken({}, memory_gb=4, **OTHER)


def test_channels_must_fit(taken):
    with pytest.raises(PlanError, match=r"is for 1 channels \(CT\), made has 2"):
        taken({}, channels=("CT", "PET"), **OTHER)
    _, plan = taken({}, channels=("Abdomen CT",), **OTHER)
    assert "called Abdomen CT" in next(r.because for r in plan.reasons if r.decision == "intensity.Abdomen CT")
    with pytest.raises(PlanError, match="'arbitrary' cases"):
        taken({}, channels=("MR",), kinds=["arbitrary"] * 7, **OTHER)
    with pytest.raises(PlanError, match="single slices"):
        taken({"settings": {"rules.configurations.made": ["3d_fullres"]}}, planar=True, spacing=(1.0, 1.0, 1.0), shape=(1, 200, 200))


def test_a_taken_plan_can_be_taken_again(taken, tmp_path, measured):
    _, plan = taken({}, **OTHER)
    write_plan(tmp_path / "second.json", plan)
    dataset, fingerprint = measured(**OTHER)
    again = make_plan(dataset, fingerprint, load_recipe(tmp_path / "second.json"), made_for=plan.made_for, options={})
    assert again.configurations == plan.configurations and again.intensity == plan.intensity and again.training == plan.training


def test_the_peers_plans_are_taken(shared_data, measured):
    """Its hippocampus model: patch, spacing, network and normalisation as its file has them."""
    folder = shared_data("nnunet_model")
    theirs = json.loads((folder / "plans.json").read_text())
    dataset, fingerprint = measured(channels=("MRI",), kinds=["arbitrary"] * 10, spacing=(1.0, 1.0, 1.0), shape=(40, 60, 50))
    for given in (folder, folder / "plans.json"):
        plan = make_plan(dataset, fingerprint, load_recipe(given), made_for=MadeFor(device="cpu", memory_gb=8), options={})
        found = to_nnunet_plans(plan, complete=True)
        for name, expected in theirs["configurations"].items():
            own = dict(found["configurations"][name])
            for key in ("data_identifier", "median_image_size_in_voxels"):
                own.pop(key), (expected := dict(expected)).pop(key)
            assert own == expected, name
    assert plan.dataset.orientation == "as_stored"
    assert plan.training.optimiser.name == "sgd" and plan.training.epochs == 1000
    told = next(r.because for r in plan.reasons if r.decision == "configurations")
    assert "nnUNetPlans of Dataset004_Hippocampus (nnU-Net)" in told and "here lung_left" in told


@pytest.mark.parametrize("recipe", ["nnunet", pytest.param("nnunet-resenc-m", marks=pytest.mark.slow)])
def test_every_plan_of_the_peer_goes_there_and_back(planner_cases, tmp_path, recipe):
    """Written as a file of the peer's, read as a recipe, planned for the same data: the same plan, cascades and turned axes included."""
    seen = set()
    for case in planner_cases:
        plan = plan_from_fingerprint(case["dataset"], case["fingerprint"], recipe)
        content = to_nnunet_plans(plan, complete=True)
        (tmp_path / "nnUNetPlans.json").write_text(json.dumps(content))
        again = plan_from_fingerprint(case["dataset"], case["fingerprint"], tmp_path / "nnUNetPlans.json")
        for name, part in plan.configurations.items():  # the median at a first stage's spacing is the peer's guess, not counted by case
            found = again.configurations[name]
            assert found.model_copy(update={"median_shape": part.median_shape}) == part, case["name"]
            assert found.median_shape == pytest.approx(part.median_shape, abs=1.01), case["name"]
        ct = [c for c in plan.dataset.channels if "hu" in plan.intensity[c]]
        assert all(again.intensity[c]["hu"] == plan.intensity[c]["hu"] for c in ct)
        seen |= {"cascade"} if "3d_cascade_fullres" in plan.configurations else set()
        seen |= {"turned"} if content["transpose_forward"] != [0, 1, 2] else set()
    assert seen == {"cascade", "turned"}


def test_foreign_files_are_refused_by_name(shared_data, tmp_path):
    content = json.loads((shared_data("nnunet_model") / "plans.json").read_text())

    def refused(words, **changes):
        path = tmp_path / "plans.json"
        changed = json.loads(json.dumps(content))
        changed["configurations"]["3d_fullres"] |= changes
        path.write_text(json.dumps(changed))
        with pytest.raises(PlanError, match=words):
            load_recipe(path)

    refused("which autoseg cannot build", architecture={"network_class_name": "my.Net", "arch_kwargs": {}, "_kw_requires_import": []})
    refused("resampling_fn_data is 'resample_torch_fornnunet'", resampling_fn_data="resample_torch_fornnunet")
    refused("not divisible", patch_size=[41, 56, 40])
    shutil.copy(shared_data("nnunet_model") / "dataset.json", tmp_path / "dataset.json")
    with pytest.raises(PlanError, match="not a recipe"):
        load_recipe(tmp_path / "dataset.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match=r"holds no plan\.json"):
        load_recipe(tmp_path / "empty")
