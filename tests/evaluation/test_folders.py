"""Two folders against each other: pairs, what is left out and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.labels import LabelSet
from autoseg.errors import DatasetError, excluded_cases
from autoseg.evaluation import Pair, evaluate_folders, evaluation_text, fold_scores, write_evaluation
from autoseg.files import write_json

LABELS = LabelSet.declared({"background": 0, "a": 1, "b": 2})
METRICS = ("dice", "sensitivity")


def save(path, array, spacing=(1.0, 1.0, 2.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for number in range(4):
        rng = np.random.default_rng(number)
        save(references / f"case{number}.nii.gz", rng.integers(0, 3, (4, 5, 6)))
        save(predictions / f"case{number}.{'nii.gz' if number % 2 else 'mha'}", rng.integers(0, 3, (4, 5, 6)))
    return predictions, references


def evaluate(folders, **changes):
    arguments = {"labels": LABELS, "groups": {"both": ("a", "b")}, "metrics": METRICS, "workers": 1, **changes}
    return evaluate_folders(*folders, **arguments)


def test_files_are_paired_by_case_whatever_their_format(folders):
    found = evaluate(folders)
    assert [case.case for case in found.cases] == [f"case{i}" for i in range(4)] and not found.problems
    rng = np.random.default_rng(2)
    truth, prediction = rng.integers(0, 3, (4, 5, 6)) == 1, rng.integers(0, 3, (4, 5, 6)) == 1
    assert found.cases[2].classes["a"].values["dice"] == pytest.approx(2 * (truth & prediction).sum() / (truth.sum() + prediction.sum()))
    assert found.classes["both"].present == 4 and "both (a + b)" in evaluation_text(found)


@pytest.mark.parametrize("found", [False, True])
def test_what_labels_present_leaves_out_is_not_scored_there(folders, found):
    """Given, or found in the dataset.json beside the references."""
    _, references = folders
    save(references / "case0.nii.gz", np.random.default_rng(0).integers(0, 2, (4, 5, 6)))
    present = {"case0": ["a"], "case_of_another_folder": ["b"]}
    if found:
        content = {"labels": {"background": 0, "a": 1, "b": 2}, "labels_present": present}
        (references.parent / "dataset.json").write_text(json.dumps(content))
    result = evaluate(folders, **({"labels": None} if found else {"annotated": present}))
    assert (result.classes["b"].not_annotated, result.classes["b"].present, result.classes["a"].not_annotated) == (1, 3, 0)
    values = [case.classes["b"].values["dice"] for case in result.cases]
    assert np.isnan(values[0]) and result.classes["b"].metrics["dice"].mean == pytest.approx(np.mean(values[1:]))
    assert result.classes["both"].not_annotated == 1 and "n/a" in evaluation_text(result)


def test_suffixes_of_label_maps_are_no_part_of_a_name(folders):
    predictions, references = folders
    (references / "case0.nii.gz").rename(references / "case0_seg.nii.gz")
    (predictions / "case1.nii.gz").rename(predictions / "case1_0000.nii.gz")
    found = evaluate(folders)
    assert sorted(case.case for case in found.cases) == [f"case{i}" for i in range(4)] and not found.problems


def test_what_cannot_be_scored_is_named_and_the_rest_goes_on(folders):
    predictions, references = folders
    save(predictions / "case0.mha", np.zeros((4, 5, 6)), spacing=(1.0, 1.0, 3.0))
    (predictions / "case1.nii.gz").write_bytes(b"no image")
    save(references / "lonely.nii.gz", np.zeros((4, 5, 6)))
    save(predictions / "extra.nii.gz", np.zeros((4, 5, 6)))
    save(predictions / "case3.nii.gz", np.full((4, 5, 6), 7))
    found = evaluate(folders)
    kinds = {problem.case: (problem.kind, problem.message) for problem in found.problems}
    assert kinds["case0"][0] == "GridError" and kinds["case1"][0] == "UnreadableFileError" and kinds["case3"][0] == "LabelError"
    assert "no prediction" in kinds["lonely"][1] and "no reference" in kinds["extra"][1]
    assert [case.case for case in found.cases] == ["case2"]
    assert excluded_cases(found.problems) == {"case0", "case1", "case3", "lonely", "extra"}


def test_cases_that_the_model_was_trained_on_stay_out_of_the_headline(folders):
    predictions, _ = folders
    about = {f"case{i}": {"content_key": f"key{i}", "folds": [0, 1], "trained_on": [1] if i == 1 else [], "warnings": []} for i in range(4)}
    write_json(predictions / "summary.json", "predictions", {"cases": about})
    found = evaluate(folders)
    assert [c.case for c in found.trained_on] == ["case1"] and [c.case for c in found.cases] == ["case0", "case2", "case3"]
    expected = np.mean([c.classes["a"].values["dice"] for c in found.cases])
    assert found.classes["a"].metrics["dice"].mean == pytest.approx(expected) and found.cases[0].content_key == "key0"
    assert any(p.case == "case1" and "fold 1" in p.message for p in found.problems)
    text = evaluation_text(found)
    assert text.index("case1") > text.index("Trained on, so not counted")
    (predictions / "summary.json").write_text("{}")
    plain = evaluate(folders)
    assert len(plain.cases) == 4 and [p.severity for p in plain.problems] == ["warning"]


def test_labels_come_from_dataset_json_or_from_the_files(folders):
    _, references = folders
    bare = evaluate(folders, labels=None, groups={})
    assert list(bare.classes) == ["1", "2"]
    content = {"labels": {"background": 0, "one": 1, "two": 2}, "label_groups": {"all": ["one", "two"]}}
    (references.parent / "dataset.json").write_text(json.dumps(content))
    named = evaluate(folders, labels=None, groups={})
    assert list(named.classes) == ["one", "two", "all"] and named.classes["one"] == bare.classes["1"]


def test_a_value_that_only_some_cases_show_is_absent_in_the_others(folders):
    predictions, references = folders
    save(references / "case0.nii.gz", np.zeros((4, 5, 6)))
    save(predictions / "case0.mha", np.zeros((4, 5, 6)))
    found = evaluate(folders, labels=None, groups={})
    assert (found.classes["2"].present, found.classes["2"].absent, found.classes["2"].alarms) == (3, 1, 0)
    assert found.cases[0].classes["2"].counts.TN == 120


def test_folders_without_a_common_case_are_refused(folders, tmp_path):
    with pytest.raises(DatasetError, match="no case has both"):
        save(tmp_path / "other" / "x.nii.gz", np.zeros((4, 5, 6)))
        evaluate((tmp_path / "other", folders[1]))
    with pytest.raises(DatasetError, match="no such folder"):
        evaluate((tmp_path / "nowhere", folders[1]))
    save(folders[0] / "case0.nii.gz", np.zeros((4, 5, 6)))
    with pytest.raises(DatasetError, match=r"case0\.mha and case0\.nii\.gz|case0\.nii\.gz and case0\.mha"):
        evaluate(folders)


def test_fold_scores_keep_the_order_and_the_keys(folders):
    predictions, references = folders
    pairs = [Pair(f"case{i}", next(predictions.glob(f"case{i}.*")), references / f"case{i}.nii.gz", f"key{i}") for i in (3, 1)]
    fold, problems = fold_scores(
        2,
        [*pairs, Pair("gone", predictions / "gone.mha", references / "case0.nii.gz")],
        labels=LABELS,
        groups={},
        metrics=METRICS,
        workers=1,
    )
    assert fold.fold == 2 and [(c.case, c.content_key) for c in fold.cases] == [("case3", "key3"), ("case1", "key1")]
    assert [p.case for p in problems] == ["gone"]


def test_the_evaluation_is_written_with_its_problems(folders, tmp_path):
    save(folders[0] / "extra.nii.gz", np.zeros((4, 5, 6)))
    write_evaluation(tmp_path / "out.json", evaluate(folders))
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["schema"] == "autoseg.evaluation/1" and len(stored["cases"]) == 4
    assert stored["problems"][0]["case"] == "extra" and str(tmp_path) not in (tmp_path / "out.json").read_text()


def test_several_processes_give_the_same(folders):
    assert evaluate(folders, workers=2) == evaluate(folders)
