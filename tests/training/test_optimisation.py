"""Optimisers, rates, plateau, early stop and averages against torch's own and Keras's rules."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

from autoseg.planning.schema import OptimiserPlan, SchedulePlan
from autoseg.training.optimisation import (
    EarlyStop,
    Plateau,
    WeightAverage,
    clip_gradients,
    learning_rate,
    make_optimiser,
    set_learning_rate,
)


def optimiser(name: str, **changes) -> OptimiserPlan:
    values = {"name": name, "lr": 1e-3, "momentum": 0.9, "beta2": 0.999, "eps": 1e-7, "weight_decay": 0.01}
    return OptimiserPlan(**{**values, **changes})


def schedule(name: str, **changes) -> SchedulePlan:
    values = {"name": name, "warmup": 0.0, "power": 0.9, "patience": 14, "factor": 0.1, "threshold": 1e-4, "min_lr": 1e-5}
    return SchedulePlan(**{**values, **changes})


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_two_steps_by_hand(name):
    """The textbook rules on one number whose gradient is 2, then 1."""
    lr, beta1, beta2, eps, decay = 1e-3, 0.9, 0.999, 1e-7, 0.01
    weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    made = make_optimiser(optimiser(name), [weight])
    expected, m, v = 3.0, 0.0, 0.0
    for step, gradient in enumerate((2.0, 1.0), 1):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        made.step()
        g = gradient + (0 if name == "adamw" else decay * expected)
        if name == "sgd":
            m = beta1 * m + g if step > 1 else g
            expected -= lr * (g + beta1 * m)
            continue
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        expected *= 1 - lr * decay if name == "adamw" else 1
        expected -= lr * (m / (1 - beta1**step)) / (math.sqrt(v / (1 - beta2**step)) + eps)
    assert float(weight.detach()) == pytest.approx(expected, rel=1e-9)


def test_sgd_without_momentum_is_plain():
    made = make_optimiser(optimiser("sgd", momentum=0), [nn.Parameter(torch.zeros(1))])
    assert not made.defaults["nesterov"]
    set_learning_rate(made, 0.25)
    assert [group["lr"] for group in made.param_groups] == [0.25]


def test_poly_is_the_peers_decay():
    for epoch in (0, 1, 500, 999):
        assert learning_rate(schedule("poly"), 0.01, epoch / 1000) == pytest.approx(0.01 * (1 - epoch / 1000) ** 0.9)


def test_cosine_is_torchs():
    made = make_optimiser(optimiser("sgd"), [nn.Parameter(torch.zeros(1))])
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(made, T_max=50)
    for step in range(51):
        assert learning_rate(schedule("cosine"), 1e-3, step / 50) == pytest.approx(torchs.get_last_lr()[0], abs=1e-12)
        made.step()
        torchs.step()


def test_one_cycle_is_torchs():
    made = make_optimiser(optimiser("adam"), [nn.Parameter(torch.zeros(1))])
    torchs = torch.optim.lr_scheduler.OneCycleLR(made, max_lr=1e-3, total_steps=101, pct_start=0.31, cycle_momentum=False)
    for step in range(101):
        # torch's rise ends at step pct * total - 1 = 30.31 of 100
        assert learning_rate(schedule("one_cycle", warmup=0.3031), 1e-3, step / 100) == pytest.approx(torchs.get_last_lr()[0], rel=1e-6)
        if step < 100:
            made.step()
            torchs.step()


@pytest.mark.parametrize("name", ["poly", "cosine", "constant", "plateau"])
def test_warm_up_rises_linearly_then_the_whole_curve_follows(name):
    plan, plain = schedule(name, warmup=0.2), schedule(name)
    assert [learning_rate(plan, 1.0, p) for p in (0, 0.05, 0.1)] == pytest.approx([0, 0.25, 0.5])
    for t in (0, 0.25, 0.5, 1):
        assert learning_rate(plan, 1.0, 0.2 + 0.8 * t) == pytest.approx(learning_rate(plain, 1.0, t), abs=1e-12)


@pytest.mark.parametrize("name", ["poly", "cosine", "one_cycle"])
def test_a_schedule_depends_on_progress_alone_and_ends_near_nothing(name):
    plan = schedule(name, warmup=0.1)
    assert learning_rate(plan, 1.0, 1.0) < 1e-5
    assert learning_rate(plan, 1.0, 1.2) == learning_rate(plan, 1.0, 1.0)
    assert learning_rate(plan, 1.0, 0.1) == pytest.approx(1.0)


def keras_plateau(losses: list[float], rate: float) -> list[float]:
    """ReduceLROnPlateau(factor=.1, patience=15, cooldown=1, min_delta=1e-4, min_lr=1e-5), as Keras documents it."""
    best, wait, cooldown, rates = math.inf, 0, 0, []
    for loss in losses:
        if cooldown > 0:
            cooldown -= 1
            wait = 0
        if loss < best - 1e-4:
            best, wait = loss, 0
        elif cooldown <= 0:
            wait += 1
            if wait >= 15 and rate > 1e-5:
                rate, cooldown, wait = max(rate * 0.1, 1e-5), 1, 0
        rates.append(rate)
    return rates


def loss_curves() -> list[list[float]]:
    draw = random.Random(0)
    falling = [1 / (1 + epoch) for epoch in range(300)]
    return [
        [1.0] * 100,
        falling,
        [loss + 0.05 * draw.random() for loss in falling],
        [round(draw.random(), 2) for _ in range(200)],
        [1 - 1e-4 * epoch for epoch in range(100)],  # decreases of just the threshold
        [1 - 9e-5 * epoch for epoch in range(100)],
    ]


@pytest.mark.parametrize("losses", loss_curves())
def test_the_plateau_reduces_when_torch_and_keras_do(losses):
    """Item 14: patience 14 as torch counts is Keras's 15 with its cooldown of 1."""
    made = make_optimiser(optimiser("adam"), [nn.Parameter(torch.zeros(1))])
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        made, factor=0.1, patience=14, threshold=1e-4, threshold_mode="abs", cooldown=0, min_lr=1e-5
    )
    plateau, ours, theirs = Plateau(1e-3), [], []
    for loss in losses:
        torchs.step(loss)
        theirs.append(made.param_groups[0]["lr"])
        ours.append(plateau.step(loss, schedule("plateau")))
    assert ours == pytest.approx(theirs)
    assert ours == pytest.approx(keras_plateau(losses, 1e-3))


def test_a_constant_loss_reduces_after_fifteen_epochs_without_improvement_twice():
    plateau = Plateau(1e-3)
    rates = [plateau.step(1.0, schedule("plateau")) for _ in range(100)]
    assert rates == pytest.approx([1e-3] * 15 + [1e-4] * 15 + [1e-5] * 70)


def test_a_plateau_goes_on_where_it_was():
    losses = loss_curves()[3]
    whole, first = Plateau(1e-3), Plateau(1e-3)
    expected = [whole.step(loss, schedule("plateau")) for loss in losses]
    for loss in losses[:50]:
        first.step(loss, schedule("plateau"))
    second = Plateau(1e-3)
    second.load_state_dict(first.state_dict())
    assert [second.step(loss, schedule("plateau")) for loss in losses[50:]] == expected[50:]


def test_early_stop_counts_epochs_without_any_decrease():
    """Keras's EarlyStopping(patience=3, min_delta=0)."""
    stop = EarlyStop(3)
    losses = (1.0, 0.9, 0.9, 0.95, 0.899999, math.nan, 1.0, 0.9)
    seen = [(stop.step(loss), stop.stop) for loss in losses]
    assert [improved for improved, _ in seen] == [True, True, False, False, True, False, False, False]
    assert [ended for _, ended in seen] == [False] * 7 + [True]
    assert stop.best == 0.899999
    again = EarlyStop(3)
    again.load_state_dict(stop.state_dict())
    assert again.stop
    assert not EarlyStop(None, bad_epochs=10_000).stop


def test_gradients_are_clipped_by_their_common_norm():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, None) is None
    assert float(clip_gradients(parameters, 12.0)) == pytest.approx(5)
    assert float(parameters[0].grad) == 3
    assert float(clip_gradients(parameters, 1.0)) == pytest.approx(5)
    assert [float(p.grad) for p in parameters] == pytest.approx([0.6, 0.8], rel=1e-4)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_averages_follow_parameters_and_buffers_with_a_warm_up():
    model = network()
    average = WeightAverage(model, 0.5)
    expected = float(model[0].bias[0].detach())
    for n in range(30):
        with torch.no_grad():
            model[0].bias.fill_(n)
            model[1].running_mean.fill_(n)
            model[1].num_batches_tracked.fill_(n)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    state = average.weights()
    assert float(state["0.bias"][0]) == pytest.approx(expected, rel=1e-5)
    assert float(state["1.running_mean"][0]) == pytest.approx(expected, rel=1e-5)
    assert int(state["1.num_batches_tracked"]) == 29
    network().load_state_dict(state)


def test_averages_are_float32_and_leave_the_network_alone():
    model = network().to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = WeightAverage(model, 0.999)
    for _ in range(3):
        average.update(model)
    assert all(t.dtype == torch.float32 for t in average.weights().values() if t.is_floating_point())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(t.requires_grad for t in average.weights().values())


def test_averages_go_on_where_they_were():
    model = network()
    whole = WeightAverage(model, 0.9)
    parts = WeightAverage(model, 0.9)
    for step in range(6):
        with torch.no_grad():
            model[0].weight.add_(step)
        whole.update(model)
        if step == 3:
            saved = {"updates": parts.updates, "average": {k: v.clone() for k, v in parts.state_dict()["average"].items()}}
            parts = WeightAverage(network(), 0.9)
            parts.load_state_dict(saved)
        parts.update(model)
    assert parts.updates == whole.updates
    assert all(torch.equal(whole.weights()[name], parts.weights()[name]) for name in whole.weights())
