"""Networks of the peer's: as many weights, as many features, and its own trained weights give its own predictions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.errors import ModelError
from autoseg.network import build
from autoseg.network.peer import from_peer

TWO = (2, 2, 2)


def standard(levels: int, dimension: int) -> tuple[list[int], list]:
    """The peer's features and strides where every axis pools every time."""
    features = [min(512 if dimension == 2 else 320, 32 * 2**s) for s in range(levels)]
    return features, [[1] * dimension, *[[2] * dimension] * (levels - 1)]


def feature_elements(network: nn.Module, channels: int, patch: tuple[int, ...]) -> int:
    """Elements of all convolutions' outputs for one sample, the lower heads aside: what the peer's planner estimates (2.7)."""
    total = 0

    def add(_module, _inputs, output):
        nonlocal total
        total += output.numel()

    lower = set(network.heads[1:])
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd) and module not in lower:
            module.register_forward_hook(add)
    for name, module in network.named_modules():
        # A level that pools but keeps its width has no convolution in its skip; the peer counts one all the same.
        if name.endswith("skip") and len(module) == 1:
            module.register_forward_hook(add)
    network(torch.empty(1, channels, *patch, device="meta"))
    return total


@pytest.mark.parametrize(
    ("residual", "dimension", "edge", "levels", "expected"),
    [
        (True, 3, 128, 6, 557_420_544),
        (True, 2, 512, 7, 129_531_904),
        (False, 3, 128, 6, 452_796_416),
        (False, 2, 512, 8, 82_886_656),
    ],
)
def test_feature_maps_sum_to_the_peers_check_values(peer_plan, residual, dimension, edge, levels, expected):
    """Section 2.7's check values, for three labels."""
    with torch.device("meta"):
        network = build(peer_plan(*standard(levels, dimension), residual=residual), 1, 3)
    assert feature_elements(network, 1, (edge,) * dimension) == expected


def expected_parameters(plan, channels: int, outputs: int) -> int:
    """Parameters of the peer's network by the facts of section 4.2, heads at every decoder level."""
    features, kernels = plan.features, [math.prod(k) for k in plan.kernels]

    def unit(inside: int, outside: int, kernel: int) -> int:
        return inside * outside * kernel + 3 * outside  # bias, norm scale and shift

    total, inside = 0, channels
    if plan.kind == "residual_unet":
        total, inside = unit(channels, features[0], kernels[0]), features[0]
    for width, kernel, count in zip(features, kernels, plan.blocks.encoder, strict=True):
        convolutions = 2 * count if plan.kind == "residual_unet" else count
        total += unit(inside, width, kernel) + (convolutions - 1) * unit(width, width, kernel)
        if plan.kind == "residual_unet" and inside != width:
            total += inside * width + 2 * width
        inside = width
    for s, count in enumerate(plan.blocks.decoder):
        width = features[s]
        total += features[s + 1] * width * math.prod(plan.strides[s + 1]) + width
        total += unit(2 * width, width, kernels[s]) + (count - 1) * unit(width, width, kernels[s])
        total += outputs * width + outputs
    return total


SHAPES = {
    "2D, 8 levels": (*standard(8, 2), None, (256, 512)),
    "anisotropic, 7 levels (section 2.12 B)": (
        [32, 64, 128, 256, 320, 320, 320],
        [(1, 1, 1), (1, 2, 2), (1, 2, 2), TWO, TWO, (1, 2, 2), (1, 2, 2)],
        [(1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 5],
        (20, 320, 256),
    ),
    "small, 4 levels (section 2.12 A)": (*standard(4, 3), None, (40, 56, 40)),
}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_networks_of_the_peers_have_its_number_of_parameters(peer_plan, name, residual):
    features, strides, kernels, patch = SHAPES[name]
    plan = peer_plan(features, strides, kernels, residual=residual)
    with torch.device("meta"):
        network = build(plan, 2, 3, deep_supervision=True)
        logits = network(torch.empty(1, 2, *patch))
    assert sum(p.numel() for p in network.parameters()) == expected_parameters(plan, 2, 3)
    assert len(logits) == len(features) - 1
    assert logits[0].shape == (1, 3, *patch)


def peer_model(folder: Path, peer_plan) -> tuple[nn.Module, dict]:
    """The network that a model folder of the peer's describes, with its weights; and its configuration."""
    configuration = json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]
    arch = configuration["architecture"]["arch_kwargs"]
    blocks = {"encoder": arch["n_conv_per_stage"], "decoder": arch["n_conv_per_stage_decoder"]}
    plan = peer_plan(arch["features_per_stage"], arch["strides"], arch["kernel_sizes"], blocks=blocks)
    numbers = [np.dtype, np._core.multiarray.scalar, type(np.dtype("f8")), type(np.dtype("f4"))]
    with torch.serialization.safe_globals(numbers):  # the training log beside the weights holds numpy numbers
        weights = torch.load(folder / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=True)["network_weights"]
    network = build(plan, 1, 3, deep_supervision=True)
    network.load_state_dict(from_peer(weights, levels=arch["n_stages"], deep_supervision=True), strict=True)
    return network.eval(), configuration


def test_the_peers_checkpoint_fits_tensor_by_tensor(shared_data, peer_plan):
    network, _ = peer_model(shared_data("nnunet_model"), peer_plan)
    alone = build(peer_plan(*standard(4, 3)), 1, 3)
    state = from_peer(_under_peer_names(network), levels=4, deep_supervision=False)
    alone.load_state_dict(state, strict=True)
    image = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(alone.eval()(image), network(image))


def _under_peer_names(network: nn.Module) -> dict[str, torch.Tensor]:
    names = {}
    for name, tensor in network.state_dict().items():
        part, *rest = name.split(".")
        if part == "heads":
            names[f"decoder.seg_layers.{2 - int(rest[0])}.{rest[1]}"] = tensor
        elif rest[0] == "ups":
            names[f"decoder.transpconvs.{2 - int(rest[1])}.{rest[2]}"] = tensor
        elif part == "decoder":
            names[f"decoder.stages.{2 - int(rest[1])}.convs.{'.'.join(rest[2:])}"] = tensor
        else:
            names[f"encoder.stages.{rest[1]}.0.convs.{'.'.join(rest[2:])}"] = tensor
    return names


@pytest.mark.parametrize("case", ["hippocampus_007"])
def test_the_peers_weights_predict_what_the_peer_predicted(shared_data, peer_plan, case):
    """Its own label map of a case that fits one tile: z-score, pad, eight mirrored passes averaged (its sections 3 and 5)."""
    sitk = pytest.importorskip("SimpleITK")
    folder = shared_data("nnunet_model")
    network, configuration = peer_model(folder, peer_plan)
    found = sorted(shared_data("hippocampus").rglob(f"*/{case}*.nii.gz"))
    image = next(p for p in found if "images" in p.parent.name)
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(image))).astype(np.float32)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "predictions" / f"{case}.nii.gz")))
    voxels = (voxels - voxels.mean()) / voxels.std()
    missing = [p - n for p, n in zip(configuration["patch_size"], voxels.shape, strict=True)]
    assert min(missing) >= 0, "this case fits one tile"
    tile = torch.from_numpy(np.pad(voxels, [(m // 2, m - m // 2) for m in missing]))[None, None]
    with torch.no_grad():
        axes = [[2 + a for a in range(3) if mask >> a & 1] for mask in range(8)]
        logits = sum(network(tile.flip(a)).flip(a) for a in axes)[0]
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, voxels.shape, strict=True))
    labels = logits.argmax(0).numpy()[inside]
    assert (labels != expected).mean() < 1e-4
    assert set(np.unique(labels)) == {0, 1, 2}


def test_residual_names_of_the_peers_are_known(peer_plan):
    plan = peer_plan([4, 8, 8], [(1, 1), (2, 2), (2, 2)], residual=True)
    network = build(plan, 1, 2)
    peer = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "stem"]:
            peer[f"encoder.stem.convs.0.{parts[2]}.{parts[3]}"] = tensor
            peer[f"encoder.stem.convs.0.all_modules.0.{parts[3]}"] = tensor
        elif parts[:2] == ["encoder", "levels"]:
            inner = {"first": "conv1", "second": "conv2", "skip": "skip.1"}[parts[4]]
            peer[f"encoder.stages.{parts[2]}.blocks.{parts[3]}.{inner}.{parts[5]}.{parts[6]}"] = tensor
        elif parts[0] == "heads":
            peer[f"decoder.seg_layers.1.{parts[2]}"] = tensor
            peer[f"decoder.seg_layers.0.{parts[2]}"] = tensor
        elif parts[1] == "ups":
            peer[f"decoder.transpconvs.{1 - int(parts[2])}.{parts[3]}"] = tensor
        else:
            peer[f"decoder.stages.{1 - int(parts[2])}.convs.{'.'.join(parts[3:])}"] = tensor
    state = from_peer(peer, levels=3, deep_supervision=False)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_network_are_refused_by_name():
    with pytest.raises(ModelError, match="vit"):
        from_peer({"vit.blocks.0.weight": torch.zeros(1)}, levels=4, deep_supervision=False)
