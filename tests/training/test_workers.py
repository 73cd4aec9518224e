"""Data workers: the same samples whatever their number, errors that name their case at once, no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autoseg.errors import TrainingError, UnreadableFileError
from autoseg.training.workers import SamplePool

# Spawned processes import their maker by name, so it lies in a module of its own.
MAKERS = '''
import os, signal, sys, time
from pathlib import Path
from autoseg.errors import UnreadableFileError

class Maker:
    """ticket -> what it is told to do; `bad` are the tickets that go wrong."""
    def __init__(self, how="square", bad=()):
        self.how, self.bad = how, tuple(bad)
    def place_of(self, ticket):
        return f"case_{ticket}", Path("store") / f"case_{ticket}.b2nd"
    def __call__(self, ticket):
        if self.how == "modules":
            import autoseg.training.patches
            from threadpoolctl import threadpool_info
            return sorted(sys.modules), max((i["num_threads"] for i in threadpool_info()), default=1), os.getpid()
        if self.how == "uneven":
            time.sleep(0.05 * (ticket % 3))
        if ticket in self.bad:
            if self.how == "raise":
                return {}["a missing key"]
            if self.how == "name":
                raise UnreadableFileError("it is truncated", case="case_x", file="/data/x.nii.gz", remedy="Restore it")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return ticket ** 2, os.getpid()
'''


@pytest.fixture
def maker(tmp_path: Path, monkeypatch) -> Callable:
    (tmp_path / "made_makers.py").write_text(MAKERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_makers", raising=False)
    import made_makers

    return made_makers.Maker


def pool(make, tickets, workers, *, ahead=4, timeout=60.0) -> SamplePool:
    return SamplePool(make, iter(tickets), workers=workers, ahead=ahead, timeout=timeout)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_samples_come_in_the_order_of_their_tickets(maker, workers):
    with pool(maker("uneven"), range(12), workers) as samples:
        values = list(samples)
    assert [v for v, _ in values] == [n**2 for n in range(12)]
    assert (os.getpid() in {p for _, p in values}) == (workers == 0)


def test_no_more_is_asked_for_than_agreed(maker):
    asked = []

    def tickets():
        for n in range(100):
            asked.append(n)
            yield n

    with pool(maker(), tickets(), 2, ahead=5) as samples:
        for _ in range(3):
            next(samples)
        time.sleep(0.5)
        assert len(asked) <= 3 + 5


def test_an_exception_arrives_within_a_second_with_its_case_file_and_traceback(maker):
    with pool(maker("raise", bad=[5]), range(50), 2, ahead=2) as samples:
        assert next(samples)[0] == 0  # workers are up
        began = time.monotonic()
        with pytest.raises(TrainingError) as caught:
            list(samples)
        assert time.monotonic() - began < 1.0
    text = str(caught.value)
    assert "case_5" in text and "case_5.b2nd" in text and "KeyError" in text and "a missing key" in text
    assert any('return {}["a missing key"]' in note for note in caught.value.__notes__)


def test_a_named_error_keeps_its_own_case_file_and_remedy(maker):
    with pool(maker("name", bad=[0]), range(3), 1) as samples, pytest.raises(TrainingError) as caught:
        next(samples)
    assert (caught.value.case, Path(caught.value.file).name, caught.value.remedy) == ("case_x", "x.nii.gz", "Restore it")


def test_in_this_process_errors_are_the_makers_own(maker):
    with pool(maker("name", bad=[0]), range(3), 0) as samples, pytest.raises(UnreadableFileError):
        next(samples)


def test_a_killed_worker_is_named_with_its_signal_and_case(maker):
    with pool(maker("kill", bad=[4]), range(50), 2) as samples, pytest.raises(TrainingError, match=r"case_4.*killed by SIGKILL.*--workers"):
        list(samples)


def test_a_hung_worker_is_ended_and_named(maker):
    began = time.monotonic()
    with pool(maker("hang", bad=[3]), range(50), 2, timeout=3.0) as samples, pytest.raises(TrainingError, match=r"case_3.*hung.*3 s"):
        list(samples)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("how", ["ends", "raises", "interrupted"])
def test_no_process_remains(maker, how):
    error = {"ends": None, "raises": ValueError, "interrupted": KeyboardInterrupt}[how]
    try:
        with pool(maker("hang", bad=[9]), range(50), 2) as samples:
            children = [p.pid for p in multiprocessing.active_children()]
            assert len(children) == 2
            next(samples)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_workers_end_when_their_parent_is_killed(maker, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, time\nfrom made_makers import Maker\nfrom autoseg.training.workers import SamplePool\n"
        "if __name__ == '__main__':\n"
        "    with SamplePool(Maker('hang', bad=[2, 3]), iter(range(9)), workers=2, ahead=4, timeout=99) as s:\n"
        "        next(s), next(s)\n        print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "        time.sleep(99)\n"
    )
    path = os.pathsep.join([str(tmp_path), *[p for p in sys.path if p]])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(signal.SIGKILL)
    for _ in range(50):
        alive = [p for p in children if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
        if not alive:
            break
        time.sleep(0.1)
    assert not alive


def test_workers_are_light_and_single_threaded(maker):
    with pool(maker("modules"), range(1), 1) as samples:
        modules, threads, pid = next(samples)
    assert pid != os.getpid()
    assert "autoseg.training.patches" in modules
    assert not {"torch", "SimpleITK", "matplotlib", "sklearn"} & set(modules)
    assert threads == 1
