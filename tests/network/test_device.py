"""Devices by name: what is here is used, what is not here can still be planned for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from autoseg import memory
from autoseg.errors import ResourceError
from autoseg.network.device import free_memory_gb, resolve_device
from autoseg.planning import machine as planned_for
from autoseg.planning.machine import machine, may_have_card

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


def test_what_is_planned_for_is_what_torch_finds():
    """`may_have_card` spares the import of torch where it is sure, so torch must find no card where it says so."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert machine("auto", card_gb=8).device == found
    assert may_have_card() or found == "cpu"


def test_torch_is_asked_where_it_may_find_a_card(monkeypatch):
    monkeypatch.setattr(planned_for, "may_have_card", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=24 * 2**30))
    assert machine("auto", card_gb=8).model_dump() == {"device": "cuda", "memory_gb": 24}
    assert machine("cuda:1", card_gb=8).memory_gb == 8


def test_a_torch_without_toolkit_or_driver_has_no_card(monkeypatch):
    monkeypatch.setattr(planned_for.platform, "system", lambda: "Linux")
    for build, driver, may in [({"cuda": None}, True, False), ({"cuda": "12.8"}, False, False), ({"cuda": "12.8"}, True, True)]:
        monkeypatch.setattr(planned_for, "_torch_build", lambda build=build: build)
        monkeypatch.setattr(planned_for, "_loads", lambda library, driver=driver: driver)
        assert may_have_card() is may
    monkeypatch.setattr(planned_for, "_torch_build", lambda: {"cuda": None, "hip": "6.4"})
    assert may_have_card()


def test_a_name_that_no_device_has_is_refused():
    for use in (resolve_device, lambda name: machine(name, card_gb=8)):
        for name in ("gpu", "cuda:x", "cpu:1", "cuda:-1"):
            with pytest.raises(ResourceError, match="no device"):
                use(name)


def test_free_memory_is_less_than_all():
    assert 0 < free_memory_gb("cpu") < memory.total_ram_gb()
