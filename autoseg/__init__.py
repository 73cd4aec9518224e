"""autoseg: from a folder of medical images with label maps to a trained, explained, cross-validated segmentation model."""

from __future__ import annotations

__version__ = "0.1.0"
