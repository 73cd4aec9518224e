"""Files appear whole or not at all; JSON says its schema; one process at a time."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pytest

from autoseg.errors import BusyError, DatasetError, PlanError, ResourceError
from autoseg.files import Work, appears_whole, digest, locked, read_json, sweep, write_json, write_text


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    write_text(path, "old")
    with pytest.raises(ResourceError, match="no room to write it") as caught, appears_whole(path) as beside:
        beside.write_text("half of the n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "result.txt" in str(caught.value) and "Free disk space" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"] and path.read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_what_a_killed_process_left_is_swept_also_before_its_parent_asks_how_it_ended(tmp_path):
    script = [
        "import sys, time",
        "from pathlib import Path",
        "from autoseg.files import appears_whole",
        "with appears_whole(Path(sys.argv[1])) as beside:",
        "    beside.write_text('half')",
        "    print('written', flush=True)",
        "    time.sleep(60)",
    ]
    wait = [sys.executable, "-c", "\n".join(script), str(tmp_path / "a.txt")]
    process = subprocess.Popen(wait, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout.readline() == "written\n"
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "it is still being written"
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())
    process.wait()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file-size limit")
def test_a_folder_that_is_taken_away_meanwhile_is_named(tmp_path):
    path = tmp_path / "work" / "result.txt"
    with pytest.raises(ResourceError, match="deleted or moved") as caught, appears_whole(path) as beside:
        beside.write_text("new")
        shutil.rmtree(path.parent)
    assert "result.txt" in str(caught.value)


def test_a_file_size_limit_is_no_room_either(tmp_path):
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(ResourceError):
            write_text(tmp_path / "big.txt", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_another_exception_passes_and_nothing_stays(tmp_path):
    with pytest.raises(ZeroDivisionError), appears_whole(tmp_path / "a.bin") as beside:
        beside.write_bytes(b"1")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_keeps_the_ending(tmp_path):
    with appears_whole(tmp_path / "case.nii.gz") as beside:
        assert beside.name.endswith(".nii.gz") and beside.parent == tmp_path
        beside.write_bytes(b"1")
    assert (tmp_path / "case.nii.gz").read_bytes() == b"1"


def test_json_is_sorted_indented_and_says_its_schema(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, "plan", {"b": 1, "a": [2.5]})
    text = path.read_text()
    assert text.endswith("}\n") and list(json.loads(text)) == ["a", "b", "schema"] and json.loads(text)["schema"] == "autoseg.plan/1"
    assert read_json(path, "plan") == {"a": [2.5], "b": 1}


@pytest.mark.parametrize(
    "text, found", [('{"schema": "autoseg.plan/2"}', "autoseg.plan/2"), ("{}", "none"), ("[1]", "none"), ("{", "JSON")]
)
def test_json_of_another_schema_is_refused(tmp_path, text, found):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=found):
        read_json(path, "plan")


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", "plan", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def _try_lock(path, answers) -> None:
    try:
        with locked(path, "fold 0"):
            answers.put("held")
    except BusyError as error:
        answers.put(str(error))


def _locked_elsewhere(path) -> str:
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    process = spawn.Process(target=_try_lock, args=(path, answers))
    process.start()
    process.join()
    return answers.get()


def test_a_lock_keeps_another_process_out_until_it_is_released(tmp_path):
    path = tmp_path / "fold_0" / ".lock"
    with locked(path, "fold 0"):
        assert "another process works on fold 0" in _locked_elsewhere(path)
    assert _locked_elsewhere(path) == "held"


def test_digest_depends_on_values_and_their_borders():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("ab", "c") != digest("a", "bc") and digest(b"ab", b"c") != digest(b"a", b"bc")


def test_a_folder_without_plan_is_named_with_what_lies_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match=r"no plan.json \(found: notes.txt\)"):
        Work(tmp_path).planned()
