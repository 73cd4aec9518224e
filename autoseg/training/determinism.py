"""The switch for GPU kernels that give the same result each time; what was set before comes back afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def kernels(deterministic: bool, device: str) -> Iterator[None]:
    """Choose kernels for the block: deterministic ones, or on a GPU those that are timed to be fastest for the patch.

    Non-overlapping pooling has no kernel that torch calls deterministic, though each input voxel gets one gradient at most; torch warns of
    it and goes on. On a CPU torch's training kernels repeat themselves for a given number of threads, with or without the switch.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    try:
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it first starts
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        elif torch.device(device).type == "cuda":
            torch.backends.cudnn.benchmark = True
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:]
