"""How much RAM this process may use and how much of that is free: the machine's, or less where a container or job limits it (cgroups)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GB = 2**30
CGROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")


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
