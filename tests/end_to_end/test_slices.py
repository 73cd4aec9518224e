"""The configuration 2d through the three commands: pictures stay pictures, volumes are taken slice by slice and come back whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import fold_runs, pipeline
from autoseg.preprocessing.store import open_case

SETTINGS = {
    "2d.patch_size": [16, 16],
    "2d.network.features": [4, 8],
    "2d.batch_size": 4,
    "training.epochs": 1,
    "training.steps_per_epoch": 12,
    "training.validation.batches": 1,
    "training.optimiser.lr": 0.02,
    "training.augmentation.transforms": [],
    "prediction.overlap": 0.25,
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures of scores take seconds, and are not what is tested here."""
    monkeypatch.setattr(fold_runs, "draw_cross_validation", lambda *_: ())


def _dataset(folder: Path, shape: tuple[int, ...], ending: str, spacing: tuple[float, ...] | None = None) -> Path:
    """Five noisy images with a bright box in each."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(n // 2 - n // 4 - number % 2, n // 2 + n // 4) for n in shape)] = 1
        image = np.clip(rng.normal(80, 10, shape) + 90 * label, 0, 255).astype(np.uint8)
        for name, array in ((f"imagesTr/c{number}_0000", image), (f"labelsTr/c{number}", label)):
            picture = sitk.GetImageFromArray(array)
            if spacing:
                picture.SetSpacing(spacing[::-1])
            sitk.WriteImage(picture, str(folder / f"{name}{ending}"))
    about = {"channel_names": {"0": "gray"}, "labels": {"background": 0, "box": 1}, "numTraining": 5, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def _three_commands(dataset: Path, work: Path, output: Path, **options):
    planned = pipeline.plan_and_preprocess(dataset, work, settings=SETTINGS, workers=0, quiet=True, **options)
    assert planned.stages == ("2d",)
    trained = pipeline.train(work, folds=[0], workers=0, quiet=True)
    assert not trained.problems and trained.done == (("2d", 0),)
    predicted = pipeline.predict(work, dataset / "imagesTr", output, quiet=True)
    assert predicted.model.configuration == "2d" and all(result.output for result in predicted.results)
    return planned, predicted


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_pictures_come_back_as_pictures(tmp_path, ending):
    """True 2D data, in a form that SimpleITK reads: planned as 2d unasked, label maps of the image's own size, form and small integers."""
    dataset, work, out = _dataset(tmp_path / "d", (40, 52), ending), tmp_path / "work", tmp_path / "out"
    planned, predicted = _three_commands(dataset, work, out)
    assert list(planned.plan.configurations) == ["2d"]
    assert sorted(path.name for path in out.glob("c*")) == [f"c{n}{ending}" for n in range(5)]
    found = 0
    for result in predicted.results:
        picture = sitk.ReadImage(str(result.output))
        array = sitk.GetArrayFromImage(picture)
        assert array.shape == (40, 52) and array.dtype == np.uint8 and set(np.unique(array)) <= {0, 1}
        found += array.any()
    assert found, "twelve steps find something"
    scored = pipeline.evaluate(out, dataset / "labelsTr", labels=dataset)
    assert len(scored.cases) + len(scored.trained_on) == 5
    (held_out,) = (result for result in predicted.results if not result.trained_on)
    stored = sitk.ReadImage(str(next((work / "models" / "2d" / "fold_0" / "held_out").glob("c*"))))
    assert stored.GetDimension() == 2
    np.testing.assert_array_equal(sitk.GetArrayFromImage(stored), sitk.GetArrayFromImage(sitk.ReadImage(str(held_out.output))))


@pytest.mark.parametrize(
    ("shape", "spacing", "inside"), [((6, 24, 28), (4.0, 1.0, 1.0), (6, 24, 28)), ((24, 28, 6), (1.0, 1.0, 4.0), (6, 24, 28))]
)
def test_volumes_are_taken_slice_by_slice(tmp_path, shape, spacing, inside):
    """Slices lie across the coarsest axis, wherever it is; label maps come back as volumes on the image's own grid."""
    dataset, work, out = _dataset(tmp_path / "d", shape, ".nii.gz", spacing), tmp_path / "work", tmp_path / "out"
    _, predicted = _three_commands(dataset, work, out, configurations=["2d"], recipe="nnunet")
    assert open_case(work / "preprocessed" / "2d", "c0").shape == inside
    assert [p.name for p in (work / "preprocessed").iterdir()] == ["2d"], "only what was asked for is stored"
    for result in predicted.results:
        own = sitk.ReadImage(str(dataset / "imagesTr" / f"{result.case}_0000.nii.gz"))
        written = sitk.ReadImage(str(result.output))
        assert written.GetSize() == own.GetSize() and written.GetSpacing() == own.GetSpacing()
    (held_out,) = (result for result in predicted.results if not result.trained_on)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(held_out.output)))
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(work / "models" / "2d" / "fold_0" / "held_out" / f"{held_out.case}.nii.gz")))
    np.testing.assert_array_equal(array, stored)
