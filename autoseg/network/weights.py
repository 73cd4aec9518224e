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
_REMEDY = "Restore it from its source, or train the fold again"


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
    head = {"schema": SCHEMA, "checksum": content_key(tensors), "about": json.dumps(about, sort_keys=True, allow_nan=False)}
    with appears_whole(path) as beside:
        save_file(tensors, beside, metadata=head)


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict (on the CPU) and the description that `save_weights` wrote.

    Raises:
        ModelError: no such file, truncated, changed since it was written, not safetensors, or of another schema.
    """
    tensors, head = _read(path, with_tensors=True)
    about, key = _about(path, head)
    if key != content_key(tensors):
        raise ModelError("its content changed since it was written", file=path, remedy=_REMEDY)
    return tensors, about


def read_about(path: Path) -> tuple[dict[str, Any], str]:
    """The description that `save_weights` wrote, and the weights' key, without reading them: equal weights, equal key.

    Raises:
        ModelError: as for `load_weights`, but for content that changed.
    """
    return _about(path, _read(path, with_tensors=False)[1])


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in (file.keys() if with_tensors else ())}
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"these weights cannot be read ({error})", file=path, remedy=_REMEDY) from error


def _about(path: Path, head: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    if (found := head.get("schema")) != SCHEMA:
        raise ModelError(
            f"its schema is {found or 'none'}, this autoseg reads {SCHEMA}", file=path, remedy="Use the version of autoseg that wrote it"
        )
    try:
        return json.loads(head["about"]), head["checksum"]
    except (KeyError, ValueError) as error:
        raise ModelError("its description is damaged", file=path, remedy=_REMEDY) from error


def content_key(tensors: Mapping[str, torch.Tensor]) -> str:
    """A key of names, types, shapes and values: the same weights have it in whatever file they stand."""
    parts: list[object] = []
    for name in sorted(tensors):
        parts += [name, str(tensors[name].dtype), list(tensors[name].shape), tensors[name].reshape(-1).view(torch.uint8).numpy().data]
    return digest(*parts)
