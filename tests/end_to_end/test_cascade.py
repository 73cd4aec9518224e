"""A cascade through the three commands: five low-resolution folds, what each found of the cases it held out, then the second stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from autoseg import fold_runs, pipeline, stages
from autoseg.errors import DatasetError, PlanError, TrainingError
from autoseg.files import Work
from autoseg.inference.model import load_model
from autoseg.network.weights import load_weights, read_about, save_weights
from autoseg.planning.folds import Fold, read_folds
from autoseg.planning.plan_file import read_plan
from autoseg.preprocessing.previous_stage import read_made_by
from autoseg.preprocessing.store import open_case, stored_cases

LOW, SECOND = "3d_lowres", "3d_cascade_fullres"
SETTINGS = {
    "3d_lowres.spacing": [4.0, 2.0, 2.0],
    "3d_lowres.patch_size": [4, 8, 8],
    "3d_lowres.network.features": [4, 6],
    "3d_fullres.patch_size": [8, 16, 16],
    "3d_fullres.network.features": [4, 6],
    "training.epochs": 1,
    "training.steps_per_epoch": 8,
    "training.validation.batches": 1,
    "training.optimiser.lr": 0.02,
    "training.augmentation.transforms": [],
    "prediction.overlap": 0.25,
}
CASES = 6


def _phantoms(folder: Path, cases: range) -> Path:
    """Two boxes that are each other's mirror image, left darker than right, so that sides matter."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in cases:
        rng, shape = np.random.default_rng(number), (14, 20, 24)
        label = np.zeros(shape, np.uint8)
        z, y = (m // 2 + int(rng.integers(-1, 2)) for m in shape[:2])
        label[z - 3 : z + 3, y - 5 : y + 5, 14:19] = 1
        label[z - 3 : z + 3, y - 5 : y + 5, 5:10] = 2
        image = rng.normal(100, 8, shape) + 60 * (label == 1) + 90 * (label == 2)
        for name, array in ((f"imagesTr/c{number}_0000", image.astype(np.float32)), (f"labelsTr/c{number}", label)):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(volume, str(folder / f"{name}.nii.gz"))
    about = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "lobe_left": 1, "lobe_right": 2},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Work, pipeline.Trained]:
    """Dataset, WORK and what train left, for fold 0 of a cascade."""
    root = tmp_path_factory.mktemp("cascade")
    dataset, work = _phantoms(root / "dataset", range(CASES)), root / "work"
    planned = pipeline.plan_and_preprocess(dataset, work, settings=SETTINGS, configurations=[SECOND], workers=0, quiet=True)
    assert planned.stages == (LOW, SECOND) and planned.plan.default_configurations == [SECOND]
    return dataset, Work(work), pipeline.train(work, folds=[0], workers=0, quiet=True)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures of scores take seconds, and are not what is tested here."""
    monkeypatch.setattr(fold_runs, "draw_cross_validation", lambda *_: ())


@pytest.fixture
def copied(trained, tmp_path) -> Work:
    """A WORK of one's own to change."""
    shutil.copytree(trained[1].path, tmp_path / "work")
    return Work(tmp_path / "work")


def _label_map(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _inputs(work: Work) -> dict[str, tuple[int, int]]:
    """When each input of the second stage was written: voxels and record."""
    folder = work.store(SECOND) / "previous_stage"
    return {
        case: ((folder / f"{case}.labels.b2nd").stat().st_mtime_ns, (folder / f"{case}.json").stat().st_mtime_ns)
        for case in stored_cases(work.store(SECOND))
    }


def test_one_fold_needs_all_five_of_the_first_stage(trained):
    _, work, done = trained
    assert not done.problems
    assert done.done == (*((LOW, fold) for fold in range(5)), (SECOND, 0))
    assert list(done.crossvals) == [LOW, SECOND] and len(done.crossvals[LOW].cases) == CASES
    assert not done.ensemble_ready
    assert sorted(p.name for p in (work.path / "preprocessed").iterdir()) == sorted([LOW, SECOND]), "nothing else is stored"


def test_every_input_is_by_a_fold_that_did_not_train_on_the_case(trained):
    _, work, _ = trained
    folds = {fold.name: fold for fold in read_folds(work.folds)}
    cases = stored_cases(work.store(SECOND))
    assert len(cases) == CASES
    for case in cases:
        made_by = read_made_by(work.store(SECOND), case)
        about, key = read_about(work.fold(LOW, made_by.fold).weights)
        assert case in folds[made_by.fold].held_out and case not in folds[made_by.fold].train
        assert case not in about["trained_on"], "the weights themselves say so"
        assert open_case(work.store(SECOND), case).origin.content_key not in about["trained_on"].values()
        assert (made_by.configuration, made_by.weights) == (LOW, key)
    assert len({read_made_by(work.store(SECOND), case).fold for case in cases}) == 5


def test_every_input_is_what_that_fold_found_on_the_second_grid(trained):
    _, work, _ = trained
    found = 0
    for case in stored_cases(work.store(SECOND)):
        stored = open_case(work.store(SECOND), case)
        label_map = _label_map(work.fold(LOW, read_made_by(work.store(SECOND), case).fold).held_out / f"{case}.nii.gz")
        scale = [new / old for new, old in zip(stored.shape, label_map.shape, strict=True)]
        expected = ndimage.zoom(label_map, scale, order=0, grid_mode=True, mode="nearest")
        np.testing.assert_array_equal(stored.previous(), expected)
        found += expected.any()
    assert found, "the first stage finds something in some case"


def test_the_second_stage_has_a_channel_for_each_class(trained):
    _, work, _ = trained

    def widths(configuration: str) -> set[int]:
        return {weight.shape[1] for weight in load_weights(work.fold(configuration, 0).weights)[0].values() if weight.ndim == 5}

    assert 1 + 2 in widths(SECOND) and 1 not in widths(SECOND)
    assert 1 in widths(LOW) and 1 + 2 not in widths(LOW)


def test_predicting_a_held_out_case_gives_what_training_gave(trained, tmp_path):
    """Both stages of fold 0, from the image file: the same label map as from the store and the first stage's stored result."""
    dataset, work, _ = trained
    case = next(fold for fold in read_folds(work.folds) if fold.name == 0).held_out[0]
    image = dataset / "imagesTr" / f"{case}_0000.nii.gz"
    predicted = pipeline.predict(work.path, image, tmp_path / "out", folds=[0], quiet=True)
    (result,) = predicted.results
    assert predicted.model.stages == (LOW, SECOND) and not result.trained_on
    np.testing.assert_array_equal(_label_map(result.output), _label_map(work.fold(SECOND, 0).held_out / f"{case}.nii.gz"))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][case]["configuration"] == SECOND


def test_nothing_is_done_twice(trained):
    _, work, _ = trained
    before, weights = _inputs(work), work.fold(SECOND, 0).weights.stat().st_mtime_ns
    again = pipeline.train(work.path, folds=[0], workers=0, quiet=True)
    assert not again.problems and len(again.done) == 6
    assert (_inputs(work), work.fold(SECOND, 0).weights.stat().st_mtime_ns) == (before, weights)


def _hand_over(work: Work, fold: int) -> None:
    plan = read_plan(work.plan)
    stages.hand_over(work, plan, SECOND, read_folds(work.folds)[fold], device="cpu", quiet=True)


def test_a_fold_that_was_trained_anew_makes_its_cases_anew(copied):
    """Other weights of one first-stage fold: its cases' inputs are made anew, and what was trained on the old ones is refused."""
    before, file = _inputs(copied), copied.fold(LOW, 1).weights
    state, about = load_weights(file)
    save_weights(file, {name: tensor + 0.01 for name, tensor in state.items()}, about)

    (problem,) = pipeline.train(copied.path, folds=[0], workers=0, quiet=True).problems
    assert problem.case == f"{SECOND} fold 0" and "trained anew" in problem.message and "Delete fold_0" in problem.remedy
    assert _inputs(copied) == before, "nobody needed them yet"
    model = load_model(copied.path, folds=[0])
    assert any("trained anew" in notice for notice in model.notices)

    _hand_over(copied, 1)
    changed = {case for case, times in _inputs(copied).items() if times != before[case]}
    assert changed == set(read_folds(copied.folds)[1].held_out)


def test_a_new_case_gets_its_input_from_a_finished_fold(copied, trained, tmp_path):
    """The fold that it joined as held-out did not train on it: it is predicted when the second stage needs it."""
    dataset = _phantoms(tmp_path / "more", range(CASES + 1))
    pipeline.plan_and_preprocess(dataset, copied.path, configurations=[SECOND], workers=0, quiet=True)
    _hand_over(copied, 1)
    new = f"c{CASES}"
    made_by = read_made_by(copied.store(SECOND), new)
    assert new in next(fold for fold in read_folds(copied.folds) if fold.name == made_by.fold).held_out
    assert (copied.fold(LOW, made_by.fold).held_out / f"{new}.nii.gz").is_file()
    assert {case: times for case, times in _inputs(copied).items() if case != new} == _inputs(trained[1])


def test_folds_that_were_moved_by_hand_are_noticed(copied):
    """A first-stage fold that trained on a case which folds.json now has as held out gives no input."""
    content = json.loads(copied.folds.read_text())
    first, second = content["folds"][0], content["folds"][1]
    moved = second["held_out"][0]
    first["held_out"].append(moved)
    first["train"].remove(moved)
    second["held_out"].remove(moved)
    second["train"].append(moved)
    copied.folds.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=f"3d_lowres fold 0 was trained on {moved}"):
        _hand_over(copied, 2)


def test_a_first_stage_that_failed_leaves_the_second_undone(copied, monkeypatch):
    shutil.rmtree(copied.fold(LOW, 3).path)
    shutil.rmtree(copied.fold(SECOND, 0).path)
    real = fold_runs.train_fold

    def fails(plan, name, fold, *rest, **options):
        if (name, fold.name) == (LOW, 3):
            raise PlanError("made to fail", remedy="none")
        return real(plan, name, fold, *rest, **options)

    monkeypatch.setattr(fold_runs, "train_fold", fails)
    done = pipeline.train(copied.path, folds=[0], workers=0, quiet=True)
    assert [problem.case for problem in done.problems] == [f"{LOW} fold 3", f"{SECOND} fold 0"]
    assert "3d_lowres fold 3" in done.problems[1].message
    assert (SECOND, 0) not in done.done


def test_extending_goes_for_the_second_stage_alone(copied, monkeypatch):
    """Named is the cascade; if its first stage were extended too, what the second learnt from would be no more."""
    extended = []

    def run(work, plan, configuration, fold, settings, **_):
        extended.append((configuration, fold.name, settings.extend))

    monkeypatch.setattr(fold_runs, "run_fold", run)
    assert not pipeline.train(copied.path, folds=[0], epochs=2, extend=True, workers=0, quiet=True).problems
    assert extended == [(SECOND, 0, True)]
    pipeline.train(copied.path, folds=[1], configurations=[LOW], epochs=2, extend=True, workers=0, quiet=True)
    assert extended[1:] == [(LOW, 1, True)]


def test_a_budget_is_shared_by_all_folds_of_both_stages(copied, monkeypatch):
    """Ten folds of a hundred seconds: ten each, and what one leaves is the others'."""
    shutil.rmtree(copied.path / "models")
    now, shares = [1000.0], []
    monkeypatch.setattr(fold_runs.time, "monotonic", lambda: now[0])

    def run(work, plan, configuration, fold, settings, *, until, **_):
        shares.append((configuration, fold.name, until - now[0]))
        now[0] += 5 if configuration == LOW else until - now[0]

    monkeypatch.setattr(fold_runs, "run_fold", run)
    pipeline.train(copied.path, folds=["all"], budget_seconds=100, workers=0, quiet=True)
    assert [(name, fold) for name, fold, _ in shares] == [(stage, fold) for stage in (LOW, SECOND) for fold in range(5)]
    assert shares[0][2] == pytest.approx(10) and shares[1][2] == pytest.approx(95 / 9)
    assert sum(share for name, _, share in shares if name == SECOND) == pytest.approx(75)


def test_the_first_stage_alone(trained, tmp_path):
    """Asked for by itself it is prepared, trained and predicted without its second stage."""
    dataset, work, _ = trained
    alone = tmp_path / "alone"
    planned = pipeline.plan_and_preprocess(dataset, alone, settings=SETTINGS, configurations=[LOW], workers=0, quiet=True)
    assert planned.stages == (LOW,) and [p.name for p in (alone / "preprocessed").iterdir()] == [LOW]
    with pytest.raises(DatasetError, match="6 of 6 cases are not prepared for 3d_cascade_fullres"):
        pipeline.train(alone, folds=[0], configurations=[SECOND], workers=0, quiet=True)
    assert not (alone / "models").exists(), "refused before its first stage has cost hours"
    done = pipeline.train(work.path, folds=[1], configurations=[LOW], workers=0, quiet=True)
    assert done.done == ((LOW, 1),) and list(done.crossvals) == [LOW]
    case = next(fold for fold in read_folds(work.folds) if fold.name == 1).held_out[0]
    image = dataset / "imagesTr" / f"{case}_0000.nii.gz"
    predicted = pipeline.predict(work.path, image, tmp_path / "out", folds=[1], configurations=[LOW], quiet=True)
    assert predicted.model.stages == (LOW,)
    np.testing.assert_array_equal(_label_map(predicted.results[0].output), _label_map(work.fold(LOW, 1).held_out / f"{case}.nii.gz"))


def test_full_of_both_stages(copied, trained, tmp_path):
    """`full` learns from all cases, with the inputs that the first stage's folds gave, and predicts with the `full` models of both."""
    before = _inputs(copied)
    done = pipeline.train(copied.path, folds=["full"], workers=0, quiet=True)
    assert not done.problems and done.done[-2:] == ((LOW, "full"), (SECOND, "full"))
    assert _inputs(copied) == before
    about, _ = read_about(copied.fold(SECOND, "full").weights)
    assert len(about["trained_on"]) == CASES
    image = trained[0] / "imagesTr" / "c0_0000.nii.gz"
    model = pipeline.predict(copied.path, image, tmp_path / "out", folds=["full"], quiet=True).model
    assert model.folds == model.first_stage.folds == ("full",)


FOLDS = [Fold(n, tuple(f"c{i}" for i in range(3) if i != n), (f"c{n}",)) for n in range(3)]


@pytest.mark.parametrize(
    ("configurations", "wanted", "expected"),
    [
        ([SECOND], [1], "L0 L1 L2 S1"),
        ([SECOND], ["all"], "L0 L1 L2 S0 S1 S2"),
        ([SECOND], ["full"], "L0 L1 L2 Lfull Sfull"),
        ([LOW], [1], "L1"),
        ([LOW, SECOND], [2], "L2 L0 L1 S2"),
        ([SECOND, LOW], ["full", 0], "L0 L1 L2 Lfull Sfull S0"),
    ],
)
def test_which_folds_run_in_which_order(trained, configurations, wanted, expected):
    plan = read_plan(trained[1].plan)
    runs = stages.runs_in_order(plan, configurations, FOLDS, wanted)
    assert " ".join(f"{'L' if name == LOW else 'S'}{fold.name}" for name, fold in runs) == expected


def test_a_cascade_that_the_plan_does_not_have_is_refused(make_dataset, tmp_path):
    with pytest.raises(PlanError, match="3d_cascade_fullres") as caught:
        pipeline.plan_and_preprocess(make_dataset(cases=5), tmp_path / "work", configurations=[SECOND], workers=0, quiet=True)
    assert "3d_lowres.spacing" in caught.value.remedy
