"""history.jsonl survives a kill, and its sums are means."""

from __future__ import annotations

from autoseg.training import history
from autoseg.training.history import EpochSums


def row(epoch: int) -> dict:
    return {
        "epoch": epoch,
        "loss": 1 / epoch,
        "val_loss": None if epoch == 2 else 0.5,
        "mean_dice": 0.5,
        "dice": {"a": 0.5, "b": None},
        "val_dice": None if epoch == 2 else {"a": 0.4, "b": None},
        "lr": 1e-3,
    }


def test_rows_come_back_and_a_torn_line_does_not(tmp_path):
    path = tmp_path / "history.jsonl"
    assert history.read_rows(path) == []
    for epoch in (1, 2, 3):
        history.append_row(path, row(epoch))
    with path.open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert history.read_rows(path) == [row(1), row(2), row(3)]
    history.keep_rows(path, 2)
    history.append_row(path, row(3))
    assert history.read_rows(path) == [row(1), row(2), row(3)]


def test_sums_are_means_over_steps_and_pooled_counts():
    sums = EpochSums()
    sums.add(2.0, {"tversky": 1.5}, [[1, 2, 3]])
    sums.add(1.0, {"tversky": 0.5}, [[10, 20, 30]])
    assert (sums.steps, sums.mean_loss, sums.mean_parts(), sums.counts) == (2, 1.5, {"tversky": 1.0}, [[11, 22, 33]])
    assert EpochSums(**sums.state()) == sums
