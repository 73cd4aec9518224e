"""Whether what is not stored yet fits on the disk, before the first case is prepared."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from autoseg.fingerprint.types import CaseMeasures
from autoseg.memory import GB
from autoseg.planning.fitting import DISK_AT_LEAST, require
from autoseg.planning.forecast import case_size, stored_gb
from autoseg.planning.schema import Plan


def require_disk(plan: Plan, missing: Iterable[tuple[str, CaseMeasures]], folder: Path) -> str | None:
    """Refuse to begin what surely does not fit; a warning about what may not, else None.

    Surely needed is a share of the forecast of voxels inside each case's box of non-zero voxels: zeros take nothing once compressed.

    Args:
        missing: configuration and measures of each case that is not stored yet.
        folder: on the disk in question; it need not exist.

    Raises:
        ResourceError: it does not fit.
    """
    needed = least = 0.0
    count, channels, classes = 0, len(plan.dataset.channels), len(plan.dataset.label_set().names)
    for name, measures in missing:
        cropped = [high - low for low, high in measures.crop_box]
        part = plan.configurations[name]
        voxels, inside = (math.prod(case_size(part, measures.spacing, shape, cropped).prepared) for shape in (measures.shape, cropped))
        needed += stored_gb(channels, voxels, classes)
        least += DISK_AT_LEAST * stored_gb(channels, inside, 0)
        count += 1
    if not count:
        return None
    return require(
        f"Storing {count} prepared cases that {folder.name} lacks",
        needed,
        free_disk_gb(folder),
        at_least=least / needed,
        where="disk space",
        remedy="Free disk space, put WORK on a larger disk, prepare fewer --configurations, or plan a coarser --set spacing with --replan",
    )


def free_disk_gb(folder: Path) -> float:
    """Free space where `folder` is, or where it would be made."""
    there = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    return shutil.disk_usage(there).free / GB
