"""Overlap counts on arrays; knows no file, fold or plan."""

from autoseg.metrics.overlap import METRICS, Overlap, OverlapTable, overlap

__all__ = ["METRICS", "Overlap", "OverlapTable", "overlap"]
