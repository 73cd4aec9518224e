"""Curves and boxes: what is averaged, what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.report.curves import draw_boxes, draw_loss_curves, smoothed


def test_smoothing_keeps_constants_and_lines_and_tells_the_spread():
    line = [[(e, 2.0 + 0.01 * e) for e in range(200)] for _ in range(3)]
    epochs, mean, _ = smoothed(line)
    inner = (epochs > 20) & (epochs < 180)
    np.testing.assert_allclose(mean[inner], 2.0 + 0.01 * epochs[inner], atol=1e-3)
    _, mean, spread = smoothed([[(e, 1.0) for e in range(50)], [(e, 3.0) for e in range(50)]])
    np.testing.assert_allclose(mean, 2.0)
    np.testing.assert_allclose(spread, 1.0)
    assert smoothed([[(1, 0.5)]])[1] == pytest.approx([0.5])


def test_loss_curves_of_uneven_folds(tmp_path):
    histories = {
        0: [{"epoch": e, "loss": 3 / (e + 1), "val_loss": None if e % 2 else 4 / (e + 1)} for e in range(30)],
        1: [{"epoch": 1, "loss": 2.0, "val_loss": float("nan")}],
        2: [],
    }
    assert draw_loss_curves(tmp_path / "curves.png", histories)
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG" and len(list(tmp_path.iterdir())) == 1


def test_nothing_to_draw_draws_nothing(tmp_path):
    assert not draw_loss_curves(tmp_path / "a.png", {0: []})
    assert not draw_boxes(tmp_path / "a.png", {"lungs": [float("nan")]})
    assert not (tmp_path / "a.png").exists()


def test_boxes_with_undefined_values(tmp_path):
    assert draw_boxes(tmp_path / "b.png", {"lungs": [0.9, 0.95], "infection": [0.0, float("nan"), 0.7], "none": [float("nan")]})
    assert (tmp_path / "b.png").stat().st_size > 1000
