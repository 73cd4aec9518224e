"""The peer's weights under our names (nnU-Net v2: PlainConvUNet, ResidualEncoderUNet)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.errors import ModelError

# The peer keeps some tensors twice: the encoder again inside of the decoder, and each layer again inside of `all_modules`.
_COPIES = re.compile(r"decoder\.encoder\.|.*\.all_modules\.\d+\.")
_UNITS = (
    (re.compile(r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)\.(.+)"), r"encoder.levels.\1.\2.\3.\4"),
    (re.compile(r"encoder\.stem\.convs\.0\.(conv|norm)\.(.+)"), r"encoder.stem.\1.\2"),
    (re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.(conv|norm)\.(.+)"), r"encoder.levels.\1.\2.first.\3.\4"),
    (re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv2\.(conv|norm)\.(.+)"), r"encoder.levels.\1.\2.second.\3.\4"),
    (re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.\d+\.(conv|norm)\.(.+)"), r"encoder.levels.\1.\2.skip.\3.\4"),
)
_DECODER = (
    (re.compile(r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(.+)"), r"decoder.levels.{}.\2.\3.\4"),
    (re.compile(r"decoder\.transpconvs\.(\d+)\.(.+)"), r"decoder.ups.{}.\2"),
    (re.compile(r"decoder\.seg_layers\.(\d+)\.(.+)"), r"heads.{}.\2"),
)


@dataclass(frozen=True)
class PeerCheckpoint:
    """What a checkpoint of the peer's holds that matters here.

    weights: under its names. levels: of its network. dataset: its dataset.json. configuration, fold: its own names; None: not said.
    """

    weights: Mapping[str, torch.Tensor]
    levels: int
    dataset: Mapping[str, Any]
    configuration: str | None
    fold: int | str | None


def read_checkpoint(path: Path) -> PeerCheckpoint:
    """Read a checkpoint_*.pth of the peer's, tensors and plain values only: code that it might carry is refused, not run.

    Raises:
        ModelError: damaged, no checkpoint of the peer's, or one that holds more than that.
    """
    core = getattr(np, "_core", None) or np.core  # numpy 1 and 2
    numbers = [np.dtype, core.multiarray.scalar, *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")}]
    try:
        with torch.serialization.safe_globals(numbers):  # the training log beside the weights holds numpy numbers
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a damaged or unsafe file has no common name
        raise ModelError(
            f"it cannot be read safely ({type(error).__name__})", file=path, remedy="Give a checkpoint that nnU-Net v2 wrote, undamaged"
        ) from error
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise ModelError("it is no checkpoint of nnU-Net v2 (no network_weights)", file=path, remedy="Give its checkpoint_final.pth")
    stages = [int(found[1]) for key in weights if (found := re.search(r"encoder\.stages\.(\d+)\.", key))]
    arguments = content.get("init_args") or {}
    return PeerCheckpoint(
        weights, max(stages, default=-1) + 1, arguments.get("dataset_json") or {}, arguments.get("configuration"), arguments.get("fold")
    )


def from_peer(weights: Mapping[str, torch.Tensor], *, levels: int, deep_supervision: bool) -> dict[str, torch.Tensor]:
    """The state dict of `build(..., deep_supervision=deep_supervision)` with the peer's weights; tensors are not copied.

    Args:
        weights: `network_weights` of a checkpoint.
        levels: of the network; the peer counts its decoder from the bottom, we count it from full resolution.
        deep_supervision: without it only the full-resolution head is taken over.

    Raises:
        ModelError: a tensor that belongs to no network we know.
    """
    state = {}
    for key, tensor in weights.items():
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
        if _COPIES.match(key):
            continue
        name = _our_name(key, levels)
        if name is None:
            raise ModelError(
                f"its network has {key!r}, which no network of ours has", remedy="Only the peer's plain and residual U-Nets can be read"
            )
        if deep_supervision or not name.startswith("heads.") or name.startswith("heads.0."):
            state[name] = tensor
    return state


def _our_name(key: str, levels: int) -> str | None:
    for pattern, form in _UNITS:
        if match := pattern.fullmatch(key):
            return match.expand(form)
    for pattern, form in _DECODER:
        if match := pattern.fullmatch(key):
            return match.expand(form.format(levels - 2 - int(match[1])))
    return None
