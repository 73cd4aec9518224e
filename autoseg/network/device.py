"""The devices of this machine, and the form that networks take there."""

from __future__ import annotations

import psutil
import torch
from torch import nn

from autoseg.errors import ResourceError
from autoseg.network.precision import machine_supports, memory_format, resolve_precision
from autoseg.planning.schema import MadeFor


def resolve_device(wanted: str) -> str:
    """A torch device that is there.

    Args:
        wanted: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ResourceError: it is not there, or no device is called so.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ResourceError(f"there is no device {wanted!r}", remedy="Use --device auto, cpu, cuda, cuda:N or mps")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= there:
        found = f"{there} {kind} device(s)" if there else f"no {kind} device"
        raise ResourceError(f"--device {wanted} was asked for, this machine has {found}", remedy="Use --device auto or cpu")
    return wanted


def machine(device: str) -> MadeFor:
    """What to plan for: the device and its memory, as far as this machine tells; one that is not here is planned for all the same."""
    kind = device.partition(":")[0]
    if kind == "auto":
        kind = resolve_device("auto")
    if kind == "cuda" and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(device if ":" in device else 0).total_memory
    else:
        memory = psutil.virtual_memory().total
    return MadeFor(device=kind, memory_gb=round(memory / 2**30, 1))


def inference_precision(planned: str, device: str) -> str:
    """The number format that networks compute in: the plan's where the device has it, else float32.

    Unlike training, which a fold must end as it began, a model predicts on any machine.
    """
    if planned != "auto" and not machine_supports(planned, device):
        return "float32"
    return resolve_precision(planned, device)


def placed(network: nn.Module, device: str, memory_layout: str, dimension: int) -> nn.Module:
    """The network itself, on the device, in evaluation mode, its weights in the resolved layout."""
    return network.to(device=device).to(memory_format=memory_format(memory_layout, dimension)).eval()
