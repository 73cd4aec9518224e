"""The loss against the paper's check values, hand computations and a plain one-hot reference."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.planning.schema import LossPlan
from autoseg.training import tversky_cross_entropy
from autoseg.training.loss import deep_supervision_loss, downsample_nearest, level_weights, make_loss

LN4 = math.log(4)
CLASSES = LabelSet.declared({"background": 0, "a": 1, "b": 2})


def reference(logits, target, *, fn=0.5, fp=0.5, s=1e-6, background=True, pool="sample", power=1.0, regions=False):
    """The formulae of the docstring in numpy float64, one-hot and all; no ignored voxels. (tversky, cross_entropy)."""
    z = logits.double().numpy()
    n = z.shape[1]
    if regions:
        y = target.double().numpy()
        p = 1 / (1 + np.exp(-z))
        cross_entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    else:
        y = np.moveaxis(np.eye(n)[target.numpy()], -1, 1)
        e = np.exp(z - z.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        cross_entropy = -(y * np.log(p)).sum(1).mean()
    axes = tuple(range(2, z.ndim)) if pool == "sample" else (0, *range(2, z.ndim))
    tp, missed, false = (y * p).sum(axes), (y * (1 - p)).sum(axes), ((1 - y) * p).sum(axes)
    index = np.atleast_2d((tp + s) / (tp + fn * missed + fp * false + s))
    if not background:
        index = index[:, 1:]
    return ((1 - index) ** power).sum(1).mean(), cross_entropy


def example(batch=2, classes=3, shape=(4, 5, 6), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *shape, generator=generator, dtype=dtype)
    return logits, torch.randint(0, classes, (batch, *shape), generator=generator)


def plan(**changes) -> LossPlan:
    tversky = {"weight": 1.0, "fn_weight": 0.5, "fp_weight": 0.5, "smoothing": 1e-6, "background": True, "power": 1.0, "class_weight": None}
    cross_entropy = {"weight": 1.0, "top_k": None}
    for name, value in changes.items():
        part, _, key = name.partition("__")
        {"tversky": tversky, "cross_entropy": cross_entropy}.get(part, {})[key] = value
    return LossPlan(tversky=tversky, cross_entropy=cross_entropy, factory=changes.get("factory"))


def test_uniform_probabilities_cost_what_the_paper_text_says():
    """Item 13: shares .90, .045, .045, .01 give 3.437 + 1.386 = 4.823."""
    target = torch.repeat_interleave(torch.arange(4), torch.tensor([900, 45, 45, 10])).view(1, 10, 10, 10)
    loss, parts = tversky_cross_entropy(torch.zeros(1, 4, 10, 10, 10), target)
    assert float(parts["tversky"]) == pytest.approx(3.437, abs=5e-4)
    assert float(parts["cross_entropy"]) == pytest.approx(LN4, abs=1e-6)
    assert float(loss) == pytest.approx(4.823, abs=5e-4)


def test_a_perfect_prediction_costs_nothing():
    target = torch.randint(0, 4, (2, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = 100.0 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    loss, parts = tversky_cross_entropy(logits, target)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(parts["dice"], torch.ones(4))


def test_a_class_that_is_absent_costs_one_until_it_is_no_longer_predicted():
    """Item 13's remark; here class 2 never occurs."""
    target = torch.zeros(1, 1000, dtype=torch.long)
    for confidence, cost in ((10.0, 1.0), (60.0, 0.0)):
        logits = torch.zeros(1, 3, 1000)
        logits[:, 0] = confidence
        _, parts = tversky_cross_entropy(logits, target)
        assert float(parts["tversky"]) == pytest.approx(2 * cost, abs=2e-3)
        assert parts["dice"].isnan().tolist() == [False, True, True]


def test_four_voxels_by_hand():
    """Two classes, p of class 1: .8, .4 (true), .3, .1 (false): TP 1.2, FN .8, FP .4; background TP 1.6, FN .4, FP .8."""
    p = torch.tensor([0.8, 0.4, 0.3, 0.1])
    logits = torch.stack([torch.log(1 - p), torch.log(p)])[None]
    target = torch.tensor([[1, 1, 0, 0]])
    foreground, background = 1.2 / (1.2 + 0.7 * 0.8 + 0.3 * 0.4), 1.6 / (1.6 + 0.7 * 0.4 + 0.3 * 0.8)
    cross_entropy = -(math.log(0.8) + math.log(0.4) + math.log(0.7) + math.log(0.9)) / 4
    weights = {"fn_weight": 0.7, "fp_weight": 0.3, "smoothing": 0.0}
    loss, parts = tversky_cross_entropy(logits, target, **weights)
    assert float(parts["tversky"]) == pytest.approx(2 - foreground - background, rel=1e-5)
    assert float(parts["cross_entropy"]) == pytest.approx(cross_entropy, rel=1e-5)
    assert float(loss) == pytest.approx(float(parts["tversky"] + parts["cross_entropy"]))
    assert parts["dice"].tolist() == pytest.approx([3.2 / 4.4, 2.4 / 3.6], rel=1e-5)
    _, without = tversky_cross_entropy(logits, target, background=False, **weights)
    assert float(without["tversky"]) == pytest.approx(1 - foreground, rel=1e-5)
    _, focal = tversky_cross_entropy(logits, target, power=0.75, class_weight=[0.5, 2], **weights)
    assert float(focal["tversky"]) == pytest.approx(0.5 * (1 - background) ** 0.75 + 2 * (1 - foreground) ** 0.75, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    classes=st.integers(2, 5),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    fn=st.floats(0.1, 0.9),
    s=st.floats(1e-6, 5),
    background=st.booleans(),
    pool=st.sampled_from(["sample", "batch"]),
    power=st.floats(0.5, 2),
    regions=st.booleans(),
)
def test_it_equals_the_one_hot_formula(seed, batch, classes, shape, fn, s, background, pool, power, regions):
    logits, target = example(batch, classes, tuple(shape), seed)
    if regions:
        target = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
    options = {"background": background, "pool": pool, "power": power, "regions": regions}
    _, parts = tversky_cross_entropy(logits, target, fn_weight=fn, fp_weight=1 - fn, smoothing=s, **options)
    expected = reference(logits, target, fn=fn, fp=1 - fn, s=s, **{**options, "background": background or regions})
    assert float(parts["tversky"]) == pytest.approx(expected[0], rel=1e-4, abs=1e-5)
    assert float(parts["cross_entropy"]) == pytest.approx(expected[1], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("options", [{}, {"power": 0.75, "class_weight": [1, 2, 3]}, {"top_k": 0.3}, {"background": False}, {"ignore": 1}])
@pytest.mark.parametrize("regions", [False, True])
def test_the_gradient_is_right(pool, options, regions):
    logits, target = example(shape=(2, 3), dtype=torch.float64)
    if regions:
        target = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(1)).double()
        options = {**options, "ignore": 2} if "ignore" in options else options
        target[0, :, 0] = 2 if "ignore" in options else 0
    weights = torch.tensor([2.0, 3.0], dtype=torch.float64)

    def parts(x):
        found = tversky_cross_entropy(x, target, fn_weight=0.7, fp_weight=0.3, smoothing=0.1, pool=pool, regions=regions, **options)[1]
        return weights[0] * found["tversky"] + weights[1] * found["cross_entropy"]

    assert torch.autograd.gradcheck(parts, logits.requires_grad_())


def test_at_one_half_it_is_the_soft_dice_with_twice_the_smoothing():
    logits, target = example()
    p, y = logits.softmax(1), torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    for smoothing in (1e-6, 0.5, 3.0):
        dice = (2 * (p * y).sum((2, 3, 4)) + 2 * smoothing) / (p.sum((2, 3, 4)) + y.sum((2, 3, 4)) + 2 * smoothing)
        _, parts = tversky_cross_entropy(logits, target, smoothing=smoothing)
        assert float(parts["tversky"]) == pytest.approx(float(3 - dice.sum(1).mean()), rel=1e-5)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_plan_can_say_the_peers_loss(batch_dice):
    """Section 4.7: CE minus the mean Dice without background, smoothing 1e-5; ours is greater by 1 exactly."""
    logits, target = example(classes=4, seed=3)
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    p, y = logits.softmax(1), torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    dice = ((2 * (p * y).sum(axes) + 1e-5) / (p.sum(axes) + y.sum(axes) + 1e-5).clamp(min=1e-8))[..., 1:]
    peer = torch.nn.functional.cross_entropy(logits, target) - dice.mean()
    labels = LabelSet.declared({"background": 0, "a": 1, "b": 2, "c": 3})
    loss = make_loss(plan(tversky__weight=1 / 3, tversky__smoothing=5e-6, tversky__background=False), labels, pool_over_batch=batch_dice)
    assert float(loss(logits, target)[0]) == pytest.approx(float(peer) + 1, rel=1e-5)


def test_pooling_over_the_batch_sums_before_it_divides():
    """Equal to one sample that holds both, and not the mean of the two samples."""
    logits, target = example(shape=(4, 4, 4))
    target[0] = 0
    joined = torch.cat([logits[0], logits[1]], dim=1)[None], torch.cat([target[0], target[1]])[None]
    batch = tversky_cross_entropy(logits, target, pool="batch")[1]["tversky"]
    assert float(batch) == pytest.approx(float(tversky_cross_entropy(*joined)[1]["tversky"]), rel=1e-5)
    singles = [tversky_cross_entropy(logits[i : i + 1], target[i : i + 1])[1]["tversky"] for i in (0, 1)]
    sample = tversky_cross_entropy(logits, target)[1]["tversky"]
    assert float(sample) == pytest.approx(float(sum(singles)) / 2, rel=1e-5)
    assert float(batch) != pytest.approx(float(sample), rel=1e-2)


@pytest.mark.parametrize("options", [{}, {"pool": "batch"}, {"top_k": 0.4}, {"background": False, "power": 0.75}])
@pytest.mark.parametrize("ignore", [3, 255, -1, 1])
def test_ignored_voxels_change_nothing_and_get_no_gradient(options, ignore):
    logits, target = example()
    target[:, :2] = ignore
    hidden = target == ignore
    results = []
    for noise in (0.0, 50.0, float("nan")):
        x = logits.clone()
        x.masked_fill_(hidden[:, None], noise)
        x.requires_grad_()
        loss, parts = tversky_cross_entropy(x, target, ignore=ignore, **options)
        loss.backward()
        assert not x.grad.masked_select(hidden[:, None].expand_as(x)).any()
        assert x.grad.masked_select(~hidden[:, None].expand_as(x)).abs().max() > 0
        numbers = [loss, parts["tversky"], parts["cross_entropy"], *parts["dice"].nan_to_num()]
        results.append(torch.stack(numbers).detach())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_count_as_if_they_were_cut_away(regions):
    logits, target = example(shape=(6, 4))
    if regions:
        target = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    expected, _ = tversky_cross_entropy(logits[:, :, :4], target[..., :4, :], regions=regions)
    target[..., 4:, :] = 7
    found, _ = tversky_cross_entropy(logits, target, regions=regions, ignore=7)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"top_k": 0.1}, {"pool": "batch", "smoothing": 0.0}])
def test_where_nobody_annotated_there_is_no_loss(options):
    logits, target = example()
    logits.requires_grad_()
    loss, _ = tversky_cross_entropy(logits, torch.full_like(target, 3), ignore=3, **options)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_regions_overlap_and_each_stands_alone():
    """Every channel is its own two-class problem; sums per channel by hand."""
    p = torch.tensor([[[0.9, 0.6, 0.2, 0.1], [0.7, 0.3, 0.5, 0.2]]])
    target = torch.tensor([[[1.0, 1, 0, 0], [1, 0, 0, 0]]])
    _, parts = tversky_cross_entropy(torch.logit(p), target, regions=True, smoothing=0.0, background=False)
    dice = [2 * 1.5 / (2 + 1.8), 2 * 0.7 / (1 + 1.7)]
    likelihoods = [0.9, 0.6, 0.8, 0.9, 0.7, 0.7, 0.5, 0.8]
    assert float(parts["tversky"]) == pytest.approx(2 - sum(dice), rel=1e-5)
    assert float(parts["cross_entropy"]) == pytest.approx(-sum(map(math.log, likelihoods)) / 8, rel=1e-5)
    assert parts["dice"].tolist() == pytest.approx(dice, rel=1e-5)


def test_top_k_is_the_mean_over_the_hardest_voxels_of_the_batch():
    logits, target = example(shape=(5, 10))
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none").flatten()
    for share, number in ((0.1, 10), (0.29, 29), (1.0, 100), (0.001, 1)):
        _, parts = tversky_cross_entropy(logits, target, top_k=share)
        assert float(parts["cross_entropy"]) == pytest.approx(float(each.sort(descending=True).values[:number].mean()), rel=1e-5)


def test_top_k_is_a_share_of_the_annotated_voxels():
    logits, target = example(shape=(5, 10))
    target[:, :3] = 9
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none", ignore_index=9)[target != 9]
    for share, number in ((0.3, 12), (1.0, 40), (0.001, 1)):
        _, parts = tversky_cross_entropy(logits, target, top_k=share, ignore=9)
        assert float(parts["cross_entropy"]) == pytest.approx(float(losses.sort(descending=True).values[:number].mean()), rel=1e-5)
    _, parts = tversky_cross_entropy(logits, torch.full_like(target, 9), top_k=0.3, ignore=9)
    assert float(parts["cross_entropy"]) == 0


def test_power_keeps_a_finite_gradient_where_the_prediction_is_perfect():
    target = torch.zeros(1, 8, dtype=torch.long)
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1).repeat(1, 1, 8).requires_grad_()
    loss, _ = tversky_cross_entropy(logits, target, power=0.5)
    loss.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("regions", [False, True])
def test_half_precision_logits_are_summed_in_float32(dtype, regions):
    """300,000 voxels of .5 would overflow float16 and stick at 256 in bfloat16."""
    logits = torch.zeros(1, 2, 300_000, dtype=dtype, requires_grad=True)
    target = torch.zeros(1, 300_000, dtype=torch.long)
    if regions:
        target = torch.stack([torch.ones(1, 300_000), torch.zeros(1, 300_000)], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, parts = tversky_cross_entropy(logits, target, regions=regions)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == dtype
    parts = {name: part.detach() for name, part in parts.items()}
    assert float(parts["cross_entropy"]) == pytest.approx(math.log(2), rel=1e-5)
    assert float(parts["tversky"]) == pytest.approx(2 - 2 / 3, rel=1e-5)


def test_large_logits_are_stable():
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]]], requires_grad=True)
    loss, parts = tversky_cross_entropy(logits, torch.tensor([[0, 0]]))
    loss.backward()
    assert float(parts["cross_entropy"].detach()) == pytest.approx(1e4, rel=1e-5)
    assert logits.grad.isfinite().all()


def test_large_sums_are_exact_enough():
    """A running float32 sum would lose .1 % over four million voxels; these may lose a millionth."""
    logits = torch.zeros(1, 2, 4_000_000)
    logits[:, 0] = math.log(9)
    _, parts = tversky_cross_entropy(logits, torch.zeros(1, 4_000_000, dtype=torch.long), background=True)
    assert float(parts["dice"][0]) == pytest.approx(1.8 / 1.9, rel=1e-6)


def test_the_layout_of_the_logits_does_not_matter():
    logits, target = example(classes=4)
    last = logits.to(memory_format=torch.channels_last_3d)
    assert not last.is_contiguous()
    grads = []
    for x in (logits, last):
        x = x.detach().requires_grad_()
        tversky_cross_entropy(x, target)[0].backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_shapes_that_do_not_belong_together_are_named():
    logits, target = example()
    with pytest.raises(ValueError, match=r"\(2, 4, 5, 6\)"):
        tversky_cross_entropy(logits, target[:, None])
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5, 6\)"):
        tversky_cross_entropy(logits, target, regions=True)
    with pytest.raises(ValueError, match="pool"):
        tversky_cross_entropy(logits, target, pool="voxel")
    with pytest.raises(ValueError, match="class_weight"):
        tversky_cross_entropy(logits, target, class_weight=[1, 2])


def test_the_planned_loss_weighs_its_terms_and_shows_them_unweighted():
    logits, target = example()
    logits.requires_grad_()
    loss, parts = make_loss(plan(tversky__weight=0.25, cross_entropy__weight=2.0), CLASSES, pool_over_batch=False)(logits, target)
    assert float(loss.detach()) == pytest.approx(float(0.25 * parts["tversky"] + 2 * parts["cross_entropy"]), rel=1e-6)
    assert not any(part.requires_grad for part in parts.values())
    loss.backward()
    assert logits.grad.abs().max() > 0


def test_the_planned_loss_knows_regions_and_ignored_voxels_from_the_labels():
    labels = LabelSet.declared({"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, [1, 2])
    logits = torch.randn(2, 2, 4, 4)
    target = torch.randint(0, 2, (2, 2, 4, 4)).float()
    target[:, :, 0] = labels.ignore_index
    _, parts = make_loss(plan(), labels, pool_over_batch=True)(logits, target)
    _, expected = tversky_cross_entropy(logits[:, :, 1:], target[:, :, 1:], regions=True, pool="batch")
    assert float(parts["tversky"]) == pytest.approx(float(expected["tversky"]), rel=1e-5)
    assert float(parts["cross_entropy"]) == pytest.approx(float(expected["cross_entropy"]), rel=1e-5)


def test_a_loss_of_ones_own_is_used(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(
        "def counted(loss_plan, outputs):\n    return lambda logits, target: (logits.sum() * outputs, {'mine': logits.sum()})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loss = make_loss(plan(factory="my_losses:counted"), CLASSES, pool_over_batch=False)
    assert float(loss(torch.ones(1, 3, 2), None)[0]) == 18
    with pytest.raises(PlanError, match="my_losses:absent"):
        make_loss(plan(factory="my_losses:absent"), CLASSES, pool_over_batch=False)
    sys.modules.pop("my_losses", None)


def test_levels_weigh_half_as_much_each_and_the_lowest_nothing():
    """Section 4.7's example of six stages."""
    assert level_weights(5) == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15, 0))
    assert level_weights(2) == (1, 0)
    assert level_weights(1) == (1,)


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3, 5), (1, 1), (4, 8)])
def test_targets_are_brought_to_size_as_nearest_exact_does(shape):
    target = torch.randint(0, 9, (2, 4, 8), generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(target[:, None].float(), shape, mode="nearest-exact")[:, 0].long()
    assert torch.equal(downsample_nearest(target, shape), expected)
    assert torch.equal(downsample_nearest(target[:, None].repeat(1, 3, 1, 1), shape)[:, 1], expected)


def test_deep_supervision_sums_the_levels_and_shows_the_full_resolution():
    logits, target = example(shape=(8, 8))
    lower, lowest = torch.randn(2, 3, 4, 8), torch.full((2, 3, 2, 4), torch.nan)
    single = make_loss(plan(), CLASSES, pool_over_batch=False)
    loss, parts = deep_supervision_loss(single)([logits, lower, lowest], target)
    expected = 2 / 3 * single(logits, target)[0] + 1 / 3 * single(lower, target[:, 1::2])[0]
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert torch.equal(parts["tversky"], single(logits, target)[1]["tversky"])
    assert torch.equal(deep_supervision_loss(single)(logits, target)[0], single(logits, target)[0])


def test_a_data_worker_does_not_pay_for_torch():
    """`import autoseg.training` alone imports no torch; its public names are there all the same."""
    import subprocess

    code = "import sys, autoseg.training as t; assert 'torch' not in sys.modules; t.tversky_cross_entropy; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
