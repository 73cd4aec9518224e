"""The deterministic switch: what it sets while a fold trains, and that it is undone. What CUDA then does is not seen here."""

from __future__ import annotations

import os

import pytest
import torch

from autoseg.training import loop
from autoseg.training.determinism import kernels


def flags() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_plans_switch_is_set_while_a_fold_trains_and_not_after(make_fold, monkeypatch, deterministic):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, seen, real = flags(), [], loop.train_step

    def step(*arguments):
        seen.append((*flags(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", step)
    made = make_fold().again("x", deterministic=deterministic, epochs=1)
    made.train()
    assert set(seen) == {(True, True, False, ":4096:8") if deterministic else (*before, None)}
    assert flags() == before


def test_a_gpu_that_need_not_repeat_itself_times_its_kernels():
    before = flags()
    with kernels(False, "cuda:0"):
        assert flags() == (False, before[1], True)
    with pytest.raises(ZeroDivisionError), kernels(True, "cuda"):
        _ = 1 / 0
    assert flags() == before


def test_on_a_cpu_the_switch_changes_no_weight(make_fold):
    made, other = make_fold().again("a"), make_fold().again("b", deterministic=True)
    made.train()
    other.train()
    assert all(torch.equal(weight, made.weights()[name]) for name, weight in other.weights().items())
