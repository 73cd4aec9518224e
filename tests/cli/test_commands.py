"""What a user meets first: help at once, plain refusals, exit statuses."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoseg import pipeline
from autoseg.cli.common import duration, setting
from autoseg.cli.main import COMMANDS, main, make_parser

NAMES = [module.__name__.rpartition(".")[2].replace("_", "-") for module in COMMANDS]
AUTOSEG = Path(sys.executable).parent / "autoseg"


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_answers_in_a_third_of_a_second(name):
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([AUTOSEG, *([name] if name else []), "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    seconds()
    assert statistics.median(seconds() for _ in range(3)) < 1 / 3


def test_building_the_parser_imports_no_heavy_library():
    code = (
        "import sys, autoseg; from autoseg.cli.main import make_parser; make_parser();"
        "print(sorted(m for m in ('torch', 'SimpleITK', 'numpy', 'pydantic', 'matplotlib') if m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_planning_and_preprocessing_pay_for_no_library_that_they_do_not_use(shared_data, tmp_path):
    """On cases that have their spacing already; torch makes the products of resampling, scikit-learn the folds of grouped patients."""
    arguments = ["plan-and-preprocess", str(shared_data("hippocampus")), str(tmp_path / "work"), "--device", "cpu", "--quiet"]
    code = (
        f"import sys; from autoseg.cli.main import main; status = main({arguments!r});"
        "print(status, sorted(m for m in ('torch', 'sklearn', 'pandas', 'pydicom', 'matplotlib', 'SimpleITK') if m in sys.modules))"
    )
    run = {"capture_output": True, "text": True, "check": True, "cwd": tmp_path}  # a checkout would hide the installation
    done = subprocess.run([sys.executable, "-c", code], **run)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


@pytest.mark.parametrize("part", ["train", "predict", "doctor", "evaluate", "info", "plan_and_preprocess", "list_series", "evaluate_work"])
def test_the_pipeline_has_a_function_for_each_command(part):
    assert callable(getattr(pipeline, part))


def test_the_pipeline_names_what_it_lacks():
    with pytest.raises(AttributeError, match=r"autoseg\.pipeline.*nothing_of_the_kind"):
        pipeline.nothing_of_the_kind  # noqa: B018


def test_switches_of_later_work_are_absent():
    text = "".join(sub.format_help() for sub in make_parser()._subparsers._group_actions[0].choices.values())
    for switch in (
        "--speed",
        "--report",
    ):
        assert switch not in text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert duration(text) == seconds


def test_a_setting_keeps_equal_signs_of_its_value():
    assert setting("training.loss.factory=mine:loss=1") == ("training.loss.factory", "mine:loss=1")


@pytest.mark.parametrize(
    "arguments", [["train", "/nowhere"], ["predict", "/nowhere", "/nowhere", "out"], ["train", ".", "--budget", "soon"]]
)
def test_impossible_arguments_end_with_status_2_and_a_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_folder_without_plan_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "picture.txt").write_text("x")
    assert main(["train", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "DatasetError" in message and "plan.json" in message and "picture.txt" in message and "Traceback" not in message


def test_a_defect_gives_status_3_and_the_logs_path(monkeypatch, tmp_path, capsys):
    import autoseg.pipeline

    def broken(*_, **__):
        raise ZeroDivisionError("made for the test")

    monkeypatch.setattr(autoseg.pipeline, "info", broken)
    assert main(["info", str(tmp_path)]) == 3
    line = capsys.readouterr().err
    path = line.split("The traceback is in ")[1].split(";")[0]
    assert "ZeroDivisionError" in Path(path).read_text()
    Path(path).unlink()


def test_an_interrupt_gives_status_130(monkeypatch, tmp_path):
    import autoseg.pipeline

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(autoseg.pipeline, "info", interrupted)
    assert main(["info", str(tmp_path)]) == 130
