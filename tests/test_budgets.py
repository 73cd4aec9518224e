"""How long held-out cases will take is learnt from training cases, and costs the training nothing but time."""

from __future__ import annotations

import time

import pytest
import torch

from autoseg import budgets, pipeline
from autoseg.errors import ResourceError
from autoseg.files import Work
from autoseg.network import build
from autoseg.planning.folds import read_folds
from autoseg.planning.plan_file import read_plan

TINY = {"patch_size": [8, 16, 16], "network.features": [4, 8], "training.epochs": 1, "training.steps_per_epoch": 2}


@pytest.fixture
def made(make_dataset, tmp_path):
    """A WORK, its plan, its first fold, and a network in training mode."""
    pipeline.plan_and_preprocess(make_dataset(cases=6), tmp_path / "work", settings=TINY, workers=0, quiet=True)
    work = Work(tmp_path / "work")
    plan = read_plan(work.plan)
    network = build(plan.configurations["3d_fullres"].inside().network, 1, 3, deep_supervision=plan.training.deep_supervision)
    return work, plan, read_folds(work.folds)[0], network.train()


def test_it_is_measured_with_a_training_case_alone_and_changes_nothing(made, monkeypatch):
    work, plan, fold, network = made
    seen, real = [], budgets.predict_stored

    def predict(predictor, store, cases, folder, on_case):
        seen.extend(cases)
        assert work.path not in folder.parents
        return real(predictor, store, cases, folder, on_case)

    monkeypatch.setattr(budgets, "predict_stored", predict)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    seconds = budgets.held_out_seconds(work, plan, "3d_fullres", fold, network, device="cpu")
    assert torch.equal(torch.rand(3), expected), "no chance is spent, so that a replay needs not know of it"
    assert seen and set(seen) <= set(fold.train), "no held-out case is looked at"
    assert network.training and all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    assert seconds > budgets.LOADING


def test_it_scales_with_tiles_and_voxels(made, monkeypatch):
    work, plan, fold, network = made
    monkeypatch.setattr(budgets, "_one_case", lambda *arguments: (2.0, 1.0))
    assert budgets.held_out_seconds(work, plan, "3d_fullres", fold, network, device="cpu") == pytest.approx(
        3.0 * len(fold.held_out) + budgets.LOADING
    )  # all cases are alike here


def test_a_small_share_of_the_time_is_not_measured_again(made):
    work, plan, fold, _ = made

    def asked(expected: float, fold=fold):
        return budgets.revision(work, plan, "3d_fullres", fold, until=time.monotonic() + 1000, expected=expected, device="cpu")

    assert asked(5) is None and asked(50) is not None
    full = type(fold)("full", fold.train, ())
    assert asked(50, full) is None


def test_a_time_that_leaves_less_than_a_fifth_for_training_is_refused():
    now = time.monotonic()
    assert budgets.training_deadline(now + 100, 70, 4) == pytest.approx(now + 30)
    with pytest.raises(ResourceError, match="predicting its 4 held-out cases alone takes about 1 min 30 s"):
        budgets.training_deadline(now + 100, 90, 4)
