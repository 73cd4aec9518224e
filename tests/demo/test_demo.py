"""What the demo promises: phantoms that need learning, learnt in minutes."""

from __future__ import annotations

import pytest

from autoseg.demo.run import run_demo


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_learns_what_a_threshold_cannot(tmp_path):
    shown = run_demo(tmp_path / "demo", quiet=True)
    dice = {name: row.metrics["dice"].mean for name, row in shown.evaluation.classes.items()}
    assert dice["infection"] >= 0.7
    assert dice["lungs"] >= 0.9
    assert shown.baseline < 0.4
    assert shown.seconds < 300
    assert all(picture.stat().st_size > 10_000 for picture in shown.pictures)
