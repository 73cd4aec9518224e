"""The default recipe: the peer's rules for shapes, our own for sides, intensities and the machine."""

from __future__ import annotations

import json
import math

import pytest

from autoseg.data.labels import LabelSet
from autoseg.errors import ResourceError
from autoseg.planning.explain import explain
from autoseg.planning.schema import Clip, Plan, Rescale, ZScore
from autoseg.planning.training import both_sides

OWN = ZScore(do="zscore", mean=None, std=None, mask="all")
THIN = {"shape": (300, 512, 512), "spacing": (1.0, 0.8, 0.8)}


def reason(plan: Plan, decision: str):
    return next(r for r in plan.reasons if r.decision == decision)


def test_a_cpu_gets_a_plan_that_it_trains_in_reasonable_time(planned):
    here, there = planned(device="cpu", **THIN), planned(device="cuda", memory_gb=8, **THIN)
    cpu, gpu = (p.configurations["3d_fullres"] for p in (here, there))
    assert cpu.network.features[0] == 16 and gpu.network.features[0] == 32
    assert cpu.network.norm.name == "batch" and gpu.network.norm.name == "instance"
    assert math.prod(cpu.patch_size) <= 64 * 80 * 80 < math.prod(gpu.patch_size)
    assert cpu.batch_size == 2
    assert here.prediction.test_time_mirrors == [] and there.prediction.test_time_mirrors == [0, 1, 2]
    assert here.training.epochs * here.training.steps_per_epoch <= 2000
    assert here.made_for.device == "cpu"
    assert any("On a CPU" in r.because for r in here.reasons)
    assert planned(device="cpu", memory_gb=64, **THIN).configurations == here.configurations  # time bounds a CPU, not its RAM


@pytest.mark.parametrize(
    ("data", "settings", "norm", "why"),
    [
        ((29, "arbitrary"), {}, "instance", "29 cases are too few"),
        ((30, "arbitrary"), {}, "batch", "30 cases teach"),
        ((10, "hu"), {}, "batch", "All images are CT"),
        ((29, "arbitrary"), {"network.norm.name": "batch"}, "batch", "You gave it"),
    ],
)
def test_a_cpus_batch_norm_needs_cases_enough_or_calibrated_images(planned, data, settings, norm, why):
    cases, kind = data
    names = [f"case_{number:02d}" for number in range(cases)]
    plan = planned(device="cpu", names=names, kinds=[kind] * cases, channels=("image",), settings=settings, **THIN)
    assert plan.configurations["3d_fullres"].network.norm.name == norm
    said = [r for r in plan.reasons if r.decision == "configurations.3d_fullres.network.norm.name"]
    assert len(said) == 1 and said[0].value == norm and said[0].because.startswith(why)


def test_memory_that_nothing_fits_in_is_refused(planned):
    with pytest.raises(ResourceError, match="memory"):
        planned(device="cuda", memory_gb=1e-4, **THIN)


def test_shapes_follow_the_peers_rules_on_a_gpu(planned):
    auto, peer = planned(device="cuda", memory_gb=8, **THIN), planned("nnunet", **THIN)
    assert set(auto.configurations) == set(peer.configurations) == {"2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"}
    for name, configuration in peer.configurations.items():
        mine = auto.configurations[name]
        assert (mine.spacing, mine.patch_size, mine.batch_size, mine.network) == (
            configuration.spacing,
            configuration.patch_size,
            configuration.batch_size,
            configuration.network,
        )
        assert mine.pool_loss_over_batch
    assert auto.configurations["3d_lowres"].next_stage == "3d_cascade_fullres"
    assert auto.configurations["3d_cascade_fullres"].previous_stage == "3d_lowres"
    assert auto.default_configurations == ["3d_fullres"]


def test_planar_images_get_one_2d_configuration(planned):
    plan = planned(
        shape=(1, 512, 400),
        spacing=(1.0, 2.0, 0.5),
        planar=True,
        channels=("EM",),
        kinds=["arbitrary"] * 10,
        pairs=[],
        labels={"background": 0, "cell": 255},
    )
    assert list(plan.configurations) == plan.default_configurations == ["2d"]
    c = plan.configurations["2d"]
    assert c.network.dimension == 2 and len(c.patch_size) == 2
    assert c.spacing == [2.0, 0.5]
    assert c.transpose is None  # whatever thickness a reader makes up, the slices' axis stays the first
    assert reason(plan, "configurations.2d.spacing").value == [2.0, 0.5]
    assert "3d_fullres" not in explain(plan).replace("There is no 3d_fullres", "")


@pytest.mark.parametrize(
    ("data", "rule", "axes"),
    [
        ({}, "exchange", [0, 1, 2]),
        ({"unpaired": ["rib_left"]}, "keep", [0, 1]),
        ({"tilt": 31.0}, "keep", []),
        ({"tilt": 29.0}, "exchange", [0, 1, 2]),
        ({"pairs": [], "tilt": 45.0}, "exchange", [0, 1, 2]),
    ],
)
def test_sides(planned, data, rule, axes):
    plan = planned(device="cuda", **data)
    assert plan.training.augmentation.mirror_sides == rule
    assert plan.training.augmentation.mirror_axes == axes
    assert plan.prediction.test_time_mirrors == axes
    assert reason(plan, "training.augmentation.mirror_sides").figures["largest_tilt"] == data.get("tilt", 0)


@pytest.mark.parametrize(
    ("data", "axes"),
    [
        ({}, [2]),
        ({"unpaired": ["rib_left"]}, []),
        ({"shape": (1, 512, 400), "planar": True, "pairs": [], "labels": {"background": 0, "cell": 255}}, [0, 1, 2]),
        ({"settings": {"training.augmentation.mirror_axes": [0, 1]}}, [0, 1]),
        ({"settings": {"dataset.orientation": "as_stored"}}, [0, 1, 2]),
    ],
)
def test_on_a_cpu_only_the_patients_left_and_right_are_mirrored(planned, data, axes):
    assert planned(device="cpu", **data).training.augmentation.mirror_axes == axes


def test_a_given_way_of_mirroring_wins(planned):
    for way in ("blind", "keep", "exchange"):
        assert planned(settings={"training.augmentation.mirror_sides": way}).training.augmentation.mirror_sides == way


def test_left_and_right_are_scored_together(planned):
    assert planned().dataset.groups_of_labels == {"lungs": ["lung_left", "lung_right"]}
    assert planned(label_groups={"all": ("lung_left", "infection")}).dataset.groups_of_labels["all"] == ["lung_left", "infection"]
    assert [both_sides(name) for name in ("lung_left", "L_kidney", "LeftAtrium", "links", "Lunge links")] == [
        "lungs",
        "kidneys",
        "Atriums",
        "both sides",
        "Lunges",
    ]


def test_hu_are_clipped_to_the_foreground(planned):
    ct = planned().intensity["CT"]
    assert ct["hu"].before_resampling == [Clip(do="clip", low=-950, high=120), ZScore(do="zscore", mean=-600, std=300, mask="all")]
    assert ct["windowed"].before_resampling[0] == Rescale(do="rescale", low=0, high=255, to=(-1250, 250), round=False)
    assert ct["windowed"].before_resampling[1:] == ct["hu"].before_resampling
    assert set(ct) == {"hu", "windowed"}


def test_mixed_kinds_are_made_alike(planned):
    plan = planned(kinds=["hu"] * 4 + ["windowed"] * 6)
    ct = plan.intensity["CT"]
    assert ct["hu"].before_resampling == [
        Clip(do="clip", low=-1250, high=250),
        Rescale(do="rescale", low=-1250, high=250, to=(0, 255), round=False),
        OWN,
    ]
    assert ct["windowed"].before_resampling == [OWN]
    assert reason(plan, "intensity.CT").figures["cases"] == {"hu": 4, "windowed": 6}


@pytest.mark.parametrize(("relative", "mask"), [(0.75, "all"), (0.7499, "nonzero")])
def test_mr_is_scaled_case_by_case(planned, relative, mask):
    plan = planned(channels=("MR",), kinds=["arbitrary"] * 10, relative=relative)
    assert plan.intensity == {"MR": plan.intensity["MR"]} and set(plan.intensity["MR"]) == {"arbitrary"}
    assert plan.intensity["MR"]["arbitrary"].before_resampling == [OWN.model_copy(update={"mask": mask})]
    assert plan.configurations["3d_fullres"].normalise_in_mask == [mask == "nonzero"]


def test_crop_decides_which_shapes_count(planned):
    data = {"shape": (100, 200, 200), "crop": (80, 120, 120)}
    assert planned(**data).configurations["3d_fullres"].median_shape == [80, 120, 120]
    assert planned(**data, settings={"crop": "none"}).configurations["3d_fullres"].median_shape == [100, 200, 200]
    assert planned("covid19-ct", **data).configurations["3d_fullres"].median_shape == [100, 200, 200]


@pytest.mark.parametrize(
    ("labels", "background", "weight"), [(None, False, 1 / 3), (None, True, 1 / 4), ({"background": 0, "a": 7}, False, 1)]
)
def test_tversky_is_a_mean_over_classes(planned, labels, background, weight):
    plan = planned(labels=labels, pairs=[], settings={"training.loss.tversky.background": background})
    assert plan.training.loss.tversky.weight == pytest.approx(weight)


def test_regions_and_ignore(planned):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    plan = planned(labels=labels, order=[1, 2, 3], pairs=[])
    back = plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json"), sort_keys=True)))
    label_set = back.dataset.label_set()  # JSON is written sorted: the order of writing must survive that
    assert label_set.names == ("whole", "core", "enhancing")
    assert label_set.region_order == (1, 2, 3)
    assert label_set.values == ((1, 2, 3), (2, 3), (3,))
    assert label_set.ignore == 4
    assert label_set.outputs == 3
    assert label_set == LabelSet.declared(labels, [1, 2, 3])
    assert plan.training.loss.tversky.weight == pytest.approx(1 / 3)


def test_labels_of_any_integers(planned):
    labels = {"background": 0, "zebra": 2, "ant": 255}
    label_set = planned(labels=labels, pairs=[]).dataset.label_set()
    assert label_set == LabelSet.declared(labels)
    assert label_set.names == ("zebra", "ant")
    assert label_set.file_values == (0, 2, 255)


def test_folds_are_never_more_than_patients(planned):
    assert planned(names=["a", "b", "c"]).folds.count == 3
    assert planned(names=list("abcdefgh"), groups=dict.fromkeys("abcdef", "one")).folds.count == 3
    assert planned(names=list("abcdefgh")).folds.count == 5
    given = planned(given_folds=((("case_00",), ("case_01",)),)).folds
    assert (given.source, given.count) == ("dataset", 1)


def test_missing_classes_are_spread(planned):
    assert not planned().folds.stratify
    plan = planned(shown={"case_00": {0: 9, 1: 1, 2: 1}})
    assert plan.folds.stratify
    assert reason(plan, "folds.stratify").figures == {"cases_without": {"infection": 1}}


def test_rotations_suit_the_patch(planned):
    def ranges(plan):
        return next(t for t in plan.training.augmentation.transforms if t.do == "rotate").ranges

    assert ranges(planned()) == {"z": (-30, 30), "y": (-30, 30), "x": (-30, 30)}
    assert ranges(planned("nnunet", shape=(16, 256, 256), spacing=(8.0, 1.0, 1.0))) == {"z": (-180, 180)}
    assert ranges(planned("nnunet", shape=(256, 256, 16), spacing=(1.0, 1.0, 8.0))) == {"x": (-180, 180)}


def test_thin_stacks_are_neither_stretched_nor_coarsened_across_their_slices(planned):
    """The peer's dummy 2D augmentation (section 4.5)."""
    assert planned("nnunet").training.augmentation.thick_axis is None
    assert planned("nnunet", shape=(16, 256, 256), spacing=(8.0, 1.0, 1.0)).training.augmentation.thick_axis == 0
    assert planned("nnunet", shape=(256, 256, 16), spacing=(1.0, 1.0, 8.0)).training.augmentation.thick_axis == 2


def test_explanation_can_be_followed(planned):
    plan = planned(kinds=["hu"] * 4 + ["windowed"] * 6)
    page = explain(plan)
    for words in (
        "4 cases are in Hounsfield units and 6 cases are windowed",
        "lung_left / lung_right",
        "It would be another if",
        "made for cpu",
        "3d_fullres *",
    ):
        assert " ".join(words.split()) in " ".join(page.split())
    assert max(map(len, page.splitlines())) <= 140


def test_every_decision_of_a_configuration_has_a_reason(planned):
    plan = planned(**THIN)
    decisions = {r.decision for r in plan.reasons}
    for name in ("2d", "3d_lowres", "3d_fullres"):
        assert {f"configurations.{name}.patch_size", f"configurations.{name}.batch_size"} <= decisions
    assert {
        "configurations.3d_fullres.spacing",
        "configurations.3d_lowres.spacing",
        "intensity.CT",
        "training.augmentation.mirror_sides",
        "training.loss.tversky.weight",
        "folds.count",
        "default_configurations",
    } <= decisions
    assert all(r.because and r.would_change_if for r in plan.reasons)
    spacing = reason(plan, "configurations.3d_fullres.spacing")
    assert spacing.figures["median_spacing"] == [1.0, 0.8, 0.8] and spacing.figures["cases"] == 10
