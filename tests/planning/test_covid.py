"""covid19-ct holds every setting of the paper, items 1 to 20, as plan values (paper.md, rulings R1 to R22)."""

from __future__ import annotations

import pytest

from autoseg.errors import PlanError
from autoseg.planning.forecast import parameters
from autoseg.planning.schema import Clip, Rescale, ZScore
from autoseg.planning.splitting import make_folds

TWENTY = [
    *(f"coronacases_{i:03d}" for i in range(1, 11)),
    *(
        f"radiopaedia_{i}"
        for i in (
            "10_85902_1",
            "10_85902_3",
            "14_85914_0",
            "27_86410_0",
            "29_86490_1",
            "29_86491_1",
            "36_86526_0",
            "40_86625_0",
            "4_85506_1",
            "7_85703_0",
        )
    ),
]
ITEM_3 = [
    "cor004 cor009 rad27_86410_0 rad36_86526_0",
    "cor001 rad10_85902_1 rad14_85914_0 rad29_86491_1",
    "cor007 cor008 rad10_85902_3 rad40_86625_0",
    "cor010 rad29_86490_1 rad4_85506_1 rad7_85703_0",
    "cor002 cor003 cor005 cor006",
]


@pytest.fixture
def paper(planned):
    kinds = ["hu"] * 10 + ["windowed"] * 10
    return planned("covid19-ct", names=TWENTY, kinds=kinds)


def test_item_1_task(paper):
    assert paper.dataset.label_set().names == ("lung_left", "lung_right", "infection")
    assert paper.dataset.label_set().outputs == 4
    assert paper.dataset.channels == ["CT"]


def test_item_2_median_shape(paper):
    assert paper.configurations["3d_fullres"].median_shape == [104, 254, 267]  # paper: 267 x 254 x 104 (x, y, z)


def test_item_3_splits(paper):
    f = paper.folds
    assert (f.count, f.seed, f.stratify, f.source) == (5, 12345, False, "kfold")
    folds = make_folds(TWENTY, f)
    short = [" ".join(sorted(c.replace("coronacases_", "cor").replace("radiopaedia_", "rad") for c in fold.held_out)) for fold in folds]
    assert short == [" ".join(sorted(line.split())) for line in ITEM_3]
    assert all(len(fold.train) == 16 and not set(fold.train) & set(fold.held_out) for fold in folds)


def test_items_4_5_7_intensity(paper):
    gray = Rescale(do="rescale", low=None, high=None, to=(0, 255), round=True)
    zscore = ZScore(do="zscore", mean=None, std=None, mask="all")
    hu, windowed = paper.intensity["CT"]["hu"], paper.intensity["CT"]["windowed"]
    assert hu.before_resampling == [Clip(do="clip", low=-1250, high=250), gray]
    assert windowed.before_resampling == [gray]
    assert hu.after_resampling == windowed.after_resampling == [zscore]
    assert paper.configurations["3d_fullres"].normalise_in_mask == [False]


def test_item_6_resampling(paper):
    c = paper.configurations["3d_fullres"]
    assert c.spacing == [2.70, 1.58, 1.58]
    assert c.transpose is None
    assert c.crop == "none"
    assert c.resampling.size == "floor"
    assert (c.resampling.image.order, c.resampling.image.across) == (3, "none")
    assert (c.resampling.labels.order, c.resampling.labels.rule, c.resampling.labels.across) == (1, "half", "none")


def test_item_8_patch_batch_epoch(paper):
    c, t = paper.configurations["3d_fullres"], paper.training
    assert c.patch_size == [80, 160, 160]
    assert c.batch_size == 2
    assert t.oversampling.foreground == 0
    assert t.case_order == "shuffled_queue"
    assert t.steps_per_epoch == 150
    assert c.padding.train == "zero"


def test_items_9_10_augmentation(paper):
    a = paper.training.augmentation
    assert [t.do for t in a.transforms] == ["contrast", "brightness", "gamma", "noise", "elastic", "rotate", "scale"]
    assert {t.probability for t in a.transforms} == {0.15}
    assert {t.channel_probability for t in a.transforms} == {1}
    assert not any(t.invert for t in a.transforms)
    ranges = {t.do: t.ranges for t in a.transforms}
    assert ranges == {
        "contrast": {"factor": (0.3, 3)},
        "brightness": {"factor": (0.5, 2)},
        "gamma": {"exponent": (0.7, 1.5)},
        "noise": {"deviation": (0, 0.05)},
        "elastic": {"alpha": (0, 900), "sigma": (9, 13)},
        "rotate": {"z": (-15, 15), "y": (-15, 15), "x": (-15, 15)},
        "scale": {"factor": (0.85, 1.25)},
    }
    assert (a.conventions, a.thick_axis, a.plug_ins) == ("batchgenerators", None, [])
    assert (a.mirror_axes, a.mirror_probability, a.mirror_sides) == ([0, 1, 2], 0.5, "blind")
    assert a.interpolation == (3, 0)
    assert a.statistics == "volume"
    assert a.backend == "native"


def test_items_11_12_network(paper):
    n = paper.configurations["3d_fullres"].network
    assert (n.kind, n.factory, n.dimension, n.features) == ("unet", None, 3, [32, 64, 128, 256, 512])
    assert n.strides == [[1, 1, 1]] + [[2, 2, 2]] * 4
    assert n.kernels == [[3, 3, 3]] * 5
    assert (n.blocks.encoder, n.blocks.decoder) == ([2] * 5, [2] * 4)
    assert n.downsampling == "max_pool"
    assert (n.norm.name, n.norm.momentum, n.norm.eps) == ("batch", 0.01, 1e-3)
    assert (n.activation, n.order_of_layers, n.initialisation, n.dropout) == ("relu", "conv-activation-norm", "glorot_uniform", 0)
    assert n.divisor == (16, 16, 16)
    assert parameters(n, 1, 4) == 22_581_316
    assert not paper.training.deep_supervision


def test_item_13_loss(paper):
    loss = paper.training.loss
    assert loss.tversky.model_dump() == {
        "weight": 1,
        "fn_weight": 0.5,
        "fp_weight": 0.5,
        "smoothing": 1e-6,
        "background": True,
        "power": 1,
        "class_weight": None,
    }
    assert (loss.cross_entropy.weight, loss.cross_entropy.top_k, loss.factory) == (1, None, None)
    assert paper.configurations["3d_fullres"].pool_loss_over_batch is False


def test_item_14_optimiser_and_rate(paper):
    o, s = paper.training.optimiser, paper.training.schedule
    assert (o.name, o.lr, o.momentum, o.beta2, o.eps, o.weight_decay) == ("adam", 1e-3, 0.9, 0.999, 1e-7, 0)
    assert paper.training.gradient_clip is None
    assert (s.name, s.patience, s.factor, s.threshold, s.min_lr, s.warmup) == ("plateau", 14, 0.1, 1e-4, 1e-5, 0)


def test_item_15_stop_and_checkpoint(paper):
    t = paper.training
    assert (t.epochs, t.early_stop, t.budget_seconds) == (1000, 100, None)
    assert t.predict_with == "best_training_loss"
    assert t.weight_average is None
    assert (t.validation.batches, t.validation.augment) == (2, False)
    assert t.start.weights is None


def test_items_16_17_inference(paper):
    p, c = paper.prediction, paper.configurations["3d_fullres"]
    assert (p.overlap, p.tiles, p.weighting, p.average, p.batch_tiles) == (0.5, "regular", "uniform", "probabilities", 2)
    assert p.resize == "labels"
    assert p.test_time_mirrors == []
    assert c.padding.predict == "minimum"
    assert paper.postprocessing == []


def test_items_18_19_evaluation(paper):
    e = paper.evaluation
    assert {"dice", "sensitivity", "specificity", "iou", "precision"} == set(e.metrics)
    assert e.summary == "median"
    assert e.empty_rule == "count"
    assert paper.dataset.groups_of_labels == {"lungs": ["lung_left", "lung_right"]}


def test_item_20_one_configuration_and_reading(paper):
    assert paper.default_configurations == ["3d_fullres"] == list(paper.configurations)
    assert paper.dataset.orientation == "lps"


def test_sides_recipe_differs_in_sides_alone(paper, planned):
    other = planned("covid19-ct-sides", names=TWENTY, kinds=["hu"] * 10 + ["windowed"] * 10)
    assert other.training.augmentation.mirror_sides == "exchange"
    blind = other.training.augmentation.model_copy(update={"mirror_sides": "blind"})
    assert other.training.model_copy(update={"augmentation": blind}) == paper.training
    assert other.configurations == paper.configurations
    assert other.intensity == paper.intensity


def test_patch_shrinks_where_the_scans_are_smaller(planned):
    plan = planned("covid19-ct", shape=(40, 300, 130))
    c = plan.configurations["3d_fullres"]
    assert c.patch_size == [48, 160, 144]  # 40 and 130 rounded up to 16
    reason = next(r for r in plan.reasons if r.decision == "configurations.3d_fullres.patch_size")
    assert "shrinks on axis 0, 2" in reason.because
    assert reason.figures["median_shape"] == [40, 300, 130]


def test_spacing_shrinks_where_the_scans_are_small(planned):
    plan = planned("covid19-ct", shape=(35, 51, 36), spacing=(1.0, 1.0, 1.0))
    c = plan.configurations["3d_fullres"]
    assert c.spacing == [pytest.approx(35 / 16), 1.58, 1.58]  # 35 mm on 16 voxels; 51 and 36 mm give enough
    assert min(c.median_shape) >= 16
    assert "finer here" in next(r for r in plan.reasons if r.decision == "configurations.3d_fullres.spacing").because
    never_finer = planned("covid19-ct", shape=(8, 512, 512), spacing=(2.0, 0.7, 0.7)).configurations["3d_fullres"]
    assert never_finer.spacing[0] == 2.0


def test_2d_images_are_refused(planned):
    with pytest.raises(PlanError, match="2D images"):
        planned("covid19-ct", shape=(1, 300, 300), spacing=(1, 1, 1), planar=True)
