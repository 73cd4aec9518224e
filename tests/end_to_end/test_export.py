"""From a PACS export to a plan and stored cases: nothing of a patient is written but in the key, and tilted slices keep their place."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from autoseg.cli.main import main
from autoseg.data.case import LabelMap
from autoseg.data.formats.readers import read_pixels
from autoseg.data.reading import read_labels
from autoseg.data.writing import write_labels

pytest.importorskip("pydicom")

from tests.dicom_phantoms import write_report, write_series

SECRETS = ("MUELLER", "HANS", "9911", "1.2.840")


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """Five patients with a scout, T1 and T2; the label map lies beside the T1, whose gantry is tilted in one."""
    folder = tmp_path_factory.mktemp("pacs") / "export"
    for number in range(5):
        study = f"1.2.840.{number + 1}"
        place = folder / f"PA{number:03d}" / "ST000"
        about = {"patient": f"MUELLER^HANS {number}9911", "study": study, "size": (24, 22), "spacing": (2.0, 1.0, 1.0)}
        write_series(place / "SE000", series=f"{study}.1", number=1, description="scout", slices=2, **about)
        write_series(place / "SE001", series=f"{study}.2", number=2, description="T1 axial", slices=12, tilt=9.0 * (number == 2), **about)
        write_series(place / "SE002", series=f"{study}.3", number=3, description="T2 axial", slices=12, add=400, **about)
        write_report(place / "SR000")
        grid = read_pixels(place / "SE001").grid
        labels = np.zeros(grid.shape, np.uint8)
        labels[3:8, 5:15, 5 + number : 15] = 1
        write_labels(place / "SE001" / f"MUELLER_HANS_{number}9911.nii.gz", LabelMap(labels, grid))
    return folder


@pytest.fixture(scope="module")
def work(export, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "work"
    assert main(["plan-and-preprocess", str(export), str(folder), "--series", "T1*", "--device", "cpu", "--quiet"]) == 0
    return folder


def test_only_the_key_knows_who_is_who(work):
    assert stat.S_IMODE((work / "key.json").stat().st_mode) == 0o600
    assert json.loads((work / "key.json").read_text())["patients"] == {f"MUELLER^HANS {n}9911": n + 1 for n in range(5)}
    for path in work.rglob("*"):
        if path.is_file() and path != work / "key.json":
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in SECRETS), path.name
            assert not any(secret in path.name for secret in SECRETS)


def test_the_choice_lasts(work, export, capsys):
    content = json.loads((work / "dataset.json").read_text())
    assert content["choices"] == {"series": ["T1*"]} and sorted(content["cases"]) == [f"case_{n:04d}" for n in range(1, 6)]
    assert content["groups"]["case_0003"] == "patient_0003"
    assert main(["plan-and-preprocess", str(export), str(work), "--quiet"]) == 0
    assert main(["plan-and-preprocess", str(export), str(work), "--series", "T2*", "--quiet"]) == 2
    assert "--series is T2*, when the plan was made it was T1*" in capsys.readouterr().err
    assert main(["doctor", str(export), str(work), "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)["series"]
    assert [row["case"] for row in rows[:3]] == ["", "case_0001", ""] and len(rows) == 15


def test_references_of_tilted_slices_lie_on_the_slices(work, export):
    own = read_labels(next((export / "PA002").rglob("*.nii.gz")), case="x")
    kept = read_labels(work / "references" / "case_0003.nii.gz", case="x")
    assert kept.grid.sheared and np.array_equal(kept.voxels, own.voxels) and np.abs(kept.grid.corners() - own.grid.corners()).max() < 1e-3


def test_doctor_lists_an_export_without_label_maps(export, tmp_path, capsys):
    bare = tmp_path / "bare"
    for number in range(2):
        write_series(bare / f"{number}", patient=f"MUELLER {number}", study=f"1.{number}", series=f"1.{number}.1", description="T1")
    assert main(["doctor", str(bare), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "Chosen for a case: 2, with errors: 0. No label map lies among them" in text and "MUELLER" not in text
    next((bare / "1").iterdir()).unlink()
    assert main(["doctor", str(bare), "--quiet"]) == 1
    assert "not evenly spaced" in capsys.readouterr().out
