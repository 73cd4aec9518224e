"""The marginal loss: on a case that annotates only some classes, background stands for all the others too."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.planning.schema import CrossEntropyPlan, LossPlan, TverskyPlan
from autoseg.preprocessing.store import write_case
from autoseg.training import tversky_cross_entropy
from autoseg.training.loss import deep_supervision_loss, knows_present, make_loss

CLASSES = LabelSet.declared({"background": 0, "a": 1, "b": 2, "c": 3})
WITHOUT_B = [[True, True, False, True], [True, True, True, True]]  # the first of two samples
OPTIONS = [
    {},
    {"background": False},
    {"top_k": 0.3},
    {"power": 0.75, "class_weight": [0.5, 2.0, 3.0, 1.0]},
    {"ignore": 9},
    {"fn_weight": 0.7, "fp_weight": 0.3, "smoothing": 0.5},
]


def example(shape=(5, 6), seed=0):
    """Two samples of four classes; the first shows class b (2) nowhere, since nobody annotated it there."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, *shape, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (2, *shape), generator=generator)
    target[0][target[0] == 2] = 0
    return logits, target


def moved_mass(logits: torch.Tensor, amount: float) -> torch.Tensor:
    """The logits of the same probabilities after a share of class b's, in the first sample, went over to background."""
    p = logits.softmax(1)
    share = amount * p[0, 2]
    p[0, 0] += share
    p[0, 2] -= share
    return p.log()


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("options", OPTIONS)
def test_mass_moved_between_background_and_a_class_that_nobody_annotated_changes_nothing(pool, options):
    logits, target = example()
    if "ignore" in options:
        target[:, 1] = 9
    arguments = {"pool": pool, **options}
    losses = [
        float(tversky_cross_entropy(moved_mass(logits, share), target, present=WITHOUT_B, **arguments)[0]) for share in (0, 0.4, 0.999)
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-12)
    # and it would change something if all were annotated
    before, after = (float(tversky_cross_entropy(moved_mass(logits, share), target, **arguments)[0]) for share in (0, 0.999))
    assert before != pytest.approx(after, rel=0.02)


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_gradient_along_that_direction_is_zero(pool, options):
    """Along p_background + t, p_b - t the logits change by 1/p_background and -1/p_b."""
    logits, target = example()
    if "ignore" in options:
        target[:, 1] = 9
    logits.requires_grad_()
    tversky_cross_entropy(logits, target, pool=pool, present=WITHOUT_B, **options)[0].backward()
    p = logits.detach().softmax(1)
    along = logits.grad[0, 0] / p[0, 0] - logits.grad[0, 2] / p[0, 2]
    assert along.abs().max() < 1e-12
    assert (logits.grad[1, 0] / p[1, 0] - logits.grad[1, 2] / p[1, 2]).abs().max() > 1e-4  # the other sample annotates it
    assert logits.grad[0, 2].abs().max() > 1e-4  # class b still learns that it is not a or c


@pytest.mark.parametrize("background", [True, False])
def test_it_is_the_loss_of_the_coarser_problem(background):
    """A case without b and c: two classes are left, background with b and c, and a; by numpy from the summed probabilities."""
    logits, target = example()
    target[0][target[0] == 3] = 0
    p, t = logits[0].softmax(0).numpy(), target[0].numpy()
    rest, a = p[[0, 2, 3]].sum(0), p[1]
    cross_entropy = -np.log(np.where(t == 1, a, rest)).mean()
    index = {
        "a": 2 * (a * (t == 1)).sum() / (a.sum() + (t == 1).sum()),
        "rest": 2 * (rest * (t == 0)).sum() / (rest.sum() + (t == 0).sum()),
    }
    _, parts = tversky_cross_entropy(logits[:1], target[:1], present=[[True, True, False, False]], smoothing=0.0, background=background)
    assert float(parts["cross_entropy"]) == pytest.approx(cross_entropy, rel=1e-12)
    assert float(parts["tversky"]) == pytest.approx(1 - index["a"] + background * (1 - index["rest"]), rel=1e-12)
    assert parts["dice"][:2].tolist() == pytest.approx([index["rest"], index["a"]])
    assert parts["dice"][2:].isnan().all()


def test_two_voxels_by_hand():
    """p = (.2, .3, .5) and (.1, .6, .3); the truth says background and a, and nobody annotated b.

    Cross-entropy: -(log(.2 + .5) + log .6) / 2. a: TP .6, FP .3, FN .4. Background with b: TP .7, FP .4, FN .3.
    """
    logits = torch.tensor([[[0.2, 0.1], [0.3, 0.6], [0.5, 0.3]]]).log()
    _, parts = tversky_cross_entropy(
        logits, torch.tensor([[0, 1]]), fn_weight=0.8, fp_weight=0.2, smoothing=0.0, present=[[True, True, False]]
    )
    assert float(parts["cross_entropy"]) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2, rel=1e-6)
    a, rest = 0.6 / (0.6 + 0.2 * 0.3 + 0.8 * 0.4), 0.7 / (0.7 + 0.2 * 0.4 + 0.8 * 0.3)
    assert float(parts["tversky"]) == pytest.approx(2 - a - rest, rel=1e-6)


def test_pooled_sums_of_a_class_run_over_the_samples_that_annotate_it():
    """By numpy: class b's sums come from the second sample, a's and c's from both; background's hold b's mass in the first."""
    logits, target = example()
    p = logits.softmax(1).numpy()
    p[0, 0] += p[0, 2]
    p[0, 2] = 0
    y = np.moveaxis(np.eye(4)[target.numpy()], -1, 1)
    axes = (0, 2, 3)
    index = 2 * (p * y).sum(axes) / (p.sum(axes) + y.sum(axes))
    _, parts = tversky_cross_entropy(logits, target, pool="batch", smoothing=0.0, present=WITHOUT_B)
    assert float(parts["tversky"]) == pytest.approx(4 - index.sum(), rel=1e-12)
    assert parts["dice"].tolist() == pytest.approx(index.tolist())
    only_b_of_second = 2 * (p[1, 2] * y[1, 2]).sum() / (p[1, 2].sum() + y[1, 2].sum())
    assert index[2] == pytest.approx(only_b_of_second)


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize("options", [*OPTIONS, {"smoothing": 0.0}])
def test_a_class_that_no_sample_annotates_has_no_term(pool, options):
    logits, target = example()
    target[target == 2] = 0
    logits.requires_grad_()
    loss, parts = tversky_cross_entropy(logits, target, pool=pool, present=[[True, True, False, True]] * 2, **options)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert parts["dice"][2].isnan()
    weights = {**options, **({"class_weight": [0.5, 2.0, 1.0]} if "class_weight" in options else {})}
    merged = torch.stack([logits[:, [0, 2]].logsumexp(1), logits[:, 1], logits[:, 3]], 1)
    three = torch.where(target == 3, 2, target)
    assert float(loss.detach()) == pytest.approx(float(tversky_cross_entropy(merged, three, pool=pool, **weights)[0].detach()), rel=1e-12)


@pytest.mark.parametrize("pool", ["sample", "batch"])
@pytest.mark.parametrize(
    "options", [{}, {"power": 0.75, "class_weight": [1, 2, 3, 4]}, {"top_k": 0.3}, {"background": False}, {"ignore": 1}]
)
@pytest.mark.parametrize("regions", [False, True])
def test_the_gradient_is_right(pool, options, regions):
    logits, target = example(shape=(2, 3))
    if regions:
        target = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(1)).double()
        options = {**options, "ignore": 2} if "ignore" in options else options
        target[0, :, 0] = 2 if "ignore" in options else 0

    def parts(x):
        found = tversky_cross_entropy(x, target, smoothing=0.1, pool=pool, regions=regions, present=WITHOUT_B, **options)[1]
        return 2 * found["tversky"] + 3 * found["cross_entropy"]

    assert torch.autograd.gradcheck(parts, logits.requires_grad_())


@pytest.mark.parametrize("options", [{}, {"pool": "batch"}, {"top_k": 0.5}, {"ignore": 7}, {"class_weight": [1.0, 2.0, 3.0, 4.0]}])
def test_regions_that_nobody_annotated_are_left_out(options):
    """The loss of a sample is that of its other regions alone."""
    logits, _ = example()
    target = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(2)).double()
    if "ignore" in options:
        target[:, :, 0] = 7
    kept = [0, 1, 3]
    both = [[True, True, False, True]] * 2
    loss, parts = tversky_cross_entropy(logits, target, regions=True, present=both, **options)
    fewer = {**options, **({"class_weight": [1.0, 2.0, 4.0]} if "class_weight" in options else {})}
    expected, others = tversky_cross_entropy(logits[:, kept], target[:, kept], regions=True, **fewer)
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    assert parts["dice"][kept].tolist() == pytest.approx(others["dice"].tolist())
    assert parts["dice"][2].isnan()
    changed = logits.clone()
    changed[:, 2] = 5.0
    assert float(tversky_cross_entropy(changed, target, regions=True, present=both, **options)[0]) == float(loss)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("options", [{}, {"pool": "batch", "top_k": 0.2}, {"ignore": 9}])
def test_where_all_is_annotated_nothing_changes(regions, options):
    logits, target = example()
    if regions:
        target = torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    plain, parts = tversky_cross_entropy(logits, target, regions=regions, **options)
    loss, same = tversky_cross_entropy(logits, target, regions=regions, present=torch.ones(2, 4, dtype=torch.bool), **options)
    assert float(loss) == float(plain)
    assert torch.equal(parts["dice"], same["dice"])


def test_a_target_that_shows_what_nobody_annotated_counts_as_background():
    logits, target = example()
    shown = torch.where((target == 0) & (torch.arange(6) % 2 == 0), 2, target)
    shown[1] = target[1]
    found, expected = (tversky_cross_entropy(logits, t, present=WITHOUT_B)[0] for t in (shown, target))
    assert float(found) == float(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_are_stable(dtype):
    """The summed probability is 1 to the last digit, or has the logarithm log 2 - 2e4; neither overflows nor becomes NaN."""
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, -1e4, -1e4]]], dtype=dtype, requires_grad=True)
    loss, parts = tversky_cross_entropy(logits, torch.tensor([[0, 0, 0]]), present=[[True, True, False]])
    loss.backward()
    expected = (0 + 2 * float(torch.tensor(1e4, dtype=dtype)) - math.log(2) + math.log(2)) / 3
    assert float(parts["cross_entropy"].detach()) == pytest.approx(expected, rel=1e-5)
    assert logits.grad.isfinite().all() and logits.grad.dtype == dtype


def test_ignored_voxels_may_hold_anything():
    logits, target = example()
    target[:, 0] = 9
    logits[:, :, 0] = torch.nan
    logits.requires_grad_()
    loss, _ = tversky_cross_entropy(logits, target, ignore=9, present=WITHOUT_B)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    assert not logits.grad[:, :, 0].any()


def planned(factory: str | None = None) -> LossPlan:
    tversky = TverskyPlan(weight=1, fn_weight=0.5, fp_weight=0.5, smoothing=1e-6, background=True, power=1, class_weight=None)
    return LossPlan(tversky=tversky, cross_entropy=CrossEntropyPlan(weight=1, top_k=None), factory=factory)


def test_every_level_of_deep_supervision_is_marginal():
    logits, target = example(shape=(8, 8))
    lower = torch.randn(2, 4, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    loss = deep_supervision_loss(make_loss(planned(), CLASSES, pool_over_batch=False), weights=[0.6, 0.4])
    present = torch.tensor(WITHOUT_B)
    losses = [
        float(loss([moved_mass(logits, one), moved_mass(lower, other)], target, present)[0])
        for one, other in itertools.product((0, 0.9), repeat=2)
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)
    before, after = (float(loss([moved_mass(logits, 0), moved_mass(lower, share)], target)[0]) for share in (0, 0.9))
    assert before != pytest.approx(after, rel=0.01)


def test_a_loss_of_ones_own_is_shown_what_is_annotated_if_it_asks(tmp_path, monkeypatch):
    (tmp_path / "partial_losses.py").write_text(
        "def asks(loss_plan, outputs):\n"
        "    def loss(logits, target, present=None):\n"
        "        return logits.sum() * (0 if present is None else present.sum()), {}\n"
        "    return loss\n"
        "def does_not(loss_plan, outputs):\n"
        "    return lambda logits, target: (logits.sum(), {})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asks, other = (make_loss(planned(f"partial_losses:{name}"), CLASSES, pool_over_batch=False) for name in ("asks", "does_not"))
    assert knows_present(asks) and not knows_present(other)
    assert knows_present(make_loss(planned(), CLASSES, pool_over_batch=False))
    assert float(asks(torch.ones(1, 2), None, torch.tensor([[True, False]]))[0]) == 2
    assert float(asks(torch.ones(1, 2), None)[0]) == 0
    assert float(other(torch.ones(1, 2), None)[0]) == 2


def test_a_table_of_another_shape_is_named():
    logits, target = example()
    with pytest.raises(ValueError, match=r"present has shape \(2, 3\)"):
        tversky_cross_entropy(logits, target, present=[[True] * 3] * 2)


def test_a_loss_of_ones_own_that_does_not_ask_is_refused_before_training(make_fold, one_case, tmp_path, monkeypatch):
    (tmp_path / "plain_losses.py").write_text("def plain(loss_plan, outputs):\n    return lambda logits, target: (logits.mean() * 0, {})\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = make_fold().again("own", loss__factory="plain_losses:plain")
    case = one_case(1, 1)
    case.labels[case.labels == 2] = 0
    write_case(made.store, case, "key", labels=made.plan.dataset.label_set(), annotated=("left",))
    with pytest.raises(PlanError, match=r"without an argument `present`, and case case_1 annotates only some classes"):
        made.train()
