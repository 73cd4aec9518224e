"""The probe before the first epoch measures real steps and moves nothing of the run."""

from __future__ import annotations

import time

import pytest
import torch

from autoseg import probing
from autoseg.errors import ResourceError
from autoseg.network import precision
from autoseg.network.precision import StepForm
from autoseg.training import probe, room
from autoseg.training.probe import Trial, candidates, probe_steps, try_out

CONTIGUOUS, CHANNELS_LAST = StepForm("float32", "contiguous", False), StepForm("float32", "channels_last", False)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets as small as these take milliseconds a step."""
    monkeypatch.setattr(probe, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(probe, "TRIAL_SECONDS", 0.0)


def probed(made, workers: int = 0):
    return probe_steps(made.plan, "net", made.fold, made.store, device="cpu", workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_real_steps_are_timed(make_fold, workers, monkeypatch):
    steps, real = [], probe.train_step
    monkeypatch.setattr(probe, "train_step", lambda *a: steps.append(a[2].cases) or real(*a))
    made = make_fold()
    began = time.monotonic()
    times = probed(made, workers)
    assert times.steps == probe.FEWEST_STEPS < len(steps)
    assert 0 < times.step * times.steps < time.monotonic() - began
    assert 0 <= times.waiting < 1
    assert 0 < times.held_out_batch < 10 * times.step
    assert {case for batch in steps for case in batch} <= set(made.fold.train)  # no held-out case is looked at


def test_a_slow_sample_maker_shows_as_waiting(make_fold, monkeypatch):
    real = probe.SampleMaker.__call__

    def slow(self, ticket):
        time.sleep(0.05)
        return real(self, ticket)

    monkeypatch.setattr(probe.SampleMaker, "__call__", slow)
    times = probed(make_fold())
    assert times.step > 0.1 and times.waiting > 0.5  # two samples a batch


def test_the_run_is_the_same_with_and_without(make_fold):
    made = make_fold()
    made.train()
    other = made.again("after_a_probe")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    probed(other)
    try_out(other.plan, "net", other.fold, other.store, device="cpu", tried=[CONTIGUOUS])
    assert torch.equal(torch.get_rng_state(), before)
    assert not other.folder.path.exists()
    other.train()
    for name, tensor in made.weights().items():
        assert torch.equal(tensor, other.weights()[name]), name


def test_what_is_auto_is_tried_and_what_is_named_stays(make_fold, monkeypatch):
    plan = make_fold().again("auto", precision="auto", memory_layout="auto").plan
    monkeypatch.setattr(precision, "cpu_features", lambda: frozenset())
    assert candidates(plan, "cpu") == [CONTIGUOUS, CHANNELS_LAST]
    monkeypatch.setattr(precision, "cpu_features", lambda: frozenset({"amx_bf16"}))
    assert {form.precision for form in candidates(plan, "cpu")} == {"float32", "bfloat16"} and len(candidates(plan, "cpu")) == 4
    named = make_fold().again("named", precision="float32", memory_layout="contiguous").plan
    assert candidates(named, "cpu") == [CONTIGUOUS]


def test_trials_come_fastest_first(make_fold, monkeypatch):
    made = make_fold()
    seconds = {torch.contiguous_format: 2.0, torch.channels_last_3d: 1.0}
    monkeypatch.setattr(probe, "_seconds_of", lambda setting, batch: seconds[setting.layout])
    trials = try_out(made.plan, "net", made.fold, made.store, device="cpu", tried=[CONTIGUOUS, CHANNELS_LAST])
    assert [(t.form, t.seconds) for t in trials] == [(CHANNELS_LAST, 1.0), (CONTIGUOUS, 2.0)]


def test_of_a_gpu_the_fastest_form_is_tried_compiled_too_and_left_out_where_it_cannot_be(make_fold, monkeypatch, caplog):
    made = make_fold().again("auto", precision="float32", memory_layout="auto", compile="auto")
    seconds = {CONTIGUOUS: 2.0, CHANNELS_LAST: 1.0, CHANNELS_LAST._replace(compile=True): 0.5}

    def timed(plan, configuration, fold, store, *, device, tried):
        if tried[0].compile and not works:
            raise ResourceError("torch cannot compile", remedy="Install a compiler")
        return sorted((Trial(form, seconds[form]) for form in tried), key=lambda trial: trial.seconds)

    monkeypatch.setattr(probing, "try_out", timed)
    monkeypatch.setattr(probing, "free_memory_gb", lambda device: 100.0)

    def forms(plan=made.plan, device="cuda"):
        return [trial.form for trial in probing.fastest(plan, "net", made.fold, made.store, device=device)]

    works = True
    assert forms() == [CHANNELS_LAST._replace(compile=True), CHANNELS_LAST, CONTIGUOUS]
    assert forms(device="cpu") == [CHANNELS_LAST, CONTIGUOUS]
    assert not any(form.compile for form in forms(made.again("named", memory_layout="auto", compile=False).plan))
    works = False
    assert forms() == [CHANNELS_LAST, CONTIGUOUS] and "cannot compile" in caplog.text


def test_training_that_does_not_fit_is_refused_with_figures_and_remedy(make_fold, monkeypatch):
    plan = make_fold().plan
    needed = room.training_step_gb(plan.configurations["net"], plan.training, room.Task.of(plan, "net"), "cpu")
    beside = room.training_ram_gb(plan.configurations["net"], plan.training, room.Task.of(plan, "net"), workers=0) - room.IMPORTS_GB

    def check(free: float) -> str | None:
        monkeypatch.setattr(room, "free_ram_gb", lambda: free)
        return room.require_memory(plan, "net", device="cpu", workers=0)

    assert check(1.01 * (needed + beside)) is None
    assert "may not fit" in check(0.9 * (needed + beside))
    with pytest.raises(ResourceError, match=r"GB of RAM, .* GB are free") as refused:
        check(0.8 * (needed + beside))
    assert all(word in refused.value.remedy for word in ("--memory", "patch_size", "batch_size"))


def test_a_network_of_ones_own_is_not_judged(make_fold, monkeypatch):
    made = make_fold()
    made.content["configurations"]["net"]["network"]["factory"] = "torch:nn"
    monkeypatch.setattr(room, "free_ram_gb", lambda: 0.0)
    assert room.require_memory(made.plan, "net", device="cpu", workers=0) is None
