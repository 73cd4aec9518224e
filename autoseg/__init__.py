"""autoseg: from a folder of medical images with label maps to a trained, explained, cross-validated segmentation model."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:  # torch is imported when a model is wanted, not before
    if name != "load_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("autoseg.inference.model").load_model
