"""A case that fails, or kills its worker, fails alone and by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import threadpoolctl

from autoseg.errors import AutosegError, GridError, Problem, ResourceError, excluded_cases, problem_table
from autoseg.parallel import counting, map_cases, one_blas_thread, processes, seconds_of_work, worker_count


def _work(item: str) -> str:
    if item == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "bad":
        raise GridError("its spacing is 0", case="bad", file="/secret/folder/bad.nii.gz", remedy="Correct the header")
    return item.upper()


def _blas_threads(_: int) -> int:
    import numpy  # noqa: F401

    return max(library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas")


def _defect(item: str) -> str:
    raise ZeroDivisionError(item)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_named_error_crosses_processes_with_case_file_and_remedy(workers):
    outcomes = {o.item: o for o in map_cases(_work, ["a", "bad", "c"], workers=workers)}
    assert outcomes["a"].value == "A" and outcomes["c"].value == "C"
    error = outcomes["bad"].error
    assert type(error) is GridError and error.case == "bad" and Path(error.file).name == "bad.nii.gz"
    assert str(error) == "case bad, bad.nii.gz: its spacing is 0. Correct the header"


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_a_dying_worker_is_named_and_the_others_go_on():
    items = ["a", "b", "dies", "c", "d"]
    outcomes = {o.item: o for o in map_cases(_work, items, workers=2, name=lambda item: f"case_{item}")}
    assert sorted(outcomes) == sorted(items)
    assert {o.value for o in outcomes.values()} == {"A", "B", "C", "D", None}
    error = outcomes["dies"].error
    assert type(error) is ResourceError and error.case == "case_dies" and "killed" in str(error)


def test_a_case_that_a_broken_pool_refuses_is_not_lost(monkeypatch):
    class Breaking(processes.ProcessPoolExecutor):
        asked = 0

        def submit(self, *arguments):
            Breaking.asked += 1
            if Breaking.asked == 2:
                raise processes.BrokenProcessPool
            return super().submit(*arguments)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Breaking)
    assert sorted(o.value for o in map_cases(_work, ["a", "b", "c"], workers=2)) == ["A", "B", "C"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_defect_of_ours_is_raised(workers):
    with pytest.raises(ZeroDivisionError):
        list(map_cases(_defect, ["a", "b"], workers=workers))


def test_worker_count_obeys_the_wish_the_items_and_the_memory():
    assert worker_count(10, 0.1, wanted=3) == 3
    assert worker_count(2, 0.1, wanted=8) == 2
    assert worker_count(10, 1e9) == 1


def test_small_datasets_stay_in_one_process_unless_workers_are_asked_for(monkeypatch):
    """100 hippocampus volumes are 2 s of work, which the second that each process takes to start would not shorten."""
    monkeypatch.setattr(processes, "_imported_ahead", False)
    monkeypatch.setattr(counting, "available_cores", lambda: 16)
    hippocampus = seconds_of_work(100, 100 * 65_000)
    assert worker_count(100, 0.01, seconds=hippocampus) == 1
    assert worker_count(100, 0.01, wanted=2, seconds=hippocampus) == 2


def test_processes_that_need_not_import_are_worth_less_work(monkeypatch):
    monkeypatch.setattr(counting, "available_cores", lambda: 16)
    monkeypatch.setattr(processes, "_imported_ahead", True)
    assert 2 <= worker_count(100, 0.01, seconds=seconds_of_work(100, 100 * 65_000)) <= 6
    assert worker_count(3, 0.01, seconds=seconds_of_work(3, 3 * 65_000)) == 1


def test_large_datasets_use_every_core(monkeypatch):
    monkeypatch.setattr(counting, "available_cores", lambda: 16)
    assert worker_count(100, 0.01, seconds=seconds_of_work(100, 100 * 50e6)) == 16
    assert worker_count(100, 0.01) == 16
    assert worker_count(3, 0.01, seconds=seconds_of_work(3, 3 * 50e6)) == 3


def test_blas_has_its_threads_back_after_it_was_to_use_one():
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_worker_processes_share_the_cores_out_among_themselves():
    assert {outcome.value for outcome in map_cases(_blas_threads, [1, 2, 3], workers=2)} == {1}


WORKERS = """
import os, sys, time
from autoseg import parallel

def has_wave(_):  # a module that nothing here imports
    return "wave" in sys.modules

def sleep(_):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are split off on Linux alone")
@pytest.mark.parametrize(("workers", "found"), [(2, [True, True]), (1, [False, False])])
def test_workers_have_what_was_imported_ahead(tmp_path, workers, found):
    (tmp_path / "made.py").write_text(WORKERS)
    lines = [
        "import made",
        "if __name__ == '__main__':",
        f"    made.parallel.import_ahead(['wave'], {workers})",
        f"    print([outcome.value for outcome in made.parallel.map_cases(made.has_wave, [1, 2], workers={workers})])",
    ]
    (tmp_path / "run.py").write_text("\n".join(lines))
    said = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == str(found), said


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_workers_end_with_a_process_that_was_killed(tmp_path):
    (tmp_path / "made.py").write_text(WORKERS)
    (tmp_path / "run.py").write_text(
        "import made\nif __name__ == '__main__':\n    list(made.parallel.map_cases(made.sleep, 'ab', workers=2))"
    )
    run = subprocess.Popen([sys.executable, "run.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    workers = [int(run.stdout.readline()) for _ in range(2)]
    assert all(map(psutil.pid_exists, workers))
    run.kill()
    run.wait()
    until = time.monotonic() + 10
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))


def test_the_problem_table_puts_errors_first_and_hides_folders():
    error = AutosegError("broken", case="b", file="/patients/mueller/b.nii.gz", remedy="Mend it")
    rows = [Problem("warning", "GridError", "near", "Look", "a"), Problem.of(error)]
    first, second = problem_table(rows).splitlines()
    assert first == "error    b, b.nii.gz: AutosegError: broken. Mend it" and second.startswith("warning  a")
    assert excluded_cases(rows) == {"b"}
