"""DICOM files that tests make; skipped, and said so, where pydicom is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write_series() -> Callable[..., list[Path]]:
    """See `tests.dicom_phantoms.write_series`."""
    pytest.importorskip("pydicom")
    from tests import dicom_phantoms

    return dicom_phantoms.write_series


@pytest.fixture
def write_enhanced() -> Callable[..., Path]:
    """See `tests.dicom_phantoms.write_enhanced`."""
    pytest.importorskip("pydicom")
    from tests import dicom_phantoms

    return dicom_phantoms.write_enhanced


@pytest.fixture
def write_report() -> Callable[[Path], None]:
    """See `tests.dicom_phantoms.write_report`."""
    pytest.importorskip("pydicom")
    from tests import dicom_phantoms

    return dicom_phantoms.write_report
