"""Devices by name: what is here is used, what is not here can still be planned for."""

from __future__ import annotations

import pytest
import torch

from autoseg import memory
from autoseg.errors import ResourceError
from autoseg.network.device import free_memory_gb, resolve_device
from autoseg.planning.machine import machine

no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA card")


@no_card
def test_a_card_that_is_not_here_is_planned_for_but_not_used():
    assert machine("cuda", card_gb=8).model_dump() == {"device": "cuda", "memory_gb": 8}
    assert machine("cuda:3", card_gb=24).memory_gb == 24
    with pytest.raises(ResourceError, match="no cuda device"):
        resolve_device("cuda")


@no_card
def test_a_machine_without_a_card_is_planned_for_by_its_ram():
    assert machine("auto", card_gb=8).device == machine("cpu", card_gb=8).device == "cpu"
    assert machine("cpu", card_gb=8).memory_gb == round(memory.total_ram_gb(), 1)


def test_a_name_that_no_device_has_is_refused():
    for use in (resolve_device, lambda name: machine(name, card_gb=8)):
        for name in ("gpu", "cuda:x", "cpu:1", "cuda:-1"):
            with pytest.raises(ResourceError, match="no device"):
                use(name)


def test_free_memory_is_less_than_all():
    assert 0 < free_memory_gb("cpu") < memory.total_ram_gb()
