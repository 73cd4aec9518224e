"""A command as a whole: its wall time, and the peak memory of its process tree with shared pages counted once."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    """One run of a command. peak_gb: largest sum of proportional set sizes over the tree, in GiB."""

    seconds: float
    peak_gb: float


def measured(command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> Measured:
    """Run a command to its end and measure it. Needs Linux (proportional set sizes).

    Raises:
        SystemExit: it failed; its output is shown.
    """
    began = time.perf_counter()
    said_to = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(list(map(str, command)), env=os.environ | dict(environment or {}), cwd=cwd, **said_to)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree_bytes(process.pid))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - began
    reader.join(5)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed ({process.returncode}):\n{''.join(said[-40:])}")
    return Measured(seconds, peak / 2**30)


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
