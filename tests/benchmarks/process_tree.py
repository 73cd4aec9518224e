"""A command as a whole: its wall time, or the peak memory of its process tree with shared pages counted once."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.05


def seconds_of(command: Sequence[str | Path], environment: Mapping[str, str]) -> float:
    """Wall time of a command. Nobody looks at its memory meanwhile: that takes a part of a core, and holds its processes up.

    Raises:
        SystemExit: it failed; its output is shown.
    """
    os.sync()  # so that it does not wait for what others wrote
    began = time.perf_counter()
    _run(command, environment, watch=None)
    return time.perf_counter() - began


def peak_gb_of(command: Sequence[str | Path], environment: Mapping[str, str]) -> float:
    """Largest sum of proportional set sizes over the tree of a command's processes, GiB. Needs Linux.

    Raises:
        SystemExit: it failed; its output is shown.
    """
    sizes = [0]
    _run(command, environment, watch=lambda pid: sizes.append(_tree_bytes(pid)))
    return max(sizes) / 2**30


def _run(command: Sequence[str | Path], environment: Mapping[str, str], *, watch: Callable[[int], None] | None) -> None:
    said_to = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(list(map(str, command)), env=os.environ | dict(environment), **said_to)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    while watch and process.poll() is None:
        watch(process.pid)
        time.sleep(SAMPLE_SECONDS)
    process.wait()
    reader.join(5)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed ({process.returncode}):\n{''.join(said[-40:])}")


def _tree_bytes(pid: int) -> int:
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in tree:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
