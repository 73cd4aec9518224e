"""Weights in and out of files: safetensors with a description, read without running any code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoseg.errors import ModelError
from autoseg.files import appears_whole, digest

SCHEMA = "autoseg.weights/1"


def save_weights(path: Path, state_dict: Mapping[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write a state dict, whole or not at all.

    Args:
        path: where it will stand.
        state_dict: name -> tensor; written in their own types, as contiguous copies, so tensors may share memory.
        about: JSON-able description that comes back on loading.

    Raises:
        ResourceError: the disk is full.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()}
    head = {"schema": SCHEMA, "checksum": _checksum(tensors), "about": json.dumps(about, sort_keys=True, allow_nan=False)}
    with appears_whole(path) as beside:
        save_file(tensors, beside, metadata=head)


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict (on the CPU) and the description that `save_weights` wrote.

    Raises:
        ModelError: no such file, truncated, changed since it was written, not safetensors, or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    remedy = "Restore it from its source, or train the fold again"
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, only a handle
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"these weights cannot be read ({error})", file=path, remedy=remedy) from error
    if (found := head.get("schema")) != SCHEMA:
        raise ModelError(
            f"its schema is {found or 'none'}, this autoseg reads {SCHEMA}", file=path, remedy="Use the version of autoseg that wrote it"
        )
    if head.get("checksum") != _checksum(tensors):
        raise ModelError("its content changed since it was written", file=path, remedy=remedy)
    try:
        about = json.loads(head["about"])
    except (KeyError, ValueError) as error:
        raise ModelError("its description is damaged", file=path, remedy=remedy) from error
    return tensors, about


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    parts: list[object] = []
    for name in sorted(tensors):
        parts += [name, str(tensors[name].dtype), list(tensors[name].shape), tensors[name].reshape(-1).view(torch.uint8).numpy().data]
    return digest(*parts)
