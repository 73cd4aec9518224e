"""Memory for a case is compared with what is free before its first tile."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from autoseg import load_model
from autoseg.errors import ResourceError
from autoseg.geometry import Grid
from autoseg.inference import room

FREE = 1.0


@pytest.fixture
def model(make_work, monkeypatch):
    monkeypatch.setattr(room, "free_memory_gb", lambda device: FREE)
    return load_model(make_work(), device="cpu")


def needs(monkeypatch, gb: float) -> None:
    monkeypatch.setattr(room, "prediction_memory_gb", lambda *arguments, **options: gb)


def predict(model, **options):
    return model.predict_array(np.random.default_rng(0).random((12, 20, 20), np.float32), Grid((12, 20, 20)), **options)


def test_a_case_that_surely_does_not_fit_is_refused_before_the_first_tile(model, monkeypatch):
    needs(monkeypatch, 2.1)
    tiles = []
    with pytest.raises(
        ResourceError, match=r"^case array: prediction of .* forecast to take 2\.1 GB of RAM, 1\.0 GB are free\. Free memory"
    ):
        predict(model, progress=lambda *done: tiles.append(done))
    assert tiles == []


def test_a_case_that_may_not_fit_is_predicted_with_a_warning(model, monkeypatch, caplog):
    needs(monkeypatch, 1.2)
    with caplog.at_level(logging.WARNING, "autoseg"):
        assert predict(model).labels.voxels.shape == (12, 20, 20)
    assert "may not fit" in caplog.text


def test_a_small_case_fits_by_the_real_forecast_without_a_word(model, caplog):
    with caplog.at_level(logging.WARNING, "autoseg"):
        predict(model)
    assert caplog.text == ""


def test_a_huge_case_does_not_fit_by_the_real_forecast(model, monkeypatch):
    monkeypatch.setattr(room, "free_memory_gb", lambda device: 0.5)
    from autoseg.geometry import Orientation, whole_box
    from autoseg.preprocessing.prepared import Origin

    shape = (2000, 2000, 2000)
    origin = Origin(Grid(shape), Orientation(), Grid(shape), whole_box(shape), None, "key")
    with pytest.raises(ResourceError, match=r"^case large: prediction"):
        room.require_memory(model.predictor, (len(model.plan.dataset.channels), *shape), origin, case="large")


def test_probabilities_count(model, monkeypatch):
    from autoseg.geometry import Orientation, whole_box
    from autoseg.preprocessing.prepared import Origin

    needs(monkeypatch, 0.1)
    shape = (500, 500, 500)
    origin = Origin(Grid(shape), Orientation(), Grid(shape), whole_box(shape), None, "key")
    arguments = (model.predictor, (1, *shape), origin)
    room.require_memory(*arguments, case="a")
    with pytest.raises(ResourceError, match="without --probabilities"):
        room.require_memory(*arguments, case="a", probabilities=True)
