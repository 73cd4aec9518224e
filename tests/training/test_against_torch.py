"""The whole loop against one written here with torch's own optimisers and schedulers: the same weights, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.errors import ResourceError
from autoseg.training import loop, setting, step


@pytest.fixture
def record(monkeypatch):
    """Runs a fold and gives what an independent loop needs: the first weights and the batches in order."""

    def run(made):
        states, batches = [], []
        fresh, real = loop.fresh_state, loop.train_step

        def first(planned):
            state = fresh(planned)
            states.append({name: tensor.clone() for name, tensor in state.network.state_dict().items()})
            return state

        def step(planned, state, batch, message):
            batches.append(batch)
            return real(planned, state, batch, message)

        with monkeypatch.context() as patched:
            patched.setattr(loop, "fresh_state", first)
            patched.setattr(loop, "train_step", step)
            made.train()
        return states[0], batches

    return run


def plain(made, name: str, **changes):
    """Without dropout, whose chance another loop would have to share, and without norms, before which a bias has no gradient but noise."""
    made = made.again(name, predict_with="last", **changes)
    made.content["configurations"]["net"]["network"] |= {"dropout": 0, "norm": {"name": "none", "momentum": 0.1, "eps": 1e-5}}
    return made


def soft_dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor, smoothing: float) -> torch.Tensor:
    """N minus the sum of the soft Dice of each class, mean over the samples, plus cross-entropy: paper.md item 13 at .5 and .5."""
    p, y = torch.softmax(logits, 1).flatten(2), nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1).flatten(2)
    dice = ((p * y).sum(2) + smoothing) / (0.5 * p.sum(2) + 0.5 * y.sum(2) + smoothing)
    return (logits.shape[1] - dice.sum(1)).mean() + nn.functional.cross_entropy(logits, target)


CASES = {
    "SGD with Nesterov's momentum, polynomial decay, clipping": (
        {"optimiser__name": "sgd", "optimiser__momentum": 0.99, "optimiser__weight_decay": 3e-5, "schedule__name": "poly"},
        lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5),
        lambda made: torch.optim.lr_scheduler.PolynomialLR(made, 12, 0.9),
    ),
    "Adam, constant": (
        {"optimiser__name": "adam", "schedule__name": "constant", "gradient_clip": None},
        lambda parameters: torch.optim.Adam(parameters, 0.01, eps=1e-7),
        lambda made: torch.optim.lr_scheduler.ConstantLR(made, 1.0),
    ),
    "AdamW, cosine": (
        {"optimiser__name": "adamw", "optimiser__weight_decay": 0.05, "schedule__name": "cosine"},
        lambda parameters: torch.optim.AdamW(parameters, 0.01, eps=1e-7, weight_decay=0.05),
        lambda made: torch.optim.lr_scheduler.CosineAnnealingLR(made, 12),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_equal_those_of_a_plain_loop(make_fold, record, case):
    changes, optimiser, scheduler = CASES[case]
    made = plain(make_fold(), "ours", schedule__warmup=0, **changes)
    first, batches = record(made)
    assert len(batches) == 12
    planned = setting.make_setting(made.plan, "net", made.fold, made.store, "cpu")
    network = setting.fresh_state(planned).network
    network.load_state_dict(first)
    theirs = optimiser(network.parameters())
    rates = scheduler(theirs)
    for batch in batches:
        theirs.zero_grad()
        soft_dice_and_cross_entropy(network(batch.image), batch.target, 1e-6).backward()
        if made.plan.training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        theirs.step()
        rates.step()
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(made.weights()[name], weight, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_the_averaged_weights_are_torchs_own_average(make_fold, record, monkeypatch):
    """AveragedModel with the same decay rule, over parameters and running statistics."""
    made = make_fold().again("averaged", predict_with="average", weight_average=0.9)
    averaged, real = [], loop.train_step

    def follow(average, model, count):
        decay = min(0.9, (1 + int(count) - 1) / (10 + int(count) - 1))
        return decay * average + (1 - decay) * model

    def step(planned, state, batch, message):
        if not averaged:
            averaged.append(torch.optim.swa_utils.AveragedModel(state.network, avg_fn=follow, use_buffers=True))
            averaged[0].update_parameters(state.network)  # the first update copies
        outcome = real(planned, state, batch, message)
        averaged[0].update_parameters(state.network)
        return outcome

    monkeypatch.setattr(loop, "train_step", step)
    made.train()
    theirs = averaged[0].module.state_dict()
    for name, weight in made.weights().items():
        if weight.is_floating_point():
            torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-6)


def test_the_same_gradients_whatever_the_layout(make_fold):
    """channels-last changes where numbers lie, not what they are."""
    found = {}
    for layout in ("contiguous", "channels_last"):
        made = plain(make_fold(), layout, memory_layout=layout)
        planned = setting.make_setting(made.plan, "net", made.fold, made.store, "cpu")
        state = setting.fresh_state(planned)
        samples = [loop.SampleMaker(planned.sources)(ticket) for ticket in list(loop.tickets(0, 0, 4, 1, 2, 0))[:2]]
        step._gradients(planned, state, step.make_batch(planned, samples), 1)
        found[layout] = {name: parameter.grad.clone() for name, parameter in state.network.named_parameters()}
    for name, gradient in found["contiguous"].items():
        torch.testing.assert_close(found["channels_last"][name], gradient, rtol=1e-3, atol=1e-5)


def test_the_same_training_with_compiled_steps(make_fold, monkeypatch):
    """Compiled by torch, but without a C++ compiler, which a machine may lack: kernels are torch's own, the graphs compiled ones."""
    real, graphs = torch.nn.Module.compile, []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: graphs.append(self) or real(self, backend="aot_eager"))
    weights = {}
    for compiled in (False, True):
        made = plain(make_fold(), f"compile_{compiled}", compile=compiled, deep_supervision=True)
        assert made.train().finished
        weights[compiled] = made.weights()
    assert len(graphs) == 1 and weights[True].keys() == weights[False].keys()
    for name, weight in weights[False].items():
        torch.testing.assert_close(weights[True][name], weight, rtol=1e-3, atol=1e-5)


def test_a_network_that_cannot_be_compiled_is_refused_with_a_remedy(make_fold, monkeypatch):
    def broken(graph, inputs):
        raise OSError("no compiler")

    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: real(self, backend=broken))
    with pytest.raises(ResourceError, match="cannot compile the network") as refused:
        plain(make_fold(), "broken", compile=True).train()
    assert "training.compile=false" in refused.value.remedy
