"""Fixtures that every test may use: the real data where they are, small made-up datasets everywhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Spawned processes import a test module by its name, "tests.x". At the end of the path the checkout never shadows the installed package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

DATA = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A folder of real data by name; a test that asks for one that is not there is skipped, and the summary says so."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"real data {name!r} are not at {DATA.name}; set AUTOSEG_TEST_DATA to their folder")
        return folder

    return find


def pytest_terminal_summary(terminalreporter) -> None:
    """Say it once, plainly, when the real data were missing."""
    if not DATA.is_dir():
        terminalreporter.write_line("NOTE: no real data found; tests that need them were skipped (see AUTOSEG_TEST_DATA)", yellow=True)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """A small dataset in the peer's raw layout: noisy boxes of two classes, as many cases and channels as asked for."""
    import SimpleITK as sitk

    def make(
        cases: int = 5,
        shape: tuple[int, int, int] = (14, 20, 24),
        spacing: tuple[float, float, float] = (2.0, 1.0, 1.0),
        channels: tuple[str, ...] = ("MR",),
        labels: dict | None = None,
        values: tuple[int, int] = (1, 2),
        name: str = "made",
        extra: dict | None = None,
    ) -> Path:
        folder = tmp_path / name
        (folder / "imagesTr").mkdir(parents=True)
        (folder / "labelsTr").mkdir()
        for number in range(cases):
            rng = np.random.default_rng(number)
            label = np.zeros(shape, np.uint8)
            middle = [n // 2 for n in shape]
            z, y, x = (m + int(rng.integers(-1, 2)) for m in middle)
            label[z - 3 : z + 3, y - 5 : y, x - 5 : x + 5] = values[0]
            label[z - 3 : z + 3, y : y + 5, x - 5 : x + 5] = values[1]
            for channel in range(len(channels)):
                image = rng.normal(100, 8, shape) + 40 * (label == values[0]) + 80 * (label == values[1]) * (channel + 1)
                volume = sitk.GetImageFromArray(image.astype(np.float32))
                volume.SetSpacing(spacing[::-1])
                sitk.WriteImage(volume, str(folder / "imagesTr" / f"case_{number:02d}_{channel:04d}.nii.gz"))
            truth = sitk.GetImageFromArray(label)
            truth.SetSpacing(spacing[::-1])
            sitk.WriteImage(truth, str(folder / "labelsTr" / f"case_{number:02d}.nii.gz"))
        content = {
            "channel_names": {str(i): c for i, c in enumerate(channels)},
            "labels": labels or {"background": 0, "front": values[0], "back": values[1]},
            "numTraining": cases,
            "file_ending": ".nii.gz",
            **(extra or {}),
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return make
