"""The devices of this machine, and the form that networks take there."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.errors import ResourceError
from autoseg.memory import GB, free_ram_gb
from autoseg.network.precision import machine_supports, memory_format, resolve_precision
from autoseg.planning.machine import kind_and_number


def resolve_device(wanted: str) -> str:
    """A torch device that is there.

    Args:
        wanted: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ResourceError: it is not there, or no device is called so.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, number = kind_and_number(wanted)
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if number >= there:
        found = f"{there} {kind} device(s)" if there else f"no {kind} device"
        raise ResourceError(f"--device {wanted} was asked for, this machine has {found}", remedy="Use --device auto or cpu")
    return wanted


def free_memory_gb(device: str) -> float:
    """Memory of a device that is here which nobody uses."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0] / GB
    return free_ram_gb()


def inference_precision(planned: str, device: str) -> str:
    """The number format that networks compute in: the plan's where the device has it, else float32.

    Unlike training, which a fold must end as it began, a model predicts on any machine.
    """
    if planned != "auto" and not machine_supports(planned, device):
        return "float32"
    return resolve_precision(planned, device)


def placed(network: nn.Module, device: str, memory_layout: str, dimension: int) -> nn.Module:
    """The network itself, on the device, in evaluation mode, its weights in the resolved layout."""
    moved = network.to(device=device)
    return moved.to(memory_format=memory_format(memory_layout, dimension)).eval()  # type: ignore[call-overload]  # missing from torch's stubs


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that the device's or the machine's memory has run out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in ("out of memory", "allocate memory", "not enough memory"))


def is_compile_failure(error: BaseException) -> bool:
    """Whether torch.compile says that it cannot make kernels here: no compiler, no Triton, or a network that it cannot follow."""
    from torch._dynamo.exc import TorchDynamoException  # loaded already where anything was compiled

    return isinstance(error, TorchDynamoException)
