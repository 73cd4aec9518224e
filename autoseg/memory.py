"""How much RAM this process may use, how much of that is free, and how much a block of code takes.

It is the machine's RAM, or less where a container or a job limits it by control groups.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

GB = 2**30
CGROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")
_HIGHEST_MARK = Path("/proc/self/clear_refs")


def total_ram_gb() -> float:
    """RAM of the machine, or the smallest limit of the control groups that this process is in."""
    import psutil

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())]) / GB


def free_ram_gb() -> float:
    """RAM that can be had without swapping: what the system calls available, and no more than a control group leaves."""
    import psutil

    return max(0.0, min([psutil.virtual_memory().available, *(limit - used for limit, used in _limits())]) / GB)


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group from this process's own upwards that has a limit; file pages are no use."""
    try:
        lines = _PROCESS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version_1 = "memory" in controllers.split(",")
        if not version_1 and controllers:
            continue
        root = CGROUPS / "memory" if version_1 else CGROUPS
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version_1 else ("memory.max", "memory.current")
        place = root / path.lstrip("/")
        for folder in [place, *place.parents]:
            if root not in (folder, *folder.parents):
                break
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield limit, used - _reclaimable(folder / "memory.stat")


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none (`max` is no limit)."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(path: Path) -> int:
    """Bytes of file pages that the kernel gives up when memory is wanted."""
    try:
        rows = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
        return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def resident_gb() -> float:
    """Memory of this process that is in RAM."""
    import psutil

    return psutil.Process().memory_info().rss / GB


class PeakRam:
    """How much the resident memory of this process rises at most while a block runs, beyond what it was at the beginning.

    `with PeakRam() as peak: ...` then `peak.gb`. Linux remembers its own highest mark; elsewhere a thread looks a hundred times a second.

    Args:
        since_gb: what the rise is counted from; None: what is resident when the block begins.
    """

    def __init__(self, since_gb: float | None = None) -> None:
        import psutil

        self.gb = 0.0
        self._since = since_gb
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakRam:
        self._before = self._highest = self._process.memory_info().rss
        try:
            _HIGHEST_MARK.write_text("5", encoding="ascii")  # begin anew
        except OSError:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is None:
            self._highest = _highest_mark()
        else:
            self._done.set()
            self._thread.join()
        since = self._before / GB if self._since is None else self._since
        self.gb = max(0.0, self._highest / GB - since)

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self._highest = max(self._highest, self._process.memory_info().rss)


def _highest_mark() -> int:
    """Bytes of the highest resident memory since it was begun anew, as Linux counts."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines() if "VmHWM" in line)
    return 1024 * int(line.split()[1])
