"""Cases as a network sees them. Reading starts at `preprocess.preprocess`, then `prepare.prepare_case`."""

from __future__ import annotations

from autoseg.preprocessing.resampling import resample_image, resample_labels

__all__ = ["resample_image", "resample_labels"]
