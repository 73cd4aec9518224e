"""What a fold's own plan says of switches and `auto` values, and when two plans train a fold alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoseg.errors import PlanError
from autoseg.network.precision import StepForm
from autoseg.planning.plan_file import write_plan
from autoseg.training import resolving
from autoseg.training.resolving import first_difference, replayed_plan, resolved_plan


@pytest.fixture
def resolve(make_fold, monkeypatch):
    monkeypatch.setattr(resolving, "resolve_precision", lambda precision, device: "float32" if precision == "auto" else precision)
    monkeypatch.setattr(resolving, "resolve_memory_layout", lambda layout, device: "channels_last" if layout == "auto" else layout)
    made = make_fold().again("x", precision="auto", memory_layout="auto", compile="auto")

    def call(**switches):
        values = {"epochs": None, "seconds": None, "seed": None, "device": "cpu", **switches}
        return resolved_plan(made.plan, made.folder, **values).training

    call.made = made
    return call


def test_auto_and_switches_are_resolved_for_a_new_fold(resolve):
    training = resolve(epochs=7, seed=3, weights="key")
    assert (training.precision, training.memory_layout, training.epochs, training.seed) == ("float32", "channels_last", 7, 3)
    assert training.start.weights == "key" and training.start.freeze_epochs == 0
    assert training.compile is False
    probed = resolve(fastest=StepForm("bfloat16", "contiguous", True))
    assert (probed.precision, probed.memory_layout, probed.compile) == ("bfloat16", "contiguous", True)
    assert resolve(seconds=61.23).budget_seconds == 61.2


def test_a_fold_that_was_begun_keeps_what_was_resolved_unless_a_switch_says_otherwise(resolve):
    made = resolve.made
    begun = made.plan.model_copy(update={"training": resolve(epochs=7, seed=3, weights="key").model_copy(update={"precision": "bfloat16"})})
    write_plan(made.folder.plan, begun)
    made.folder.checkpoint.write_bytes(b"begun")
    assert resolve() == begun.training
    assert resolve(epochs=9).epochs == 9 and resolve(epochs=9).precision == "bfloat16"
    assert resolve(seconds=5).budget_seconds == 5 and resolve(seed=1).seed == 1


def test_a_fold_that_was_begun_goes_on_uncompiled_if_the_plan_now_says_so(make_fold):
    made = make_fold()
    begun = made.again("x", compile=True)
    write_plan(made.folder.plan, begun.plan)
    made.folder.checkpoint.write_bytes(b"begun")
    switches = {"epochs": None, "seconds": None, "seed": None, "device": "cpu"}
    assert resolved_plan(made.again("x", compile="auto").plan, made.folder, **switches).training.compile is True
    assert resolved_plan(made.again("x", compile=False).plan, made.folder, **switches).training.compile is False
    assert first_difference(begun.plan, made.plan) is None


def test_the_first_key_that_differs_is_named_and_reasons_do_not_count(make_fold):
    made = make_fold()
    other = made.again("x", optimiser__lr=0.5)
    assert first_difference(made.plan, made.plan) is None
    assert first_difference(made.plan, other.plan) == "training.optimiser.lr was 0.01 and is 0.5"
    assert first_difference(made.plan, made.again("y", checkpoint_minutes=1, budget_seconds=5).plan) is None
    assert first_difference(made.plan, made.plan.model_copy(update={"recipe": "another"})) is None
    longer = made.again("z", epochs=9)
    assert first_difference(made.plan, longer.plan) == "training.epochs was 3 and is 9"
    assert first_difference(made.plan, longer.plan, but_for_epochs=True) is None


def test_a_replay_takes_the_other_folds_training_and_refuses_another_network(make_fold):
    made = make_fold()
    source = made.again("source", optimiser__lr=0.5)
    write_plan(source.folder.plan, source.plan)
    assert replayed_plan(made.plan, "net", source.folder.path).training.optimiser.lr == 0.5
    with pytest.raises(PlanError, match="has no 2d"):
        replayed_plan(made.plan, "2d", source.folder.path)
    other = replace(made.again("other"))
    other.content["configurations"]["net"]["network"]["features"] = [5, 9]
    with pytest.raises(PlanError, match=r"another plan than WORK has: configurations\.net\.network\.features"):
        replayed_plan(other.plan, "net", source.folder.path)
