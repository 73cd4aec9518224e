"""Training from given weights: what is taken, what is frozen, what is refused, and that all of it is written down."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autoseg.errors import ModelError, PlanError
from autoseg.network.given import read_given
from autoseg.planning.plan_file import read_plan
from autoseg.training import loop


@pytest.fixture
def source(make_fold):
    """A trained fold of one channel, and where it lies; it held out what the folds of this fixture hold out."""
    made = make_fold()
    made.train()
    return made


def given(made):
    return read_given(made.folder.path, "net", 0)


def with_labels(made, name: str, **labels: int):
    """The same fold with labels of other names."""
    made = made.again(name)
    content = made.content
    content["dataset"] |= {"labels": {"background": 0, **labels}, "side_pairs": []}
    return replace(made, content=content)


def test_a_run_begins_with_the_given_weights_and_says_so(source):
    made = source.again("tuned", optimiser__lr=1e-12, predict_with="last", schedule__name="constant", schedule__warmup=0)
    made.train(given=given(source))
    start = read_plan(made.folder.plan).training.start
    assert start.weights == given(source).key and not start.transfer.left and not start.transfer.partly
    assert set(start.transfer.taken) == set(source.weights())
    for name, weight in made.weights().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(weight, source.weights()[name], rtol=0, atol=1e-6)
    (told,) = [m for m in made.messages if "starts from" in m]
    count = len(source.weights())
    assert f"weights.safetensors of net fold 0: {count} of {count} tensors taken whole, 0 in part, 0 left fresh" in told


def test_other_labels_are_matched_by_name_and_what_was_left_is_told_and_recorded(source):
    made = with_labels(source, "renamed", right=1, tumour=2)
    made.train(given=given(source))
    transfer = read_plan(made.folder.plan).training.start.transfer
    assert transfer.partly["heads.0.weight"] == "outputs background, right taken, tumour fresh"
    assert any("heads.0.weight: outputs background, right taken, tumour fresh" in m for m in made.messages)


def test_what_was_taken_is_frozen_for_so_many_epochs_and_then_learns(source, monkeypatch):
    """Norms' running statistics too; a head of which a part is fresh is never frozen."""
    made = with_labels(source, "frozen", right=1, tumour=2).again("frozen", start__freeze_epochs=2, epochs=3)
    seen, real = [], loop.history.append_row
    states, fresh = [], loop.fresh_state
    monkeypatch.setattr(loop, "fresh_state", lambda setting: states.append(fresh(setting)) or states[-1])

    def append(path, row):
        seen.append({name: tensor.clone() for name, tensor in states[-1].network.state_dict().items()})
        real(path, row)

    monkeypatch.setattr(loop.history, "append_row", append)
    made.train(given=given(source))
    taken, before = read_plan(made.folder.plan).training.start.transfer.taken, source.weights()
    assert any("running_mean" in name for name in taken) and "heads.0.weight" not in taken
    for state in seen[:2]:
        assert all(torch.equal(state[name], before[name]) for name in taken)
    assert not torch.equal(seen[0]["heads.0.weight"], seen[1]["heads.0.weight"])
    assert not any(torch.equal(seen[2][name], before[name]) for name in taken if name.endswith(("conv.weight", "running_mean")))
    assert any("frozen for 2 epochs, its norms' running statistics included" in m for m in made.messages)


def test_frozen_and_interrupted_is_the_same_and_needs_the_file_no_more(source, monkeypatch):
    made = with_labels(source, "whole", right=1, tumour=2).again("whole", start__freeze_epochs=2)
    made.train(given=given(source))
    for at in (1, 2):
        other = made.again(f"torn_{at}")

        def stop(path, row, at=at, real=loop.history.append_row):
            real(path, row)
            if row["epoch"] == at:
                raise loop.Stopped

        with monkeypatch.context() as patched:
            patched.setattr(loop.history, "append_row", stop)
            with pytest.raises(KeyboardInterrupt):
                other.train(given=given(source))
        start = read_plan(other.folder.plan).training.start.model_dump(mode="json") | {"transfer": None}
        resumed = replace(other, content=other.content | {"training": other.content["training"] | {"start": start}})
        resumed.train()  # as the pipeline resolves it: the fold's own start, without the file
        assert all(torch.equal(weight, made.weights()[name]) for name, weight in other.weights().items())


def test_freezing_everything_is_refused(source):
    with pytest.raises(PlanError, match="nothing is left to train in the 1 frozen epochs"):
        source.again("x", start__freeze_epochs=1).train(given=given(source))


def test_planned_weights_that_are_missing_or_others_are_refused(source, make_fold):
    with pytest.raises(PlanError, match="--weights"):
        source.again("a", start__weights="key").train()
    with pytest.raises(PlanError, match=r"training\.start\.weights is key"):
        source.again("b", start__weights="key").train(given=given(source))


def test_weights_that_saw_a_held_out_case_are_refused(source):
    other = replace(source.again("other"), fold=replace(source.fold, name=1, train=("case_4", "case_5"), held_out=("case_0", "case_1")))
    with pytest.raises(PlanError, match="was trained on 2 of the 2 cases that this fold holds out: case_0"):
        other.train(given=given(source))
    full = replace(other, fold=replace(other.fold, name="full", train=tuple(f"case_{i}" for i in range(6)), held_out=()))
    assert full.train(given=given(source)).finished


def test_the_peers_weights_start_a_fold_and_it_is_told_that_their_cases_are_unknown(make_fold, shared_data):
    """Two of its four levels: their 16 encoder tensors, and the rows of the background."""
    made = make_fold()
    content = made.content
    network = content["configurations"]["net"]["network"]
    network |= {
        "features": [32, 64],
        "kernels": [[3, 3, 3]] * 2,
        "blocks": {"encoder": [2, 2], "decoder": [2]},
        "downsampling": "stride",
        "norm": {"name": "instance", "momentum": 0.1, "eps": 1e-5},
        "activation": "leaky_relu",
        "dropout": 0,
    }
    content["training"] |= {"epochs": 1, "steps_per_epoch": 1, "deep_supervision": True}
    peer = read_given(shared_data("nnunet_model"), "net", 0)
    made.train(given=peer)
    transfer = read_plan(made.folder.plan).training.start.transfer
    assert len([name for name in transfer.taken if name.startswith("encoder.levels")]) == 16
    assert "encoder.levels.2.0.conv.weight" in transfer.unused
    assert transfer.partly["heads.0.weight"] == "outputs background taken, left, right fresh"
    assert any("it is not known which cases nnU-Net's checkpoint_final.pth" in m for m in made.messages)


def test_weights_of_another_dimension_are_refused(source, make_fold):
    with pytest.raises(ModelError, match="fits this network"):
        flat = make_fold(2)
        replace(flat, folder=type(flat.folder)(flat.folder.path.with_name("flat"))).train(given=given(source))
