"""Settings with which a whole run takes seconds: what is tested here is the way, not the result."""

from __future__ import annotations

import pytest

TINY = {
    "patch_size": [8, 16, 16],
    "network.features": [4, 8],
    "training.epochs": 1,
    "training.steps_per_epoch": 2,
    "training.validation.batches": 1,
    "prediction.overlap": 0.25,
}


@pytest.fixture
def tiny() -> dict:
    return dict(TINY)
