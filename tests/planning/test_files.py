"""Plans and recipes as files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from autoseg.errors import PlanError
from autoseg.planning.plan_file import read_plan, write_plan
from autoseg.planning.recipe import merged
from autoseg.planning.recipe_files import list_recipes
from autoseg.planning.recipes import load_recipe


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("recipe", ["auto", "nnunet", "covid19-ct"])
def test_a_plan_comes_back_equal(planned, tmp_path, recipe):
    plan = planned(recipe, shape=(300, 512, 512), spacing=(1.0, 0.8, 0.8))
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    text = (tmp_path / "plan.json").read_text()
    assert text.endswith("}\n") and json.loads(text)["schema"] == "autoseg.plan/1"


def test_an_edited_plan_is_obeyed(planned, tmp_path):
    write_plan(tmp_path / "plan.json", planned())

    def change(content):
        content["configurations"]["3d_fullres"]["patch_size"] = [16, 48, 48]
        content["training"]["epochs"] = 3

    edited(tmp_path / "plan.json", change)
    plan = read_plan(tmp_path / "plan.json")
    assert plan.configurations["3d_fullres"].patch_size == [16, 48, 48]
    assert plan.training.epochs == 3


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.epochs", 0, ["training.epochs", "0"]),
        ("training.epoch", 5, ["training.epoch", "unknown key"]),
        ("configurations.3d_fullres.patch_size", [17, 48, 48], ["3d_fullres", "[17, 48, 48]", "nearest"]),
        ("configurations.3d_fullres.batch_size", "two", ["batch_size", "'two'"]),
        ("default_configurations", ["4d"], ["4d"]),
        ("dataset.side_pairs", [["lung_left", "liver"]], ["liver"]),
        ("intensity.CT.hu.before_resampling", [{"do": "clip", "low": 0}], ["high", "missing"]),
    ],
)
def test_an_impossible_plan_is_refused_by_name(planned, tmp_path, key, value, words):
    path = tmp_path / "plan.json"
    write_plan(path, planned())

    def change(content):
        *parents, last = key.split(".")
        for part in parents:
            content = content[part]
        content[last] = value

    edited(path, change)
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert all(word in str(caught.value) for word in [*words, "plan.json"]), str(caught.value)


def test_another_schema_is_refused(planned, tmp_path):
    write_plan(tmp_path / "plan.json", planned())
    edited(tmp_path / "plan.json", lambda content: content.update(schema="autoseg.plan/99"))
    with pytest.raises(PlanError, match="schema"):
        read_plan(tmp_path / "plan.json")


def test_all_recipes_are_valid_on_all_devices():
    names = list_recipes()
    assert set(names) >= {"auto", "covid19-ct", "covid19-ct-sides", "nnunet", "nnunet-resenc-m", "nnunet-resenc-l", "nnunet-resenc-xl"}
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        for device in ("cpu", "cuda", "mps"):
            recipe.for_device(device)


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    mine = {"schema": "autoseg.recipe/1", "name": "mine", "inherits": "auto"}
    path.write_text(json.dumps(mine | {"rules": {"spacing": {"rule": "fixed", "spacing": [2, 1, 1]}}}))
    recipe = load_recipe(path)
    assert recipe.rules.spacing.spacing == (2, 1, 1)
    assert recipe.rules.patch == load_recipe("auto").rules.patch
    path.write_text(json.dumps(mine | {"rules": {"patch": {"covered": -1}, "colour": 1}}))
    with pytest.raises(PlanError, match=r"rules\.patch\.covered.*rules\.colour is an unknown key"):
        load_recipe(path)
    path.write_text(json.dumps({"schema": "autoseg.recipe/1", "inherits": str(path)}))
    with pytest.raises(PlanError, match="itself"):
        load_recipe(path)


def test_an_unknown_recipe_names_those_there_are(tmp_path):
    with pytest.raises(PlanError, match="covid19-ct"):
        load_recipe("covid")
    with pytest.raises(PlanError, match="no recipe"):
        load_recipe(tmp_path / "none.json")


def test_merging_goes_key_by_key():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}
    assert merged({"patch": {"rule": "memory", "x": 1}}, {"patch": {"rule": "fixed", "y": 2}}) == {"patch": {"rule": "fixed", "y": 2}}


def test_planning_imports_nothing_heavy():
    code = "import sys, autoseg.planning.planner, autoseg.planning.folds; print([m for m in ('torch', 'SimpleITK') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
