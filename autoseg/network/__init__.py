"""Networks built from a plan, their weights in and out, their precision and memory layout."""

from __future__ import annotations

from autoseg.network.build import build

__all__ = ["build"]
