"""Network plans for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoseg.planning.schema import NetworkPlan


@pytest.fixture(scope="session")
def paper_plan() -> NetworkPlan:
    """The network of paper.md item 11."""
    return NetworkPlan(
        factory=None,
        kind="unet",
        dimension=3,
        features=[32, 64, 128, 256, 512],
        strides=[[1, 1, 1], *[[2, 2, 2]] * 4],
        kernels=[[3, 3, 3]] * 5,
        blocks={"encoder": [2] * 5, "decoder": [2] * 4},
        downsampling="max_pool",
        norm={"name": "batch", "momentum": 0.01, "eps": 1e-3},
        activation="relu",
        order_of_layers="conv-activation-norm",
        initialisation="glorot_uniform",
        dropout=0.0,
    )


@pytest.fixture(scope="session")
def peer_plan() -> Callable[..., NetworkPlan]:
    """A network of the peer's (section 2.11), plain or residual, from its features, strides and kernels."""

    def make(features: list[int], strides: list, kernels: list | None = None, *, residual: bool = False, **changes: Any) -> NetworkPlan:
        levels, dimension = len(features), len(strides[0])
        encoder = [1, 3, 4, *[6] * levels][:levels] if residual else [2] * levels
        values = {
            "factory": None,
            "kind": "residual_unet" if residual else "unet",
            "dimension": dimension,
            "features": features,
            "strides": [list(s) for s in strides],
            "kernels": [list(k) for k in kernels or [[3] * dimension] * levels],
            "blocks": {"encoder": encoder, "decoder": [1 if residual else 2] * (levels - 1)},
            "downsampling": "stride",
            "norm": {"name": "instance", "momentum": 0.1, "eps": 1e-5},
            "activation": "leaky_relu",
            "order_of_layers": "conv-norm-activation",
            "initialisation": "kaiming_normal",
            "dropout": 0.0,
        }
        return NetworkPlan.model_validate({**values, **changes})

    return make
