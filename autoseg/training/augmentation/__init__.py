"""What is changed at random in a training sample: drawn first, then done by our own transforms or by batchgenerators'."""

from __future__ import annotations

from autoseg.training.augmentation.checking import check
from autoseg.training.augmentation.drawing import SPATIAL, Drawn, Wanted, draw, draw_factor, in_processes, inside
from autoseg.training.augmentation.mirroring import Sides, exchange_sides, mirror

__all__ = ["SPATIAL", "Drawn", "Sides", "Wanted", "check", "draw", "draw_factor", "exchange_sides", "in_processes", "inside", "mirror"]
