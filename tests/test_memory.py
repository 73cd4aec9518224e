"""The RAM that there is: the machine's, or less where a control group limits it."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from autoseg import memory

GB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process in the control groups that are written here: `groups(lines of /proc/self/cgroup, {file: content})`."""

    def make(process: str, files: dict[str, object]) -> None:
        (tmp_path / "cgroup").write_text(process)
        for name, content in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        monkeypatch.setattr(memory, "_PROCESS", tmp_path / "cgroup")
        monkeypatch.setattr(memory, "CGROUPS", tmp_path / "fs")

    return make


def test_without_a_limit_it_is_the_machines(groups):
    groups("0::/user\n", {"user/memory.max": "max", "user/memory.current": 5})
    assert memory.total_ram_gb() == psutil.virtual_memory().total / GB
    assert memory.free_ram_gb() == pytest.approx(psutil.virtual_memory().available / GB, rel=0.2)


def test_a_limit_counts_and_file_pages_are_no_use_of_it(groups):
    stat = f"anon 5\nfile 6\ninactive_file {GB // 4}\n"
    groups("0::/box/inner\n", {"box/inner/memory.max": GB, "box/inner/memory.current": GB // 2, "box/inner/memory.stat": stat})
    assert memory.total_ram_gb() == 1
    assert memory.free_ram_gb() == 0.75


def test_the_tightest_of_nested_groups_counts(groups):
    files = {"box/memory.max": GB, "box/memory.current": 3 * GB // 4, "box/inner/memory.max": 2 * GB, "box/inner/memory.current": 1}
    groups("0::/box/inner\n", files)
    assert (memory.total_ram_gb(), memory.free_ram_gb()) == (1, 0.25)


def test_version_1_groups_are_read_too(groups):
    files = {"memory/job/memory.limit_in_bytes": GB, "memory/job/memory.usage_in_bytes": GB // 2}
    groups("12:cpu:/job\n11:memory:/job\n", files)
    assert (memory.total_ram_gb(), memory.free_ram_gb()) == (1, 0.5)


def test_more_used_than_allowed_leaves_nothing(groups):
    groups("0::/box\n", {"box/memory.max": GB, "box/memory.current": 2 * GB})
    assert memory.free_ram_gb() == 0


def test_a_system_without_control_groups_has_no_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "nothing")
    assert memory.total_ram_gb() == psutil.virtual_memory().total / GB


@pytest.mark.parametrize("by_system", [True, False])
def test_the_peak_of_a_block_is_what_it_held_at_most(monkeypatch, tmp_path, by_system):
    if not by_system:  # as on a system that keeps no highest mark
        monkeypatch.setattr(memory, "_HIGHEST_MARK", tmp_path / "no such folder" / "file")
    with memory.PeakRam() as peak:
        block = bytearray(200 * 2**20)
        block[:: 2**12] = b"1" * len(block[:: 2**12])  # touched, so that it is resident
        time.sleep(0.1)
        del block
        time.sleep(0.05)
    assert 0.18 < peak.gb < 0.35
