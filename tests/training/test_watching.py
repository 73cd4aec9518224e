"""What a run shows: the line on stderr, and the picture, which costs hardly any time."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from autoseg.training import history, watching
from autoseg.training.history import EpochSums


def row(epoch: int, classes: int = 2) -> dict:
    names = "abcdefghijklmnopqrstuvwxyz"[:classes]
    return {
        "epoch": epoch,
        "loss": 1 / epoch,
        "val_loss": None if epoch == 2 else 0.5,
        "mean_dice": 0.5,
        "dice": dict.fromkeys(names, 0.5),
        "val_dice": None if epoch == 2 else {**dict.fromkeys(names, 0.4), "b": None},
        "lr": 1e-3,
    }


def sums(**changes) -> EpochSums:
    return EpochSums(**{"steps": 2, "loss": 1.0, "seconds": 10.0, "waited": 0.5, **changes})


def test_the_line_says_loss_dice_by_class_share_of_waiting_and_time_left():
    said = watching.describe(sums(), {"lung": 0.91, "lesion": 0.49}, 3725)
    assert said == "loss 0.500, Dice 0.70 (lung 0.91, lesion 0.49), 5% waiting, 1 h 02 min left"
    assert watching.describe(sums(), {"lung": None}, None) == "loss 0.500, Dice -, 5% waiting"
    many = {f"class {i}": 0.9 for i in range(20)} | {"duodenum": 0.31, "never seen": None}
    assert "Dice 0.87 (worst: duodenum 0.31)" in watching.describe(sums(), many, 8)


def test_the_line_is_written_on_stderr_and_taken_away(capsys):
    line = watching.StepLine("3d_fullres fold 0", quiet=False)
    line.begin(2, 10, 0, 4)
    for _ in range(4):
        line.step(sums(), {"lung": 0.91}, 60)
    line._bar.refresh()  # where stderr is no terminal a line comes once a minute
    line.end()
    shown = capsys.readouterr()
    assert "3d_fullres fold 0, epoch 3/10" in shown.err and "Dice 0.91" in shown.err and shown.out == ""
    quiet = watching.StepLine("fold", quiet=True)
    quiet.begin(0, None, 0, 4)
    quiet.step(sums(), {"lung": 0.91}, None)
    quiet.end()
    assert capsys.readouterr().err == ""


def test_a_picture_appears_whole_and_not_too_often(tmp_path):
    path, picture = tmp_path / "history.jsonl", tmp_path / "progress.png"
    drawing = watching.ProgressPicture(path, picture)
    history.append_row(path, row(1))
    history.append_row(path, row(2))
    drawing.update()
    assert not picture.exists()
    drawing.update(at_last=True)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(("takes", "share"), [(0.1, 0.002), (3.0, 0.006)])
def test_the_picture_is_refreshed_as_the_run_goes_and_takes_no_more_than_half_a_per_cent(monkeypatch, takes, share):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: clock.now))
    drawn = []

    def draw(rows, path):
        drawn.append(clock.now)
        clock.now += takes

    monkeypatch.setattr(watching, "draw_progress", draw)
    monkeypatch.setattr(watching, "read_rows", lambda path: [])
    drawing = watching.ProgressPicture(None, None)
    while clock.now < 6 * 3600:
        clock.now += 7  # an epoch
        drawing.update()
    assert len(drawn) >= 30, "it does move"
    assert len(drawn) * takes / clock.now < share


def test_drawing_a_picture_of_a_long_run_of_many_classes_takes_a_second_or_so(tmp_path):
    rows = [row(epoch, classes=25) for epoch in range(1, 1001)]
    watching.draw_progress(rows[:2], tmp_path / "first.png")  # pays for the import
    began = time.process_time()
    watching.draw_progress(rows, tmp_path / "progress.png")
    took = time.process_time() - began
    print(f"drawing 1000 epochs of 25 classes: {took:.2f} s of processor time")
    assert took < 5
