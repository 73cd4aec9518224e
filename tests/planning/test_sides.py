"""How a plan mirrors left and right: by labels, as the user says, and never exchange without a pair (DESIGN 6.5)."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest

from autoseg.data.folders.layouts import open_dataset
from autoseg.errors import PlanError
from autoseg.fingerprint.measure import measure
from autoseg.planning.planner import plan
from autoseg.planning.recipes import load_recipe
from autoseg.planning.schema import MadeFor

KEY, PAIRS = "training.augmentation.mirror_sides", "dataset.side_pairs"
LIVER = {"background": 0, "liver": 1, "spleen": 2}


def mirrors(made):
    return made.training.augmentation.mirror_sides, made.training.augmentation.mirror_axes, made.prediction.test_time_mirrors


def reason(made):
    return next(r for r in made.reasons if r.decision == KEY)


@pytest.mark.parametrize("recipe", ["auto", "nnunet", "covid19-ct"])
@pytest.mark.parametrize(("way", "axes"), [("blind", [0, 1, 2]), ("exchange", [0, 1, 2]), ("keep", [0, 1])])
def test_all_three_ways_can_be_asked_for(planned, recipe, way, axes):
    """`keep` leaves the left-right axis to neither training nor test-time mirrors, whatever the recipe has."""
    if recipe == "nnunet":
        axes = [0, 1, 2]  # it reads volumes as stored: any axis may be left-right, which is left out case by case
    made = planned(recipe, device="cuda", settings={KEY: way, "prediction.batch_tiles": 1})
    assert made.training.augmentation.mirror_sides == way and made.training.augmentation.mirror_axes == axes
    assert set(made.prediction.test_time_mirrors) <= set(axes)
    assert (made.prediction.test_time_mirrors == axes) == (recipe != "covid19-ct")  # the paper has no test-time mirrors
    assert reason(made).because == "You gave it"


def test_axes_that_the_user_names_are_kept(planned):
    made = planned(device="cuda", settings={KEY: "keep", "training.augmentation.mirror_axes": [1, 2]})
    assert made.training.augmentation.mirror_axes == [1, 2]  # samples leave out the patient's left-right axis all the same


def test_where_volumes_stay_as_stored_no_axis_is_left_out_by_number(planned):
    """Left-right may be any of them, case by case."""
    settings = {KEY: "keep", "dataset.orientation": "as_stored"}
    assert mirrors(planned(device="cuda", settings=settings)) == ("keep", [0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("way", [None, "keep"])
def test_a_turned_volume_leaves_no_axis_to_mirror(planned, way):
    settings = {KEY: way} if way else {}
    assert mirrors(planned(device="cuda", tilt=31.0, settings=settings)) == ("keep", [], [])
    assert mirrors(planned("nnunet", tilt=31.0, settings={KEY: "keep"})) == ("keep", [], [])


@pytest.mark.parametrize("unpaired", [[], ["rib_left"]])
def test_a_turned_volume_comes_before_other_reasons(planned, unpaired):
    made = planned(device="cuda", tilt=40.0, unpaired=unpaired)
    assert mirrors(made) == ("keep", [], [])
    assert "turned by 40 degrees" in reason(made).because


@pytest.mark.parametrize("recipe", ["auto", "nnunet"])
def test_exchange_without_a_pair_is_refused(planned, recipe):
    with pytest.raises(PlanError, match=r"no two labels are known.*keep or blind.*dataset\.side_pairs"):
        planned(recipe, labels=LIVER, pairs=[], settings={KEY: "exchange"})
    with pytest.raises(PlanError, match="rib_left lacks its partner"):
        planned(recipe, labels=LIVER, pairs=[], unpaired=["rib_left"], settings={KEY: "exchange"})
    assert planned(recipe, labels=LIVER, pairs=[], settings={KEY: "blind"}).training.augmentation.mirror_sides == "blind"


def test_a_pair_that_the_user_names_counts(planned):
    named = {PAIRS: [["spleen", "liver"]]}
    for settings in ({**named, KEY: "exchange"}, named):
        made = planned(device="cuda", labels=LIVER, pairs=[], settings=settings)
        assert made.training.augmentation.mirror_sides == "exchange" and made.dataset.side_pairs == [("spleen", "liver")]
    assert "You say that spleen and liver" in reason(made).because
    with pytest.raises(PlanError, match="kidney"):
        planned(labels=LIVER, pairs=[], settings={PAIRS: [["kidney", "liver"]]})
    with pytest.raises(PlanError, match=r"is no list of \[left, right\]"):
        planned(labels=LIVER, pairs=[], settings={PAIRS: "liver"})


def real_plan(folder):
    dataset = open_dataset(folder)
    measured = measure(dataset, orientation="lps", workers=1)
    return plan(measured.dataset, measured.fingerprint, load_recipe("auto"), made_for=MadeFor(device="cuda", memory_gb=8), options={})


@pytest.mark.parametrize(
    ("name", "rule", "pairs", "axes"),
    [
        ("covid_ct_small", "exchange", [("lung_left", "lung_right")], [0, 1, 2]),
        ("lung_ct_hu", "exchange", [("lung_left", "lung_right")], [0, 1, 2]),
        ("cardiac_cine", "exchange", [], [0, 1, 2]),  # left and right ventricle are no pair, so that mirroring changes no label
    ],
)
def test_real_datasets(shared_data, name, rule, pairs, axes):
    made = real_plan(shared_data(name))
    assert made.dataset.side_pairs == pairs
    assert mirrors(made) == (rule, axes, axes)


def test_real_organs_without_partner_keep_their_side(shared_data):
    made = real_plan(shared_data("totalseg_ct"))
    assert mirrors(made) == ("keep", [0, 1], [0, 1])
    assert "lung_middle_lobe_right, atrial_appendage_left names a side" in reason(made).because


@pytest.mark.parametrize(("degrees", "rule", "axes"), [(25, "exchange", [0, 1, 2]), (35, "keep", [])])
def test_one_real_volume_turned_by_more_than_30_degrees_keeps_all(shared_data, tmp_path, degrees, rule, axes):
    """Four chests of covid_ct_small, one of them turned about the body's axis in its header."""
    import nibabel as nib

    source, folder = shared_data("covid_ct_small"), tmp_path / "turned"
    names = sorted(path.name for path in (source / "labelsTr").iterdir())[:4]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    shutil.copy(source / "dataset.json", folder)
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0, 0], [math.sin(angle), math.cos(angle), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for number, name in enumerate(names):
        for part, file in (("imagesTr", name.replace(".nii.gz", "_0000.nii.gz")), ("labelsTr", name)):
            image = nib.load(source / part / file)
            if number == 2:
                image = nib.Nifti1Image(np.asanyarray(image.dataobj), turn @ image.affine)
            nib.save(image, folder / part / file)
    made = real_plan(folder)
    assert mirrors(made) == (rule, axes, axes)
    assert reason(made).figures["largest_tilt"] == pytest.approx(degrees, abs=0.1)
