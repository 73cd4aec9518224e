"""One hook for experiment trackers: given each epoch's row, never able to stop a training."""

from __future__ import annotations

import pytest

from autoseg.errors import PlanError, ResourceError
from autoseg.training import history, tracking

OWN = """
rows = []

def keep(folder):
    rows.append(folder.name)
    return rows.append

def broken(folder):
    def log(row):
        raise ConnectionError("no network")
    return log
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "mytracker.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "mytracker"
    import sys

    sys.modules.pop("mytracker", None)


def test_a_function_of_ones_own_is_given_every_row_as_it_stands_in_the_history(make_fold, own):
    made = make_fold()
    made.train(track=[f"{own}:keep"])
    import mytracker

    assert mytracker.rows == [made.folder.path.name, *history.read_rows(made.folder.history)]


def test_a_tracker_that_fails_is_told_once_and_training_goes_on(make_fold, own):
    made = make_fold()
    assert made.train(track=[f"{own}:broken"]).finished
    assert [m for m in made.messages if "failed and is told nothing more (ConnectionError: no network)" in m] == [
        "mytracker:broken failed and is told nothing more (ConnectionError: no network); training goes on."
    ]


def test_an_unknown_tracker_is_refused_before_training(make_fold):
    with pytest.raises(PlanError, match="--track"):
        make_fold().train(track=["wandb"])


def test_tensorboard_gets_the_numbers_and_forgets_what_an_interruption_lost(make_fold, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = make_fold()
    made.train(track=["tensorboard"])
    events = EventAccumulator(str(made.folder.path / "tensorboard"))
    events.Reload()
    rows = history.read_rows(made.folder.history)
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3]
    assert [e.value for e in events.Scalars("val_dice/left")] == pytest.approx([row["val_dice"]["left"] for row in rows], rel=1e-5)
    assert {"lr", "data_wait", "dice/right", "tversky"} <= set(events.Tags()["scalars"])


def test_a_missing_tensorboard_names_the_extra(make_fold, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ResourceError, match=r"autoseg3d\[track\]"):
        make_fold().train(track=["tensorboard"])


def test_only_numbers_are_logged():
    row = {"epoch": 3, "step": 12, "loss": 0.5, "val_loss": None, "dice": {"a": 0.1, "b": None}, "changes": [{}], "step_progress": [0.1]}
    assert dict(tracking.scalars(row)) == {"loss": 0.5, "dice/a": 0.1}
