"""From a raw folder to scored folds and predictions, through the functions behind the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import pipeline
from autoseg.errors import DatasetError, ModelError, PlanError
from autoseg.planning.plan_file import read_plan

FOLDS = 5


def _run(dataset: Path, work: Path, settings: dict, folds=(0,), **options):
    planned = pipeline.plan_and_preprocess(dataset, work, settings=settings, workers=0, quiet=True, **options)
    trained = pipeline.train(work, folds=folds, workers=0, quiet=True)
    return planned, trained


def _written(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in sorted(folder.glob("*.nii.gz"))}


def test_five_folds_then_their_ensemble_on_new_images(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=6), tmp_path / "work"
    _, trained = _run(dataset, work, tiny, folds=("all",))

    assert trained.ensemble_ready and not trained.problems
    cases = trained.crossvals["3d_fullres"].cases
    assert sorted(case.case for case in cases) == [f"case_{n:02d}" for n in range(6)], "each case is held out once"
    assert "Mean Dice" in (work / "models" / "3d_fullres" / "crossval.txt").read_text()

    new = make_dataset(cases=7, name="new") / "imagesTr"
    for known in range(5):
        (new / f"case_{known:02d}_0000.nii.gz").unlink()
    predicted = pipeline.predict(work, new, tmp_path / "out", quiet=True)
    assert predicted.model.folds == (0, 1, 2, 3, 4)
    assert sorted(_written(tmp_path / "out")) == ["case_05.nii.gz", "case_06.nii.gz"]
    for result, image in zip(predicted.results, sorted(new.glob("*.nii.gz")), strict=True):
        written, own = sitk.ReadImage(str(result.output)), sitk.ReadImage(str(image))
        assert written.GetSize() == own.GetSize() and written.GetSpacing() == own.GetSpacing()
        assert written.GetOrigin() == own.GetOrigin() and written.GetDirection() == own.GetDirection()


def test_a_case_that_was_trained_on_is_told_and_kept_out_of_the_headline(make_dataset, tiny, tmp_path):
    dataset, work, out = make_dataset(cases=5), tmp_path / "work", tmp_path / "out"
    _, trained = _run(dataset, work, tiny)
    held_out = trained.crossvals["3d_fullres"].cases[0].case
    # the same voxels under another name, in another format and compression
    images = tmp_path / "renamed"
    images.mkdir()
    for path in sorted((dataset / "imagesTr").glob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(images / path.name.replace("_0000.nii.gz", ".mha")))
    predicted = pipeline.predict(work, images, out, quiet=True)

    for result in predicted.results:
        assert bool(result.trained_on) == (result.case != held_out)
    scored = pipeline.evaluate(out, dataset / "labelsTr", labels=dataset)
    assert [case.case for case in scored.cases] == [held_out]
    assert len(scored.trained_on) == 4


@pytest.mark.parametrize(
    "values", [(2, 5), pytest.param((128, 255), marks=pytest.mark.slow), pytest.param((7, 1000), marks=pytest.mark.slow)]
)
def test_label_values_are_the_users(make_dataset, tiny, tmp_path, values):
    dataset, work = make_dataset(cases=5, values=tuple(min(v, 255) for v in values)), tmp_path / "work"
    if max(values) > 255:
        for path in (dataset / "labelsTr").glob("*.nii.gz"):
            stored = sitk.ReadImage(str(path))
            array = sitk.GetArrayFromImage(stored).astype(np.uint16)
            array[array == 255] = values[1]
            changed = sitk.GetImageFromArray(array)
            changed.CopyInformation(stored)
            sitk.WriteImage(changed, str(path))
        content = json.loads((dataset / "dataset.json").read_text())
        content["labels"]["back"] = values[1]
        (dataset / "dataset.json").write_text(json.dumps(content))
    settings = tiny | {"training.epochs": 10, "training.steps_per_epoch": 10}
    _run(dataset, work, settings)
    for array in _written(work / "models" / "3d_fullres" / "fold_0" / "held_out").values():
        assert array.dtype == np.min_scalar_type(array.max())
        assert set(np.unique(array)) <= {0, *values}
        assert array.any(), "ten epochs find something"


@pytest.mark.parametrize(
    ("name", "made", "settings"),
    [
        ("two channels", {"channels": ("T1", "T2")}, {}),
        ("slices one by one", {}, {"2d.patch_size": [16, 16], "2d.network.features": [4, 8]}),
        (
            "overlapping regions",
            {
                "labels": {"background": 0, "both": [1, 2], "back": [2]},
                "extra": {"regions_class_order": [1, 2]},
            },
            {},
        ),
        ("an ignore label", {"labels": {"background": 0, "front": 1, "ignore": 2}}, {}),
    ],
)
def test_one_way_for_all_kinds_of_data(make_dataset, tiny, tmp_path, name, made, settings):
    dataset, work = make_dataset(cases=5, **made), tmp_path / "work"
    configurations = ["2d"] if settings else ["3d_fullres"]
    given = {key: value for key, value in tiny.items() if "." in key and "network" not in key} | settings if settings else tiny
    pipeline.plan_and_preprocess(dataset, work, settings=given, configurations=configurations, workers=0, quiet=True)
    trained = pipeline.train(work, folds=[0], configurations=configurations, workers=0, quiet=True)
    assert not trained.problems
    predicted = pipeline.predict(work, dataset / "imagesTr", tmp_path / "out", configurations=configurations, quiet=True)
    assert all(result.output for result in predicted.results)
    assert len(_written(tmp_path / "out")) == 5


def test_an_edited_plan_is_obeyed_by_every_later_stage(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, workers=0, quiet=True)
    text = json.loads((work / "plan.json").read_text())
    part = text["configurations"]["3d_fullres"]
    part["spacing"] = [4.0, 2.0, 2.0]
    part["patch_size"] = [4, 8, 8]
    part["network"]["features"] = [3, 5]
    text["training"]["steps_per_epoch"] = 3
    text["prediction"]["weighting"] = "uniform"
    (work / "plan.json").write_text(json.dumps(text))

    pipeline.plan_and_preprocess(dataset, work, workers=0, quiet=True)  # prepares the cases anew, keeps the plan
    pipeline.train(work, folds=[0], workers=0, quiet=True)

    from autoseg.inference.model import load_model
    from autoseg.preprocessing.store import open_case

    stored = open_case(work / "preprocessed" / "3d_fullres", "case_00")
    assert stored.spacing == (4.0, 2.0, 2.0) and stored.shape == (7, 10, 12)
    rows = [json.loads(line) for line in (work / "models/3d_fullres/fold_0/history.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    model = load_model(work)
    assert model.predictor.prediction.weighting == "uniform"
    assert model.plan.configurations["3d_fullres"].network.features == [3, 5]
    fold_plan = read_plan(work / "models/3d_fullres/fold_0/plan.json")
    assert fold_plan.configurations["3d_fullres"].patch_size == [4, 8, 8]


def test_a_network_and_a_loss_of_ones_own(make_dataset, tiny, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch.nn import functional as F\n"
        "def network(plan, channels, outputs):\n"
        "    return torch.nn.Conv3d(channels, outputs, 3, padding=1)\n"
        "def loss(plan, outputs):\n"
        "    def call(logits, target):\n"
        "        value = F.cross_entropy(logits, target.long())\n"
        "        return value, {'mine': value.detach()}\n"
        "    return call\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    settings = tiny | {
        "3d_fullres.network.factory": "mine:network",
        "training.loss.factory": "mine:loss",
        "training.deep_supervision": False,
    }
    _, trained = _run(dataset, work, settings)
    assert not trained.problems
    row = json.loads((work / "models/3d_fullres/fold_0/history.jsonl").read_text().splitlines()[0])
    assert row["mine"] > 0
    with pytest.raises(ModelError, match="trust"):
        pipeline.predict(work, dataset / "imagesTr", tmp_path / "out", quiet=True)
    assert pipeline.predict(work, dataset / "imagesTr", tmp_path / "out", trust_code=True, quiet=True).results[0].output

    plan = json.loads((work / "plan.json").read_text())
    plan["recipe_options"] = {}  # as if somebody else had written it there
    (work / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(PlanError, match="trust-code"):
        pipeline.train(work, folds=[1], workers=0, quiet=True)


def test_a_plan_lasts(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=6), tmp_path / "work"
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for part in ("imagesTr/case_05_0000.nii.gz", "labelsTr/case_05.nii.gz"):
        shutil.move(dataset / part, hidden / Path(part).name)
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, workers=0, quiet=True)
    plan, folds = (work / "plan.json").read_text(), json.loads((work / "folds.json").read_text())["folds"]
    stored = {p.name: p.stat().st_mtime_ns for p in (work / "preprocessed/3d_fullres").iterdir()}

    shutil.move(hidden / "case_05_0000.nii.gz", dataset / "imagesTr")
    shutil.move(hidden / "case_05.nii.gz", dataset / "labelsTr")
    pipeline.plan_and_preprocess(dataset, work, workers=0, quiet=True)
    assert (work / "plan.json").read_text() == plan
    for before, after in zip(folds, json.loads((work / "folds.json").read_text())["folds"], strict=True):
        assert set(before["held_out"]) <= set(after["held_out"])
    now = {p.name: p.stat().st_mtime_ns for p in (work / "preprocessed/3d_fullres").iterdir()}
    assert {name: now[name] for name in stored} == stored, "what was stored is not made again"
    assert len(now) > len(stored)

    with pytest.raises(PlanError, match="--replan"):
        pipeline.plan_and_preprocess(dataset, work, settings={"patch_size": [8, 8, 8]}, workers=0, quiet=True)
    with pytest.raises(PlanError, match="--replan"):
        pipeline.plan_and_preprocess(dataset, work, recipe="nnunet", workers=0, quiet=True)


def test_a_bad_case_is_left_out_by_name_and_strict_refuses(make_dataset, tiny, tmp_path):
    dataset = make_dataset(cases=6)
    image = dataset / "imagesTr" / "case_02_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:2000])
    planned = pipeline.plan_and_preprocess(dataset, tmp_path / "work", settings=tiny, workers=0, quiet=True)
    assert planned.failed == {"case_02"}
    (row,) = [p for p in planned.problems if p.severity == "error"]
    assert row.kind == "UnreadableFileError" and row.file == image.name and row.remedy
    folds = json.loads((tmp_path / "work" / "folds.json").read_text())["folds"]
    assert not any("case_02" in (*fold["train"], *fold["held_out"]) for fold in folds)
    with pytest.raises(DatasetError, match="case_02"):
        pipeline.plan_and_preprocess(dataset, tmp_path / "strict", settings=tiny, strict=True, workers=0, quiet=True)
    assert not (tmp_path / "strict" / "plan.json").exists()


def test_a_dry_run_writes_nothing(make_dataset, tiny, tmp_path):
    pipeline.plan_and_preprocess(make_dataset(cases=5), tmp_path / "work", settings=tiny, dry_run=True, workers=0, quiet=True)
    assert not (tmp_path / "work").exists()


def test_written_json_names_no_folder_of_this_machine(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    _run(dataset, work, tiny)
    pipeline.predict(work, dataset / "imagesTr", tmp_path / "out", quiet=True)
    for path in [*work.rglob("*.json"), *work.rglob("*.jsonl"), tmp_path / "out" / "summary.json"]:
        text = path.read_text()
        assert str(tmp_path) not in text and text.endswith("\n"), path.name
        if path.suffix == ".json":
            content = json.loads(text)
            assert content["schema"].startswith("autoseg."), path.name


def test_a_budget_ends_in_time_and_says_when_it_cannot(make_dataset, tiny, tmp_path):
    import time

    dataset, work = make_dataset(cases=5), tmp_path / "work"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, workers=0, quiet=True)
    began = time.monotonic()
    trained = pipeline.train(work, folds=[0], budget_seconds=12, workers=0, quiet=True)
    assert not trained.problems
    assert time.monotonic() - began < 16
    refused = pipeline.train(work, folds=[1], budget_seconds=0.001, workers=0, quiet=True)
    assert [p.kind for p in refused.problems] == ["ResourceError"] and "--budget" in refused.problems[0].remedy


def test_a_fold_of_another_plan_is_never_mixed_in(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    _run(dataset, work, tiny)
    pipeline.plan_and_preprocess(dataset, work, settings=tiny | {"network.features": [5, 9]}, replan=True, workers=0, quiet=True)
    with pytest.raises(PlanError, match=r"fold 0 was trained by another plan.*network\.features"):
        pipeline.train(work, workers=0, quiet=True)
    shutil.rmtree(work / "models" / "3d_fullres" / "fold_0")
    assert not pipeline.train(work, folds=[0], workers=0, quiet=True).problems


def test_one_model_of_all_cases_predicts_only_when_asked_for(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=5), tmp_path / "work"
    _, trained = _run(dataset, work, tiny, folds=("full",))
    assert trained.done == (("3d_fullres", "full"),) and not trained.crossvals
    with pytest.raises(ModelError, match="full"):
        pipeline.predict(work, dataset / "imagesTr", tmp_path / "out", quiet=True)
    predicted = pipeline.predict(work, dataset / "imagesTr", tmp_path / "out", folds=["full"], quiet=True)
    assert all(result.trained_on == ("full",) for result in predicted.results)


def test_cases_that_cannot_be_prepared_leave_the_folds(make_dataset, tiny, tmp_path, monkeypatch):
    """A case that was sound when it was measured and fails later is named and left out, and training goes on."""
    from autoseg.errors import Problem
    from autoseg.pipeline import preparing
    from autoseg.preprocessing import preprocess as room

    real = room.preprocess

    def one_fails(*arguments, **options):
        problems = real(*arguments, **options)
        return [*problems, Problem("error", "UnreadableFileError", "it vanished", "Restore it", "case_04")]

    monkeypatch.setattr(preparing, "preprocess", one_fails)
    planned = pipeline.plan_and_preprocess(make_dataset(cases=6), tmp_path / "work", settings=tiny, workers=0, quiet=True)
    assert planned.failed == {"case_04"}
    folds = json.loads((tmp_path / "work" / "folds.json").read_text())["folds"]
    assert len(folds) == 5 and not any("case_04" in (*fold["train"], *fold["held_out"]) for fold in folds)
