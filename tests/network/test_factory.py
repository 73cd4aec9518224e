"""A network of your own by `module:function`."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from autoseg.errors import PlanError
from autoseg.network import build
from autoseg.network.factory import is_foreign

OWN = """
from torch import nn

def linear(network_plan, channels, outputs):
    return nn.Conv2d(channels, outputs, 1)

def nothing(network_plan, channels, outputs):
    return "no module"
"""


@pytest.fixture
def own(tmp_path, monkeypatch, peer_plan):
    """A plan whose factory is a function of a module made for this test."""
    (tmp_path / "my_networks.py").write_text(OWN)
    (tmp_path / "my_broken.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: peer_plan([4, 8], [(1, 1), (2, 2)], factory=name)
    sys.modules.pop("my_networks", None)


def test_a_factory_of_ones_own_is_called_with_plan_channels_outputs(own):
    network = build(own("my_networks:linear"), 3, 5, deep_supervision=True)
    assert isinstance(network, nn.Conv2d)
    assert network(torch.zeros(1, 3, 4, 4)).shape == (1, 5, 4, 4)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("linear", "module:function"),
        (":linear", "module:function"),
        ("no_such_module_here:linear", "no_such_module_here"),
        ("my_networks:absent", "no function absent"),
        ("my_broken:linear", "no licence"),
        ("my_networks:nothing", "returned str"),
    ],
)
def test_a_bad_factory_is_named(own, name, cause):
    with pytest.raises(PlanError) as caught:
        build(own(name), 1, 2)
    assert repr(name) in str(caught.value)
    assert cause in str(caught.value)


def test_whose_code_a_factory_is_can_be_told_without_importing_it():
    assert is_foreign("my_networks:linear")
    assert is_foreign("autosegment.evil:run")
    assert not is_foreign("autoseg.network.own:run")
    assert not is_foreign(None)
