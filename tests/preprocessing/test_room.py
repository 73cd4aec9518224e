"""Disk space is compared with what is not stored yet, before any case is prepared."""

from __future__ import annotations

import logging
import shutil
from types import SimpleNamespace

import pytest

from autoseg.errors import ResourceError
from autoseg.files import Work
from autoseg.preprocessing.preprocess import preprocess
from autoseg.preprocessing.store import stored_cases

GB = 2**30


@pytest.fixture
def free(monkeypatch):
    """Set the free disk space in bytes."""
    return lambda size: monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))


@pytest.fixture
def made(make_dataset, planned):
    return planned(make_dataset(cases=2))


def run(made, work):
    return preprocess(made.dataset, made.fingerprint, made.plan, work, configurations=["3d_fullres"], workers=0)


def forecast_bytes(made) -> float:
    """Images of .9 of their float32 values, labels of .05 bytes, 10,000 voxels of three 4-byte numbers a class."""
    voxels = [m.shape[0] * m.shape[1] * m.shape[2] for m in made.fingerprint.cases.values()]
    assert made.plan.configurations["3d_fullres"].spacing == list(next(iter(made.fingerprint.cases.values())).spacing)
    return sum(v * (0.9 * 4 + 0.05) + 120_000 * len(made.plan.dataset.label_set().names) for v in voxels)


def test_what_surely_does_not_fit_is_refused_before_anything_is_written(made, tmp_path, free):
    free(1000)
    work = Work(tmp_path / "work")
    with pytest.raises(ResourceError, match=r"2 prepared cases .* GB of disk space, 0\.0 GB are free.*larger disk"):
        run(made, work)
    assert stored_cases(work.store("3d_fullres")) == []
    assert not work.path.exists()


def test_what_may_not_fit_is_said_and_done(made, tmp_path, free, caplog):
    needed = forecast_bytes(made)
    with caplog.at_level(logging.WARNING, "autoseg"):
        free(1.01 * needed)
        assert run(made, Work(tmp_path / "enough")) == []
        assert caplog.text == ""
        free(0.99 * needed)
        assert run(made, Work(tmp_path / "little")) == []
    assert "may not fit" in caplog.text


def test_what_is_stored_already_needs_no_more_space(made, tmp_path, free):
    work = Work(tmp_path / "work")
    assert run(made, work) == []
    free(0)
    assert run(made, work) == []
