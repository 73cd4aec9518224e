"""--set and --memory are inputs of planning; what is wrong is named."""

from __future__ import annotations

import pytest

from autoseg.errors import PlanError
from autoseg.planning.planner import reading_orientation
from autoseg.planning.recipes import load_recipe

THIN = {"shape": (300, 512, 512), "spacing": (1.0, 0.8, 0.8)}
SMALL = {"spacing": "[5.0,2.8,2.8]", "patch_size": "[32,80,80]", "network.features": "[16,32,64,128,256]"}


def test_the_papers_recipe_made_smaller(planned):
    plan = planned("covid19-ct", settings=SMALL)
    c = plan.configurations["3d_fullres"]
    assert (c.spacing, c.patch_size, c.network.features) == ([5.0, 2.8, 2.8], [32, 80, 80], [16, 32, 64, 128, 256])
    assert c.network.strides == [[1, 1, 1]] + [[2, 2, 2]] * 4
    assert c.median_shape == [56, 143, 150]  # 104 * 2.7 / 5 and so on, floored: derived anew
    assert plan.recipe_options["set"]["patch_size"] == [32, 80, 80]


def test_strides_follow_a_given_patch(planned):
    c = planned(settings=SMALL).configurations["3d_fullres"]
    assert c.patch_size == [32, 80, 80]
    assert c.network.strides == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    odd = planned(settings={"patch_size": [30, 80, 80]}).configurations["3d_fullres"]
    assert odd.patch_size == [30, 80, 80]
    assert odd.network.divisor[0] == 2  # 30 is halved once, 15 no more


def test_fewer_widths_make_fewer_levels(planned):
    c = planned("covid19-ct", settings={"features": [8, 16, 32]}).configurations["3d_fullres"]
    assert (len(c.network.strides), c.network.blocks.decoder, c.network.divisor) == (3, [2, 2], (4, 4, 4))


def test_given_strides_and_kernels_are_kept(planned):
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    settings = {"network.strides": strides, "network.kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]}
    n = planned(settings=settings).configurations["3d_fullres"].network
    assert n.strides == strides
    assert n.kernels[0] == [1, 3, 3]
    assert len(n.features) == 3


def test_more_memory_more_batch_and_a_given_one(planned):
    assert planned(settings={"batch_size": 7}).configurations["3d_fullres"].batch_size == 7
    plan = planned(device="cuda", options={"memory_gb": 6})
    assert plan.made_for.memory_gb == 6
    assert plan.recipe_options == {"memory_gb": 6}


def test_unnamed_keys_go_to_the_3d_configurations_in_play(planned):
    plan = planned(**THIN, settings={"batch_size": 5, "2d.patch_size": "[192,192]"})
    assert {name: c.batch_size for name, c in plan.configurations.items() if name != "2d"} == dict.fromkeys(
        ("3d_lowres", "3d_fullres", "3d_cascade_fullres"), 5
    )
    assert plan.configurations["2d"].batch_size != 5
    assert plan.configurations["2d"].patch_size == [192, 192]
    one = planned(**THIN, settings={"batch_size": 5}, options={"configurations": ["3d_lowres"]})
    assert one.configurations["3d_lowres"].batch_size == 5
    assert one.configurations["3d_fullres"].batch_size != 5


def test_a_given_spacing_seeds_lowres_and_2d(planned):
    plan = planned(**THIN, settings={"spacing": [0.9, 0.7, 0.7]})
    assert plan.configurations["2d"].spacing == [0.7, 0.7]
    low = plan.configurations["3d_lowres"].spacing
    assert low[1] == pytest.approx(low[2]) and low[1] > 0.7 * 1.5
    assert plan.configurations["3d_cascade_fullres"].spacing == [0.9, 0.7, 0.7]


def test_any_key(planned):
    plan = planned(
        settings={
            "training.loss.tversky.fn_weight": "0.7",
            "prediction.overlap": "0.25",
            "3d_fullres.network.norm.name": "instance",
            "folds.source": "splits.json",
            "training.augmentation.transforms.0.probability": "0.9",
            "dropout": "0.1",
            "dataset.groups_of_labels": '{"both": ["lung_left", "lung_right"]}',
            "configurations.2d.padding.train": "minimum",
            "3d_fullres.network.factory": "mine:net",
            "rules.lowres.below": "0.0",
        }
    )
    assert plan.training.loss.tversky.fn_weight == 0.7
    assert plan.prediction.overlap == 0.25
    full = plan.configurations["3d_fullres"]
    assert (full.network.norm.name, full.network.dropout, full.network.factory) == ("instance", 0.1, "mine:net")
    assert plan.folds.source == "splits.json"
    assert plan.training.augmentation.transforms[0].probability == 0.9
    assert plan.dataset.groups_of_labels == {"both": ["lung_left", "lung_right"]}
    assert plan.configurations["2d"].padding.train == "minimum"
    assert "3d_lowres" not in plan.configurations
    given = {r.decision for r in plan.reasons if r.because == "You gave it"}
    assert given >= {"prediction.overlap", "configurations.3d_fullres.network.norm.name"}


def test_the_orientation_is_known_before_the_fingerprint():
    assert reading_orientation(load_recipe("auto"), {}) == "lps"
    assert reading_orientation(load_recipe("nnunet"), {}) == "as_stored"
    assert reading_orientation(load_recipe("auto"), {"set": {"dataset.orientation": "as_stored"}}) == "as_stored"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": "[1]"}, ["patch", "patch_size"]),
        ({"training.optimizer.lr": "1"}, ["training.optimizer", "unknown key"]),
        ({"training.optimiser.lr": "fast"}, ["training.optimiser.lr", "'fast'"]),
        ({"training.optimiser.lr": "-1"}, ["training.optimiser.lr", "-1", "greater than 0"]),
        ({"training.epochs": "1.5"}, ["training.epochs", "1.5"]),
        ({"3d_fullres.colour": "1"}, ["colour", "unknown key"]),
        ({"patch_size": "[32,80]"}, ["patch_size", "3 numbers"]),
        ({"2d.patch_size": "[32,80,80]"}, ["2d", "2 numbers"]),
        ({"patch_size": "[-32,80,80]"}, ["patch_size", "-32"]),
        ({"network.features": "[8,16,32,64,128,256,512,1024]", "patch_size": "[32,32,32]"}, ["features", "8 levels"]),
        ({"3d_giant.patch_size": "[1,1,1]"}, ["3d_giant"]),
        ({"made_for": "cuda"}, ["made_for"]),
        ({"training.loss.factory.x": "1"}, ["training.loss.factory"]),
        ({"training.augmentation.transforms.99.probability": "1"}, ["99"]),
        ({"training.augmentation.mirror_sides": "sometimes"}, ["mirror_sides", "sometimes"]),
        ({"spacing": "[0,1,1]"}, ["spacing", "0"]),
    ],
)
def test_what_cannot_be_is_named(planned, settings, words):
    with pytest.raises(PlanError) as caught:
        planned(settings=settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.remedy


def test_a_patch_that_the_strides_do_not_divide_is_refused_with_the_nearest(planned):
    with pytest.raises(PlanError, match=r"divisible.*nearest that is: \[32, 80, 80\]"):
        planned("covid19-ct", settings={"patch_size": [30, 80, 80]})


def test_a_configuration_that_the_plan_lacks(planned):
    with pytest.raises(PlanError, match="no 2d configuration"):
        planned("covid19-ct", settings={"2d.patch_size": "[192,192]"})
    with pytest.raises(PlanError, match="there is no configuration '4d'"):
        planned(options={"configurations": ["4d"]})
