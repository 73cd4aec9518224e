"""A plan lasts: cases are added, folds stand, and whoever asks is told what a new plan would move."""

from __future__ import annotations

import json
import shutil

import pytest

from autoseg import pipeline
from autoseg.cli.main import main
from autoseg.errors import PlanError
from autoseg.files import Work
from autoseg.planning.folds import Fold, read_folds, write_folds
from autoseg.planning.plan_file import read_plan

QUIET = {"workers": 0, "quiet": True}


@pytest.fixture
def grown(make_dataset, tiny, tmp_path):
    """A WORK of 6 cases with a trained fold 0, and its dataset with 8 more cases, of finer spacing."""
    dataset, work = make_dataset(cases=6), tmp_path / "work"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, **QUIET)
    pipeline.train(work, folds=[0], **QUIET)
    before = {name: (work / name).read_bytes() for name in ("plan.json", "models/3d_fullres/fold_0/cases.json")}
    more = make_dataset(cases=14, name="more", spacing=(1.6, 0.8, 0.8))
    for folder in ("imagesTr", "labelsTr"):
        for path in sorted((more / folder).iterdir()):
            if int(path.name[5:7]) >= 6:
                shutil.copy(path, dataset / folder / path.name)
    return dataset, Work(work), before


def test_added_cases_leave_plan_folds_and_finished_lists_as_they_were(grown, capsys):
    dataset, work, before = grown
    old = {fold.name: fold for fold in read_folds(work.folds)}
    pipeline.plan_and_preprocess(dataset, work.path, **QUIET)
    assert {name: (work.path / name).read_bytes() for name in before} == before
    new = read_folds(work.folds)
    assert sorted(c for fold in new for c in fold.held_out) == [f"case_{n:02d}" for n in range(14)]
    for fold in new:
        assert set(old[fold.name].held_out) <= set(fold.held_out) and set(old[fold.name].train) <= set(fold.train)

    trained = pipeline.train(work.path, folds=[0], **QUIET)
    assert (work.path / "models/3d_fullres/fold_0/cases.json").read_bytes() == before["models/3d_fullres/fold_0/cases.json"]
    learnt, learnable = len(old[0].train), len(new[0].train)
    marked = f"trained on {learnt} of {learnable} cases"
    assert learnt < learnable
    assert marked in (work.path / "models/3d_fullres/crossval.txt").read_text()
    assert any(marked in note for note in trained.crossvals["3d_fullres"].notes)
    assert marked in pipeline.info(work.path)
    assert main(["train", str(work.path), "--fold", "0", "--workers", "0", "--quiet"]) == 0
    assert marked in capsys.readouterr().out


def test_new_held_out_cases_are_scored_without_training(grown):
    dataset, work, _ = grown
    pipeline.plan_and_preprocess(dataset, work.path, **QUIET)
    [fold] = [fold for fold in read_folds(work.folds) if fold.name == 0]
    assert "scored on" in pipeline.info(work.path)
    result = pipeline.train(work.path, folds=[0], validate_only=True, **QUIET).crossvals["3d_fullres"]
    assert sorted(case.case for case in result.cases) == sorted(fold.held_out)
    assert "scored on" not in pipeline.info(work.path)


def test_a_fold_not_yet_begun_learns_from_the_new_cases_too(grown):
    dataset, work, _ = grown
    pipeline.plan_and_preprocess(dataset, work.path, **QUIET)
    pipeline.train(work.path, folds=[1], **QUIET)
    own = json.loads((work.fold("3d_fullres", 1).cases).read_text())["train"]
    assert own == list(next(fold for fold in read_folds(work.folds) if fold.name == 1).train)


def test_a_fold_is_never_tested_on_what_it_was_trained_on(grown):
    """Folds that were made anew, as by --replan, hold out others than those that a finished fold did not see."""
    dataset, work, _ = grown
    pipeline.plan_and_preprocess(dataset, work.path, **QUIET)
    first, *others = read_folds(work.folds)
    write_folds(work.folds, [Fold(0, first.held_out, first.train), *others])
    with pytest.raises(PlanError, match=r"which folds\.json now holds out"):
        pipeline.train(work.path, folds=[0], **QUIET)


def test_doctor_says_what_is_new_and_how_far_a_new_plan_would_move(grown, capsys):
    dataset, work, _ = grown
    written = {path: path.stat().st_mtime_ns for path in work.path.rglob("*.json")}
    assert main(["doctor", str(dataset), str(work.path), "--json", "--workers", "0", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)["work"]
    assert found["cases"]["new"] == [f"case_{n:02d}" for n in range(6, 14)]
    moves = {move["key"]: move for move in found["moves"]}
    spacing = moves["configurations.3d_fullres.spacing"]
    assert (spacing["before"], spacing["after"], spacing["matters"]) == ([2.0, 1.0, 1.0], pytest.approx([1.6, 0.8, 0.8]), True)
    assert "configurations.3d_fullres.median_shape" not in moves, "a figure that decides nothing"
    assert main(["doctor", str(dataset), str(work.path), "--workers", "0", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "8 new (case_06, case_07, case_08 and 5 more)" in text
    assert "matters  configurations.3d_fullres.spacing: [2.0, 1.0, 1.0] -> " in text
    assert {path: path.stat().st_mtime_ns for path in work.path.rglob("*.json")} == written, "doctor writes nothing"


def test_doctor_says_so_where_nothing_would_move(make_dataset, tiny, tmp_path, capsys):
    dataset, work = make_dataset(cases=6), tmp_path / "work"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, **QUIET)
    assert main(["doctor", str(dataset), str(work), "--workers", "0", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "no case has changed" in out and "A new plan would be the same" in out


def test_a_hand_edited_plan_is_kept_and_replan_overwrites_it(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=6), tmp_path / "work"
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, **QUIET)
    content = json.loads((work / "plan.json").read_text())
    content["training"]["epochs"] = 7
    (work / "plan.json").write_text(json.dumps(content))
    edited = (work / "plan.json").read_bytes()
    pipeline.plan_and_preprocess(dataset, work, **QUIET)
    assert (work / "plan.json").read_bytes() == edited, "not even written anew"
    found = pipeline.doctor(dataset, work, **QUIET).comparison.moves
    assert [(m.key, m.before, m.after, m.matters) for m in found] == [("training.epochs", 7, 1, False)]
    pipeline.plan_and_preprocess(dataset, work, settings=tiny, replan=True, **QUIET)
    assert read_plan(work / "plan.json").training.epochs == 1


def test_a_recipe_file_and_a_taken_plan_last_without_their_source(make_dataset, tiny, tmp_path):
    """Both are kept in WORK, so that cases can be added when the file is gone."""
    dataset, first = make_dataset(cases=6), tmp_path / "first"
    pipeline.plan_and_preprocess(dataset, first, settings=tiny, **QUIET)
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"schema": "autoseg.recipe/1", "name": "mine", "inherits": "auto", "about": "mine"}))
    for source, work in ((mine, tmp_path / "by file"), (first, tmp_path / "by plan")):
        pipeline.plan_and_preprocess(dataset, work, recipe=str(source), **({"settings": tiny} if source is mine else {}), **QUIET)
        before = (work / "plan.json").read_bytes()
        pipeline.plan_and_preprocess(dataset, work, recipe=str(source), **QUIET)
        with pytest.raises(PlanError, match="--recipe asks for nnunet"):
            pipeline.plan_and_preprocess(dataset, work, recipe="nnunet", **QUIET)
        moved = source.with_name("elsewhere")
        source.rename(moved)
        assert pipeline.doctor(dataset, work, **QUIET).comparison.moves == ()
        pipeline.plan_and_preprocess(dataset, work, **QUIET)
        moved.rename(source)
        assert (work / "plan.json").read_bytes() == before
    taken = read_plan(tmp_path / "by plan" / "plan.json")
    assert taken.configurations == read_plan(first / "plan.json").configurations
    assert str(tmp_path) not in (tmp_path / "by plan" / "recipe.json").read_text()
    pipeline.plan_and_preprocess(dataset, tmp_path / "by plan", recipe="auto", replan=True, settings=tiny, **QUIET)
    assert not (tmp_path / "by plan" / "recipe.json").exists()
