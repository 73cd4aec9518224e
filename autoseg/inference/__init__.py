"""Prediction: tiles, a sliding window over all folds, the way back to the image's own grid, and models that do it for files."""

from __future__ import annotations

from autoseg.inference.upsampling import upsample_argmax

__all__ = ["upsample_argmax"]
