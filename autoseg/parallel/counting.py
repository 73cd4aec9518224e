"""How many processes a number of cases is worth, and how many there is memory for."""

from __future__ import annotations

import math

from autoseg.memory import free_ram_gb
from autoseg.parallel.processes import available_cores, imported_ahead

# A process that imports by itself what it needs takes a second for that. Where it gets less than twice that of work, two are no faster
# than one and need twice the memory: 100 cases of hippocampus took 10.1 s in two such processes, where 6.8 s were enough for one.
_WORTH_A_PROCESS = 2.0
_WORTH_A_FORK = 0.5  # of one that is split off a process with everything imported, see `import_ahead`
# Of work, in one process: measured on hippocampus MR (65 000 voxels a case) and chest CT (a million), reading or preparing alike.
_SECONDS_A_CASE = 0.01
_SECONDS_A_VOXEL = 0.15e-6


def worker_count(items: int, memory_gb: float, wanted: int | None = None, *, seconds: float = math.inf) -> int:
    """How many processes to use: `wanted`, else one a core, but no more than free memory, items and work allow.

    Args:
        items: how many items there are.
        memory_gb: what one worker needs at most, imports included.
        seconds: about what all items take in one process, see `seconds_of_work`.
    """
    if wanted is not None:
        return max(0, min(wanted, items))
    worth = _WORTH_A_FORK if imported_ahead() else _WORTH_A_PROCESS
    memory, work = 0.8 * free_ram_gb() / max(memory_gb, 1e-3), min(seconds / worth, items)
    return max(1, min(available_cores(), items, int(memory), int(work)))


def seconds_of_work(cases: int, voxels: float) -> float:
    """About what one process takes to read and measure, or to read and prepare, cases that hold so many voxels in all."""
    return _SECONDS_A_CASE * cases + _SECONDS_A_VOXEL * voxels
