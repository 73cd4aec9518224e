"""Every way of normalising can be asked for, channel by channel and kind by kind (DESIGN 6.7, peer 2.9 and 3.4)."""

from __future__ import annotations

import pytest

from autoseg.errors import PlanError
from autoseg.planning.schema import Clip, Nothing, Rescale, ZScore

OWN = ZScore(do="zscore", mean=None, std=None, mask="all")
MASKED = OWN.model_copy(update={"mask": "nonzero"})
FOREGROUND = [Clip(do="clip", low=-950, high=120), ZScore(do="zscore", mean=-600, std=300, mask="all")]
WAYS = {
    "ct": FOREGROUND,
    "zscore": [OWN],
    "zscore_nonzero": [MASKED],
    "rescale_to_0_1": [Rescale(do="rescale", low=None, high=None, to=(0, 1), round=False)],
    "none": [Nothing(do="none")],
}
MR = {"channels": ("MR",), "kinds": ["arbitrary"] * 10}


def reason(plan, decision):
    return next(r for r in plan.reasons if r.decision == decision)


@pytest.mark.parametrize("recipe", ["auto", "nnunet"])
@pytest.mark.parametrize(("way", "steps"), WAYS.items())
def test_each_way_by_its_name(planned, recipe, way, steps):
    plan = planned(recipe, **MR, settings={"intensity.MR": way})
    assert plan.intensity["MR"]["arbitrary"].before_resampling == steps
    assert plan.intensity["MR"]["arbitrary"].after_resampling == []
    assert all(c.normalise_in_mask == [way == "zscore_nonzero"] for c in plan.configurations.values())
    assert reason(plan, "intensity.MR").because.startswith("You gave it: ")
    assert [r.decision for r in plan.reasons].count("intensity.MR") == 1


def test_one_kind_of_a_channel_alone(planned):
    usual, plan = planned(), planned(settings={"intensity.CT.windowed": "zscore"})
    assert plan.intensity["CT"]["windowed"].before_resampling == [OWN]
    assert plan.intensity["CT"]["hu"] == usual.intensity["CT"]["hu"]


def test_ct_takes_each_kinds_own_foreground_and_brings_windowed_volumes_back_to_hu_where_there_are_none(planned):
    mixed = planned(kinds=["hu"] * 4 + ["windowed"] * 6, settings={"intensity.CT": "ct"}).intensity["CT"]
    assert mixed["hu"].before_resampling == mixed["windowed"].before_resampling == FOREGROUND  # made: both kinds have the same figures
    alone = planned(settings={"intensity.CT": "ct"}).intensity["CT"]
    assert alone["windowed"].before_resampling == [Rescale(do="rescale", low=0, high=255, to=(-1250, 250), round=False), *FOREGROUND]


def test_steps_as_json_and_single_numbers(planned):
    steps = '[{"do": "clip", "low": 0, "high": 500}, {"do": "zscore", "mean": null, "std": null, "mask": "nonzero"}]'
    plan = planned(**MR, settings={"intensity.MR.arbitrary.before_resampling": steps})
    assert plan.intensity["MR"]["arbitrary"].before_resampling == [Clip(do="clip", low=0, high=500), MASKED]
    assert plan.configurations["3d_fullres"].normalise_in_mask == [True]  # it follows from the steps
    low = planned(settings={"intensity.CT.hu.before_resampling.0.low": "-1000"}).intensity["CT"]["hu"].before_resampling
    assert low == [Clip(do="clip", low=-1000, high=120), FOREGROUND[1]]


def test_a_channels_name_may_hold_dots(planned):
    data = {"channels": ("T1.5", "T1"), "kinds": ["arbitrary"] * 10}
    plan = planned(**data, settings={"intensity.T1.5": "none", "intensity.T1.arbitrary": "rescale_to_0_1"})
    assert plan.intensity["T1.5"]["arbitrary"].before_resampling == WAYS["none"]
    assert plan.intensity["T1"]["arbitrary"].before_resampling == WAYS["rescale_to_0_1"]


def test_the_mask_can_be_turned_on_and_off_by_configuration(planned):
    data = {**MR, "relative": 0.4, "shape": (300, 512, 512), "spacing": (1.0, 0.8, 0.8)}
    usual = planned("nnunet", **data)
    assert usual.intensity["MR"]["arbitrary"].before_resampling == [MASKED]
    off = planned("nnunet", **data, settings={"2d.normalise_in_mask": [False]})
    assert {name: c.normalise_in_mask for name, c in off.configurations.items()} == {name: [name != "2d"] for name in usual.configurations}
    assert off.intensity["MR"]["arbitrary"].before_resampling == [OWN]  # the configurations decide
    on = planned("nnunet", **{**data, "relative": 1.0}, settings={"normalise_in_mask": [True]})
    assert on.configurations["3d_fullres"].normalise_in_mask == [True] and on.configurations["2d"].normalise_in_mask == [False]


def test_steps_and_configuration_that_contradict_each_other_are_refused(planned):
    plan = planned("nnunet", **MR, relative=0.4)
    content = plan.model_dump(mode="json")
    content["configurations"]["2d"]["normalise_in_mask"] = [False]
    with pytest.raises(ValueError, match=r"intensity\.MR z-scores in the non-zero mask, 2d\.normalise_in_mask"):
        type(plan).model_validate(content)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"intensity.MR": "percentile"}, ["intensity.MR", "'percentile'", "rescale_to_0_1"]),
        ({"intensity.CT": "zscore"}, ["intensity.CT", "none of the channels MR"]),
        ({"intensity": "zscore"}, ["none of the channels MR"]),
        ({"intensity.MR.pet": "zscore"}, ["intensity.MR.pet"]),
        ({"intensity.MR.arbitrary.before_resampling": '[{"do": "squash"}]'}, ["intensity.MR", "squash"]),
        ({"intensity.MR": '{"arbitrary": 3}'}, ["intensity.MR"]),
    ],
)
def test_what_cannot_be_is_named(planned, settings, words):
    with pytest.raises(PlanError) as caught:
        planned(**MR, settings=settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_ct_needs_labelled_voxels(measured):
    from autoseg.planning.planner import plan
    from autoseg.planning.recipes import load_recipe
    from autoseg.planning.schema import MadeFor

    dataset, fingerprint = measured(**MR)
    empty = fingerprint.model_copy(update={"channels": {"MR": {}}})
    made_for = MadeFor(device="cpu", memory_gb=16)
    with pytest.raises(PlanError, match="no case has any"):
        plan(dataset, empty, load_recipe("auto"), made_for=made_for, options={"set": {"intensity.MR": "ct"}})
