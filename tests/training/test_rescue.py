"""What counts as gone wrong, and what is done about it; judged by training patches alone."""

from __future__ import annotations

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.planning.schema import RescuePlan
from autoseg.training import history, loop
from autoseg.training.rescue import ForegroundWatch


def rule(**changes) -> RescuePlan:
    values = {"returns": 3, "rate_factor": 0.5, "found_dice": 0.1, "collapse_epochs": 3, "slow_epochs": 4}
    return RescuePlan(**{**values, **changes})


FOUND, POOR, LOST, EMPTY = ([[50, 20, 20]], 0.7), ([[1, 90, 90]], 0.01), ([[0, 0, 40]], 0.0), ([[0, 30, 0]], 0.0)


def verdicts(epochs, **changes) -> list[str]:
    watch = ForegroundWatch()
    return [watch.step(counts, dice, rule(**changes)) for counts, dice in epochs]


def test_a_network_that_found_the_foreground_and_lost_it_has_collapsed():
    assert verdicts([FOUND] * 3 + [LOST] * 3) == ["sound"] * 5 + ["collapsed"]


def test_a_slow_start_is_no_collapse_however_long():
    """The first, random weights may hit something by chance; that is not yet finding it."""
    said = verdicts([FOUND, POOR] + [LOST] * 200)
    assert set(said) == {"sound"}
    assert verdicts([LOST] * 200) == ["sound"] * 3 + ["slow"] + ["sound"] * 196  # told once


def test_a_lapse_of_few_epochs_or_without_foreground_in_the_patches_is_none():
    assert set(verdicts([FOUND] * 3 + [LOST, LOST, POOR] * 20)) == {"sound"}
    assert set(verdicts([FOUND] * 3 + [LOST, LOST] + [EMPTY] * 50)) == {"sound"}


def test_null_judges_nothing():
    assert set(verdicts([FOUND] * 9 + [LOST] * 99, collapse_epochs=None)) == {"sound"}
    assert set(verdicts([LOST] * 99, slow_epochs=None)) == {"sound"}


def test_a_watch_goes_on_where_it_was():
    watch = ForegroundWatch()
    for counts, dice in [FOUND] * 3 + [LOST] * 2:
        watch.step(counts, dice, rule())
    again = ForegroundWatch()
    again.load_state_dict(watch.state_dict())
    assert again.step(*LOST, rule()) == "collapsed"


@pytest.fixture
def blinded(monkeypatch):
    """From a given step on, once: the network's head says nothing but background. Gives the states that training made."""
    states, real_state, real_step = [], loop.fresh_state, loop.train_step

    def arrange(at: int) -> list:
        def step(setting, state, batch, message):
            if state.returns == 0 and state.step >= at:
                with torch.no_grad():
                    for head in state.network.heads:
                        head.weight.zero_()
                        head.bias.copy_(torch.tensor([50.0] + [0.0] * (len(head.bias) - 1)))
            return real_step(setting, state, batch, message)

        monkeypatch.setattr(loop, "fresh_state", lambda setting: states.append(real_state(setting)) or states[-1])
        monkeypatch.setattr(loop, "train_step", step)
        return states

    return arrange


PATIENT = {"rescue__collapse_epochs": 2, "oversampling__foreground": 1.0, "schedule__name": "constant", "schedule__warmup": 0}


def test_a_collapse_goes_back_to_the_best_weights_that_found_it_with_half_the_rate(make_fold, blinded):
    made = make_fold().again("collapsing", epochs=12, steps_per_epoch=8, **PATIENT)
    states = blinded(40)
    assert made.train().finished
    (told,) = [m for m in made.messages if "nothing but background" in m]
    assert "the last batch's cases: case_" in told and "with the rate x 0.5" in told
    rows = history.read_rows(made.folder.history)
    assert [row["epoch"] for row in rows] == list(range(1, 13)), "no epoch is lost"
    assert [row["lr"] for row in rows] == [0.01] * 7 + [0.005] * 5
    assert rows[6]["mean_dice"] == 0 and rows[-1]["mean_dice"] > 0.3, "it finds the foreground again at once"
    assert rows[-1]["changes"] == [{"step": 56, "rate_factor": 0.5, "parts": 1}]
    assert states[0].returns == 1


def test_a_collapse_that_was_mended_is_the_same_after_an_interruption(make_fold, blinded, monkeypatch):
    made = make_fold().again("whole", epochs=9, steps_per_epoch=8, **PATIENT)
    blinded(24)
    made.train()
    other = made.again("torn")
    for at in (3, 5, 7):  # epochs after which the run is interrupted

        def stop(path, row, at=at, real=history.append_row):
            real(path, row)
            if row["epoch"] == at:
                raise loop.Stopped

        with monkeypatch.context() as patched:
            patched.setattr(loop.history, "append_row", stop)
            with pytest.raises(KeyboardInterrupt):
                other.train()
    other.train()
    assert all(torch.equal(made.weights()[k], v) for k, v in other.weights().items())


def test_a_collapse_that_comes_back_stops_the_run_and_names_the_cases(make_fold, blinded):
    made = make_fold().again("hopeless", epochs=12, steps_per_epoch=8, **PATIENT | {"rescue__returns": 0})
    blinded(32)
    with pytest.raises(TrainingError, match=r"nothing but background in 2 epochs.*cases: case_\d, case_\d"):
        made.train()


def test_a_network_that_finds_nothing_is_told_once_and_trained_on(make_fold):
    made = make_fold().again("slow", epochs=5, steps_per_epoch=1, rescue__slow_epochs=2, optimiser__lr=1e-9)

    def deaf(setting):
        state = real(setting)
        with torch.no_grad():
            for head in state.network.heads:
                head.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
        return state

    real = loop.fresh_state
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "fresh_state", deaf)
        assert made.train().finished
    assert len([m for m in made.messages if "no foreground has been found in 2 epochs" in m]) == 1
