"""The form in which a training step is computed: what `auto` becomes on this machine, and how it is applied."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from autoseg.errors import ResourceError


class StepForm(NamedTuple):
    """Number format, memory layout, and whether the network's kernels are compiled; plan values without `auto`."""

    precision: str
    memory_layout: str
    compile: bool


HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@cache
def cpu_features() -> frozenset[str]:
    """Names of this processor's matrix extensions for short floats, as Linux writes them: avx512_bf16, amx_bf16, amx_fp16, avx512_fp16."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        asked = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported", "amx_fp16": "_is_amx_fp16_supported"}
        return frozenset(name for name, question in asked.items() if getattr(torch.cpu, question, lambda: False)())
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return frozenset({"avx512_bf16", "amx_bf16", "amx_fp16", "avx512_fp16"}.intersection(flags))


def machine_supports(precision: str, device: str) -> bool:
    """Whether the device computes in this format in hardware, not by emulation.

    Args:
        precision: float32, bfloat16 or float16.
        device: as torch names it: cpu, cuda, cuda:1, mps.
    """
    kind = torch.device(device).type
    if precision == "float32":
        return True
    if kind == "cuda":
        return torch.cuda.is_available() and (precision == "float16" or torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        wanted = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
        return bool(cpu_features() & wanted[precision])
    return False


def resolve_precision(precision: str, device: str) -> str:
    """What the plan's `precision` means on this device, found from its instruction set; nothing is timed.

    `auto` is bfloat16 where the device has it, float16 on a GPU that has only that, else float32.

    Raises:
        ResourceError: a named precision that the device lacks, as when a fold goes on on another machine.
    """
    if precision == "auto":
        choices = ("bfloat16", "float16") if torch.device(device).type == "cuda" else ("bfloat16",)
        return next((choice for choice in choices if machine_supports(choice, device)), "float32")
    if not machine_supports(precision, device):
        raise ResourceError(
            f"the plan trains in {precision}, which {device} of this machine lacks",
            remedy="Go on on a machine like the one that began, or plan anew with --set training.precision=float32",
        )
    return precision


def resolve_memory_layout(layout: str, device: str) -> str:
    """What the plan's `memory_layout` means on this device: `auto` is channels_last where torch has such convolutions (CPU, CUDA)."""
    if layout != "auto":
        return layout
    return "channels_last" if torch.device(device).type in ("cpu", "cuda") else "contiguous"


def resolve_compile(wanted: str | bool) -> bool:
    """What the plan's `compile` means: `auto` is not compiled, since that takes a minute and a compiler; a probe may find otherwise."""
    return wanted is True


def memory_format(layout: str, dimension: int) -> torch.memory_format:
    """Torch's name for a resolved layout of 2D (B, C, y, x) or 3D (B, C, z, y, x) tensors."""
    if layout == "contiguous":
        return torch.contiguous_format
    return torch.channels_last if dimension == 2 else torch.channels_last_3d


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager:
    """The context in which the network's forward pass runs in a resolved precision; weights stay float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=HALF[precision])


def grad_scaler(precision: str, device: str) -> torch.amp.GradScaler:
    """A gradient scaler, active for float16 alone: its gradients would underflow."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")
