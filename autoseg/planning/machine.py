"""The machine that is planned for, found out without torch where that is possible: planning needs nothing else of it."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import runpy
from pathlib import Path

from autoseg.errors import ResourceError
from autoseg.memory import GB, total_ram_gb
from autoseg.planning.schema import MadeFor

_DRIVERS = {"Linux": "libcuda.so.1", "Windows": "nvcuda.dll"}  # through which torch itself looks for CUDA cards


def machine(device: str, *, card_gb: float) -> MadeFor:
    """What to plan for: the device and its memory, as far as this machine tells; one that is not here is planned for all the same.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        card_gb: memory of a CUDA card that is not here.

    Raises:
        ResourceError: no device is called so.
    """
    kind, number = ("cpu", 0) if device == "auto" and not may_have_card() else kind_and_number(device)
    if kind == "cpu" or not may_have_card():
        return MadeFor(device=kind, memory_gb=round(card_gb if kind == "cuda" else total_ram_gb(), 1))
    import torch  # takes over a second, and only it knows what it can use of the cards that are here

    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind != "cuda":
        memory = total_ram_gb()
    elif number < torch.cuda.device_count():
        memory = torch.cuda.get_device_properties(number).total_memory / GB
    else:
        memory = card_gb
    return MadeFor(device=kind, memory_gb=round(memory, 1))


def kind_and_number(device: str) -> tuple[str, int]:
    """Kind and number of a device by its name; `auto` is a kind here.

    Raises:
        ResourceError: no device is called so.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ResourceError(f"there is no device {device!r}", remedy="Use --device auto, cpu, cuda, cuda:N or mps")
    return kind, int(number or 0)


def may_have_card() -> bool:
    """Whether torch may find a device beside the CPU; False is certain: it is built for none, or the driver that it needs is not here."""
    system = platform.system()
    if system not in _DRIVERS:
        return True
    build = _torch_build()
    if build.get("hip") or build.get("xpu"):
        return True
    return bool(build.get("cuda")) and _loads(_DRIVERS[system])


def _torch_build() -> dict[str, str | None]:
    """The toolkits that torch is built with, from the file in which it says so; that file imports nothing."""
    found = importlib.util.find_spec("torch")
    return runpy.run_path(str(Path(found.origin).with_name("version.py"))) if found and found.origin else {}


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
