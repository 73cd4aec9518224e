"""A case that fails, or kills its worker, fails alone and by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import threadpoolctl

from autoseg import parallel
from autoseg.errors import AutosegError, GridError, Problem, ResourceError, excluded_cases, problem_table
from autoseg.parallel import map_cases, seconds_of_work, worker_count


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
    class Breaking(parallel.ProcessPoolExecutor):
        asked = 0

        def submit(self, *arguments):
            Breaking.asked += 1
            if Breaking.asked == 2:
                raise parallel.BrokenProcessPool
            return super().submit(*arguments)

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Breaking)
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
    monkeypatch.setattr(parallel, "available_cores", lambda: 16)
    hippocampus = seconds_of_work(100, 100 * 65_000)
    assert worker_count(100, 0.01, seconds=hippocampus) == 1
    assert worker_count(100, 0.01, wanted=2, seconds=hippocampus) == 2


def test_large_datasets_use_every_core(monkeypatch):
    monkeypatch.setattr(parallel, "available_cores", lambda: 16)
    assert worker_count(100, 0.01, seconds=seconds_of_work(100, 100 * 50e6)) == 16
    assert worker_count(100, 0.01) == 16
    assert worker_count(3, 0.01, seconds=seconds_of_work(3, 3 * 50e6)) == 3


def test_blas_has_its_threads_back_after_it_was_to_use_one():
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with parallel.one_blas_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_worker_processes_share_the_cores_out_among_themselves():
    assert {outcome.value for outcome in map_cases(_blas_threads, [1, 2, 3], workers=2)} == {1}


def test_the_problem_table_puts_errors_first_and_hides_folders():
    error = AutosegError("broken", case="b", file="/patients/mueller/b.nii.gz", remedy="Mend it")
    rows = [Problem("warning", "GridError", "near", "Look", "a"), Problem.of(error)]
    first, second = problem_table(rows).splitlines()
    assert first == "error    b, b.nii.gz: AutosegError: broken. Mend it" and second.startswith("warning  a")
    assert excluded_cases(rows) == {"b"}
