"""Regions, voxels to ignore and cases that annotate only some classes, from the dataset to the scores."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import pipeline
from autoseg.evaluation.scores import read_scores
from autoseg.files import Work
from autoseg.preprocessing.store import ANNOTATED, open_case
from autoseg.training.history import read_rows


def rewrite(path, change):
    stored = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(stored)))
    changed.CopyInformation(stored)
    sitk.WriteImage(changed, str(path))


def read(path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def one_fold(dataset, work, settings):
    pipeline.plan_and_preprocess(dataset, work, settings=settings, workers=0, quiet=True)
    trained = pipeline.train(work, folds=[0], workers=0, quiet=True)
    assert not trained.problems
    return trained


def test_a_class_that_half_of_the_cases_do_not_annotate(make_dataset, tiny, tmp_path):
    """All held-out cases lack class back: it is n/a there, stays out of the mean, and the network still has an output for it."""
    names = [f"case_{n:02d}" for n in range(6)]
    dataset, work = make_dataset(cases=6), tmp_path / "work"
    content = json.loads((dataset / "dataset.json").read_text())
    (dataset / "splits_final.json").write_text(json.dumps([{"train": names[2:], "val": names[:2]}, {"train": names[:2], "val": names[2:]}]))
    content["labels_present"] = {name: ["front"] for name in (names[0], names[1], names[2])}
    (dataset / "dataset.json").write_text(json.dumps(content))
    for name in names[:3]:
        rewrite(dataset / "labelsTr" / f"{name}.nii.gz", lambda a: np.where(a == 2, 0, a).astype(np.uint8))
    trained = one_fold(dataset, work, tiny)
    fold = Work(work).fold("3d_fullres", 0)
    assert open_case(Work(work).store("3d_fullres"), names[0]).annotated == ("front",)
    classes = trained.crossvals["3d_fullres"].classes
    assert (classes["back"].not_annotated, classes["back"].present, classes["back"].absent) == (2, 0, 0)
    assert classes["front"].not_annotated == 0 and trained.crossvals["3d_fullres"].foreground_mean == classes["front"].metrics["dice"].mean
    assert json.loads(fold.scores.read_text())["cases"][names[0]]["classes"]["back"]["annotated"] is False
    assert "n/a" in Work(work).crossval("3d_fullres").with_suffix(".txt").read_text()
    row = read_rows(fold.history)[-1]
    assert row["val_dice"]["back"] is None and row["dice"]["back"] is not None  # held-out patches know nothing of it, training ones do
    # evaluate, with the labels of the dataset, leaves it out too
    scored = pipeline.evaluate(fold.held_out, dataset / "labelsTr", labels=dataset / "dataset.json")
    assert scored.classes["back"].not_annotated == 2


def test_what_a_case_annotates_may_change_and_only_that_case_is_prepared_again(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=4), tmp_path / "work"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, workers=0, quiet=True)
    store = Work(work).store("3d_fullres")
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.json")}
    content = json.loads((dataset / "dataset.json").read_text())
    content["labels_present"] = {"case_01": ["front"]}
    (dataset / "dataset.json").write_text(json.dumps(content))
    rewrite(dataset / "labelsTr" / "case_01.nii.gz", lambda a: np.where(a == 2, 0, a).astype(np.uint8))
    pipeline.plan_and_preprocess(dataset, work, workers=0, quiet=True)
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.json")}
    assert {name for name in before if before[name] != after[name]} == {"case_01.json"}
    assert open_case(store, "case_01").annotated == ("front",)


def test_regions_with_an_ignore_label_and_a_region_that_nobody_annotated(make_dataset, tiny, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    extra = {"regions_class_order": [1, 2], "labels_present": {"case_01": ["whole"], "case_03": ["whole"]}}
    dataset, work = make_dataset(cases=5, labels=labels, extra=extra), tmp_path / "work"
    for path in sorted((dataset / "labelsTr").iterdir()):

        def ignored(array):
            array[:, :, -6:] = 3
            return array

        rewrite(path, ignored)
    one_fold(dataset, work, tiny)
    scores = read_scores(Work(work).fold("3d_fullres", 0).scores)
    assert scores.cases
    for case in scores.cases:
        truth = read(dataset / "labelsTr" / f"{case.case}.nii.gz")
        whole, core = case.classes["whole"], case.classes["core"]
        assert sum(vars(whole.counts).values()) == (truth != 3).sum()
        assert np.isin(truth, (1, 2)).sum() == whole.counts.TP + whole.counts.FN
        assert core.annotated == (case.case not in extra["labels_present"])
        assert not core.annotated or (truth == 2).sum() == core.counts.TP + core.counts.FN
    for path in Work(work).fold("3d_fullres", 0).held_out.glob("*.nii.gz"):
        assert set(np.unique(read(path))) <= {0, 1, 2}


@pytest.mark.slow
def test_nested_tumour_regions_of_real_cases_with_voxels_to_ignore(shared_data, tmp_path):
    """brats_2ch with the lowest fifth of each head left unannotated: through planning, store, training, prediction and scores."""
    dataset, work = tmp_path / "brats", tmp_path / "work"
    shutil.copytree(shared_data("brats_2ch"), dataset)
    content = json.loads((dataset / "dataset.json").read_text())
    content["labels"]["ignore"] = 4
    (dataset / "dataset.json").write_text(json.dumps(content))
    for path in (dataset / "labelsTr").iterdir():

        def ignored(array):
            array[: len(array) // 5] = 4
            return array

        rewrite(path, ignored)
    settings = {"patch_size": [48, 64, 64], "network.features": [8, 16, 32, 64], "training.epochs": 2, "training.steps_per_epoch": 20}
    trained = one_fold(dataset, work, settings)
    folder, names = Work(work), ("whole_tumor", "tumor_core", "enhancing_tumor")
    assert tuple(trained.plan.dataset.label_set().names) == names
    store = folder.store("3d_fullres")
    for case in (path.stem for path in store.glob("*.json")):
        stored = open_case(store, case)
        indices, ignore = stored.labels(), trained.plan.dataset.label_set().ignore_index
        for number, members in {1: (1, 2, 3), 2: (2, 3), 3: (3,), ANNOTATED: (0, 1, 2, 3)}.items():
            places = stored.locations[number]
            assert np.isin(indices[tuple(places.T)], members).all() and len(places), (case, number)
        assert (indices == ignore).any()
    rows = read_rows(folder.fold("3d_fullres", 0).history)
    assert rows[-1]["loss"] < rows[0]["loss"]
    scores = read_scores(folder.fold("3d_fullres", 0).scores)
    for case in scores.cases:
        truth = read(dataset / "labelsTr" / f"{case.case}.nii.gz")
        found = read(folder.fold("3d_fullres", 0).held_out / f"{case.case}.nii.gz")
        assert set(np.unique(found)) <= {0, 1, 2, 3}
        for name, values in zip(names, ((1, 2, 3), (2, 3), (3,)), strict=True):
            true, predicted = np.isin(truth, values)[truth != 4], np.isin(found, values)[truth != 4]
            counts = case.classes[name].counts
            expected = (true & predicted).sum(), (~true & predicted).sum(), (true & ~predicted).sum()
            assert expected == (counts.TP, counts.FP, counts.FN)
    assert max(case.classes["whole_tumor"].values["dice"] for case in scores.cases) > 0.2
