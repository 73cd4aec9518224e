"""Folds: seeded, grouped, stratified, given, and lasting."""

from __future__ import annotations

import json

import pytest
from sklearn.model_selection import KFold

from autoseg.errors import PlanError
from autoseg.planning.folds import full_fold, read_folds, write_folds
from autoseg.planning.schema import FoldsPlan
from autoseg.planning.splitting import class_presence, extend_folds, make_folds

NAMES = [f"c{i:02d}" for i in range(23)]


def folds_plan(**changed) -> FoldsPlan:
    return FoldsPlan(**{"count": 5, "seed": 12345, "stratify": False, "groups": True, "source": "kfold", **changed})


def held_out_once(folds, names):
    assert sorted(case for fold in folds for case in fold.held_out) == sorted(names)
    for fold in folds:
        assert sorted(fold.train + fold.held_out) == sorted(names)


@pytest.mark.parametrize(
    ("cases", "count", "seed"), [(23, 5, 12345), (10, 5, 0), (11, 10, 7), (2, 2, 12345), (100, 5, 12345), (1001, 3, 1)]
)
def test_without_groups_they_are_scikit_learns(cases, count, seed):
    names = [f"c{i:04d}" for i in range(cases)]
    folds = make_folds(reversed(names), folds_plan(count=count, seed=seed))
    expected = [tuple(names[i] for i in held) for _, held in KFold(count, shuffle=True, random_state=seed).split(names)]
    assert [fold.held_out for fold in folds] == expected
    held_out_once(folds, names)


def test_the_peers_examples():
    """nnunet_algorithms.md 4.3."""
    ten = make_folds([f"c{i}" for i in range(10)], folds_plan())
    assert [f.held_out for f in ten] == [("c0", "c7"), ("c3", "c9"), ("c4", "c6"), ("c1", "c8"), ("c2", "c5")]
    seven = make_folds([f"c{i}" for i in range(7)], folds_plan())
    assert [f.held_out for f in seven] == [("c3", "c6"), ("c0", "c4"), ("c1",), ("c5",), ("c2",)]


def test_groups_are_never_torn():
    groups = {name: f"patient {i // 3}" for i, name in enumerate(NAMES[:15])}
    folds = make_folds(NAMES, folds_plan(), groups)
    held_out_once(folds, NAMES)
    for fold in folds:
        assert not {groups[c] for c in fold.train if c in groups} & {groups[c] for c in fold.held_out if c in groups}
    assert make_folds(NAMES, folds_plan(groups=False), groups) == make_folds(NAMES, folds_plan())


def test_blocks_keep_neighbours_together():
    folds = make_folds(NAMES, folds_plan(source="blocks"))
    assert folds[0].held_out == tuple(NAMES[:5])
    held_out_once(folds, NAMES)


def test_blocks_follow_numbers_and_not_the_alphabet():
    folds = make_folds([f"s{i}" for i in range(1, 13)], folds_plan(source="blocks", count=3))
    assert [sorted(f.held_out, key=lambda n: int(n[1:])) for f in folds] == [[f"s{i}" for i in range(a, a + 4)] for a in (1, 5, 9)]


def test_blocks_hold_out_whole_stacks_where_there_are_enough():
    names = [f"p{p}_{i}" for p, count in enumerate((9, 3, 5, 7, 4, 8)) for i in range(count)]
    folds = make_folds(names, folds_plan(source="blocks", count=3))
    held_out_once(folds, names)
    for fold in folds:
        assert not {n.split("_")[0] for n in fold.train} & {n.split("_")[0] for n in fold.held_out}
    assert max(len(f.held_out) for f in folds) <= 16
    few = make_folds(names[:12], folds_plan(source="blocks", count=5))
    held_out_once(few, names[:12])
    assert {len(f.held_out) for f in few} <= {2, 3}, "two stacks are cut"


def test_one_patient_makes_a_fold_that_holds_nothing_out():
    [fold] = make_folds(["a", "b"], folds_plan(count=1), {"a": "p", "b": "p"})
    assert (fold.train, fold.held_out) == (("a", "b"), ())


def test_rare_classes_are_spread_though_patients_have_many_scans():
    """12 patients of 1 to 4 scans; the rare label is shown in the first three scans of four of them."""
    groups = {f"p{p:02d}_{i}": f"p{p:02d}" for p in range(12) for i in range(p % 4 + 1)}
    presence = {c: {"organ", *(["rare"] if c.startswith(("p03", "p07", "p11", "p02")) else [])} for c in groups}
    folds = make_folds(groups, folds_plan(stratify=True, count=4), groups, presence=presence)
    held_out_once(folds, groups)
    for fold in folds:
        assert not {groups[c] for c in fold.train} & {groups[c] for c in fold.held_out}
    assert [sum("rare" in presence[c] for c in f.held_out) for f in folds] == [4, 4, 4, 3]
    assert max(len(f.held_out) for f in folds) - min(len(f.held_out) for f in folds) <= 1


def test_rare_classes_are_spread():
    presence = {name: {"lung", *(["rare"] if i < 5 else []), *(["half"] if i % 2 else [])} for i, name in enumerate(NAMES)}
    folds = make_folds(NAMES, folds_plan(stratify=True), presence=presence)
    held_out_once(folds, NAMES)
    assert [sum("rare" in presence[c] for c in fold.held_out) for fold in folds] == [1] * 5
    assert {sum("half" in presence[c] for c in fold.held_out) for fold in folds} <= {2, 3}
    assert {len(fold.held_out) for fold in folds} <= {4, 5}
    assert folds == make_folds(NAMES, folds_plan(stratify=True), presence=presence)


def test_presence_comes_from_the_fingerprint(measured):
    dataset, fingerprint = measured(shown={"case_03": {0: 5, 1: 7, 3: 0}})
    presence = class_presence(fingerprint, dataset.labels)
    assert presence["case_03"] == {"lung_left"}
    assert presence["case_00"] == {"lung_left", "lung_right", "infection"}


def test_given_folds_are_taken(tmp_path):
    splits = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a", "gone"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    plan = folds_plan(source=str(tmp_path / "splits_final.json"))
    folds = make_folds("abc", plan, excluded={"gone"})
    assert [(f.train, f.held_out) for f in folds] == [(("a", "b"), ("c",)), (("b", "c"), ("a",))]
    pairs = [(s["train"], s["val"]) for s in splits]
    assert make_folds("abc", folds_plan(source="dataset"), given=pairs, excluded={"gone"}) == folds


@pytest.mark.parametrize(
    ("given", "groups", "words"),
    [
        ([(["a", "b"], ["b"])], {}, "trains on b"),
        ([(["a"], ["d"])], {}, "names d"),
        ([(["a", "b"], ["c"])], {"a": "p", "c": "p"}, "tears group p"),
        ([(["a"], ["b"]), (["c"], ["b"])], {}, "held out by two folds"),
        ([(["a"], [])], {}, "holds nothing out"),
    ],
)
def test_given_folds_that_contradict_are_refused(given, groups, words):
    with pytest.raises(PlanError, match=words):
        make_folds("abc", folds_plan(source="dataset"), groups, given)


def test_a_missing_or_strange_file_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"nowhere\.json"):
        make_folds("abc", folds_plan(source=str(tmp_path / "nowhere.json")))
    (tmp_path / "strange.json").write_text('{"a": 1}')
    with pytest.raises(PlanError, match=r"strange\.json"):
        make_folds("abc", folds_plan(source=str(tmp_path / "strange.json")))


def test_too_few_cases():
    with pytest.raises(PlanError, match=r"folds\.count=3"):
        make_folds("abc", folds_plan())
    with pytest.raises(PlanError, match=r"folds\.count=1"):
        make_folds("a", folds_plan(count=2))
    with pytest.raises(PlanError, match="nothing to train on"):
        make_folds("abc", folds_plan(count=1))
    assert full_fold("ba").train == ("a", "b")


def test_new_cases_join_without_moving_old_ones():
    groups = {"c00": "p", "c90": "p"}
    before = make_folds(NAMES, folds_plan(), groups)
    after = extend_folds(before, [*NAMES, *(f"c{i}" for i in range(90, 98))], folds_plan(), {**groups, "c91": "q", "c92": "q"})
    for old, new in zip(before, after, strict=True):
        assert set(old.held_out) <= set(new.held_out) and set(old.train) <= set(new.train)
    place = {case: fold.name for fold in after for case in fold.held_out}
    assert place["c00"] == place["c90"] and place["c91"] == place["c92"]
    held_out_once(after, place)
    sizes = [len(fold.held_out) for fold in after]
    assert max(sizes) - min(sizes) <= 2
    assert extend_folds(after, place, folds_plan(), groups) == after


def test_a_case_that_comes_back_is_held_out_by_its_old_fold():
    """Else a fold that has trained on it would be tested on it."""
    before = make_folds(NAMES, folds_plan())
    gone = before[2].held_out[0]
    fewer = extend_folds(before, [n for n in NAMES if n != gone], folds_plan())
    held_out_once(fewer, [n for n in NAMES if n != gone])
    assert fewer[2].absent == (gone,)
    more = extend_folds(fewer, [*(n for n in NAMES if n != gone), "c50", "c51"], folds_plan())
    back = extend_folds(more, [*NAMES, "c50", "c51"], folds_plan())
    assert gone in back[2].held_out and not back[2].absent
    held_out_once(back, [*NAMES, "c50", "c51"])


def test_a_new_section_joins_its_neighbour():
    plan = folds_plan(source="blocks", count=3)
    before = make_folds([f"s{i}" for i in range(1, 13) if i not in (6, 7)], plan)
    after = extend_folds(before, [f"s{i}" for i in range(1, 15)], plan)
    place = {case: fold.name for fold in after for case in fold.held_out}
    assert (place["s6"], place["s7"]) == (place["s5"], place["s8"])
    assert place["s13"] == place["s14"] == place["s12"]


def test_a_new_case_with_a_rare_class_joins_the_fold_that_lacks_it():
    presence = {f"c{i}": {"organ", *(["rare"] if i in (0, 1, 2) else [])} for i in range(12)}
    plan = folds_plan(count=4, stratify=True)
    before = make_folds(list(presence), plan, presence=presence)
    [lacking] = [f.name for f in before if not any("rare" in presence[c] for c in f.held_out)]
    after = extend_folds(before, [*presence, "new"], plan, presence={**presence, "new": {"organ", "rare"}})
    assert "new" in after[lacking].held_out


def test_given_folds_take_in_what_their_lists_name_and_nothing_else():
    plan = folds_plan(source="dataset", count=2)
    before = make_folds("abcd", plan, given=[(["a", "b"], ["c"]), (["b", "c"], ["a"])])
    assert extend_folds(before, "abcde", plan, given=[(["a", "b"], ["c"]), (["b", "c"], ["a"])]) == before, "d and e are in no list"
    after = extend_folds(before, "abcde", plan, given=[(["a", "b", "e"], ["c"]), (["b", "c"], ["a", "e"])])
    assert [(f.train, f.held_out) for f in after] == [(("a", "b", "e"), ("c",)), (("b", "c"), ("a", "e"))]
    assert extend_folds(before, "abcde", plan, given=()) == before, "the source is gone"


def test_folds_file(tmp_path):
    folds = make_folds(NAMES, folds_plan())
    write_folds(tmp_path / "folds.json", folds)
    assert read_folds(tmp_path / "folds.json") == folds
    content = json.loads((tmp_path / "folds.json").read_text())
    content["folds"][0]["train"].append(content["folds"][0]["held_out"][0])
    (tmp_path / "folds.json").write_text(json.dumps(content))
    with pytest.raises(PlanError, match="holds it out"):
        read_folds(tmp_path / "folds.json")
