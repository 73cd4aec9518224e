"""The paper's network number by number, and what the options of a plan change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.network import build


def size(module: nn.Module, *kinds: type) -> int:
    """Trainable parameters of the layers of these kinds in `module`."""
    return sum(p.numel() for m in module.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False))


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module]


@pytest.fixture(scope="module")
def paper_network(paper_plan):
    return build(paper_plan, 1, 4)


def test_the_papers_network_has_its_published_number_of_parameters(paper_network):
    assert sum(p.numel() for p in paper_network.parameters() if p.requires_grad) == 22_581_316
    assert sum(b.numel() for b in paper_network.buffers() if b.is_floating_point()) == 5_888


def test_the_papers_network_has_the_published_size_block_by_block(paper_network):
    """The table of paper.md item 12."""
    levels, ups, units = paper_network.encoder.levels, paper_network.decoder.ups, paper_network.decoder.levels
    assert [size(level, nn.Conv3d) for level in levels] == [28_576, 166_016, 663_808, 2_654_720, 10_617_856]
    assert [size(up, nn.ConvTranspose3d) for up in ups] == [16_416, 65_600, 262_272, 1_048_832]
    assert [size(level, nn.Conv3d) for level in units] == [83_008, 331_904, 1_327_360, 5_308_928]
    assert [size(level, nn.BatchNorm3d) for level in levels] == [128, 256, 512, 1_024, 2_048]
    assert [size(level, nn.BatchNorm3d) for level in units] == [128, 256, 512, 1_024]
    assert size(paper_network.heads, nn.Conv3d) == 132
    assert len(paper_network.heads) == 1


def test_the_papers_layers_stand_in_the_papers_order(paper_network):
    """Rulings R14 and R15: convolution, ReLU, batch norm; max pooling before a level, none before the first."""
    for level in [*paper_network.encoder.levels, *paper_network.decoder.levels]:
        assert [kinds(unit) for unit in level] == [["Conv3d", "ReLU", "BatchNorm3d"]] * 2
        assert all(unit.conv.stride == (1, 1, 1) and unit.conv.padding == (1, 1, 1) for unit in level)
    downs = paper_network.encoder.downs
    assert kinds(downs) == ["Identity", *["MaxPool3d"] * 4]
    assert all(list(down.kernel_size) == list(down.stride) == [2, 2, 2] for down in downs[1:])


def test_the_papers_defaults_of_keras_are_carried_over(paper_network):
    norms = [m for m in paper_network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {(n.momentum, n.eps) for n in norms} == {(0.01, 1e-3)}
    for module in paper_network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            assert not module.bias.any()
            volume = module.weight[0, 0].numel()
            limit = (6 / (volume * sum(module.weight.shape[:2]))) ** 0.5
            assert module.weight.abs().max() <= limit
            if module.weight.numel() > 1000:
                assert float(module.weight.detach().std()) == pytest.approx(limit / 3**0.5, rel=0.05)


def test_the_papers_feature_maps_have_the_published_sizes(paper_plan):
    """Figure 3, without computing anything: 160x160x80 down to 10x10x5 (here z, y, x)."""
    with torch.device("meta"):
        network = build(paper_plan, 1, 4)
        maps = network.encoder(torch.empty(1, 1, 80, 160, 160))
        logits = network(torch.empty(2, 1, 80, 160, 160))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (32, 80, 160, 160),
        (64, 40, 80, 80),
        (128, 20, 40, 40),
        (256, 10, 20, 20),
        (512, 5, 10, 10),
    ]
    assert logits.shape == (2, 4, 80, 160, 160)


def test_the_upsampled_map_comes_before_the_skip(paper_plan):
    """Item 11: concatenation [upsampled, skip]: without skips' weights the skips cannot matter."""
    network = build(paper_plan.model_copy(update={"features": [2, 3, 4, 5, 6]}), 1, 2).eval()
    image = torch.rand(1, 1, 16, 16, 16)
    maps = network.encoder(image)
    for width, level in zip([2, 3, 4, 5], network.decoder.levels, strict=True):
        with torch.no_grad():
            level[0].conv.weight[:, width:] = 0
    other = [torch.rand_like(skip) for skip in maps[:-1]] + maps[-1:]
    assert torch.equal(network.decoder(maps)[0], network.decoder(other)[0])


def test_strides_and_kernels_act_axis_by_axis(peer_plan):
    plan = peer_plan([4, 8, 12], [(1, 1, 1), (1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 5)])
    network = build(plan, 2, 3)
    assert [tuple(m.shape[2:]) for m in network.encoder(torch.rand(1, 2, 6, 8, 12))] == [(6, 8, 12), (6, 4, 6), (3, 2, 3)]
    assert network(torch.rand(1, 2, 6, 8, 12)).shape == (1, 3, 6, 8, 12)
    assert [level[0].conv.kernel_size for level in network.encoder.levels] == [(1, 3, 3), (3, 3, 3), (3, 3, 5)]
    assert [level[0].conv.kernel_size for level in network.decoder.levels] == [(1, 3, 3), (3, 3, 3)]
    assert [up.kernel_size for up in network.decoder.ups] == [(1, 2, 2), (2, 2, 2)]


@pytest.mark.parametrize("downsampling", ["max_pool", "stride"])
def test_downsampling_is_a_pooling_or_the_first_convolutions_stride(peer_plan, downsampling):
    network = build(peer_plan([4, 8], [(1, 1), (1, 2)], downsampling=downsampling), 1, 2)
    pooled = downsampling == "max_pool"
    assert isinstance(network.encoder.downs[1], nn.MaxPool2d if pooled else nn.Identity)
    assert [unit.conv.stride for unit in network.encoder.levels[1]] == [(1, 1) if pooled else (1, 2), (1, 1)]
    assert network(torch.rand(1, 1, 6, 8)).shape == (1, 2, 6, 8)


@pytest.mark.parametrize(
    ("norm", "order", "layers"),
    [
        ("instance", "conv-norm-activation", ["Conv2d", "Dropout2d", "InstanceNorm2d", "LeakyReLU"]),
        ("batch", "conv-activation-norm", ["Conv2d", "Dropout2d", "LeakyReLU", "BatchNorm2d"]),
        ("none", "conv-norm-activation", ["Conv2d", "Dropout2d", "LeakyReLU"]),
    ],
)
def test_a_2d_unit_has_the_planned_layers(peer_plan, norm, order, layers):
    plan = peer_plan([4, 8], [(1, 1), (2, 2)], dropout=0.2, order_of_layers=order, norm={"name": norm, "momentum": 0.1, "eps": 1e-5})
    network = build(plan, 3, 2)
    assert kinds(network.encoder.levels[0][0]) == layers
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 2, 8, 8)


def test_deep_supervision_has_a_head_a_level_and_shows_them_in_training_only(peer_plan):
    plan = peer_plan([4, 8, 12, 16], [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)])
    network, image = build(plan, 1, 3, deep_supervision=True), torch.rand(2, 1, 8, 16, 16)
    logits = network.train()(image)
    assert [tuple(x.shape) for x in logits] == [(2, 3, 8, 16, 16), (2, 3, 8, 8, 8), (2, 3, 4, 4, 4)]
    alone = network.eval()(image)
    assert torch.equal(alone, logits[0]), "instance norm knows no modes"
    assert len(build(plan, 1, 3).heads) == 1


def test_a_network_of_one_level_still_has_a_head(peer_plan):
    for deep in (False, True):
        logits = build(peer_plan([4], [(1, 1)]), 1, 2, deep_supervision=deep).eval()(torch.rand(1, 1, 5, 7))
        assert logits.shape == (1, 2, 5, 7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_the_memory_layout_changes_no_result(peer_plan, layout):
    torch.manual_seed(0)
    network = build(peer_plan([4, 8], [(1, 1, 1), (2, 2, 2)]), 1, 2)
    image = torch.rand(1, 1, 8, 8, 8)
    expected = network(image)
    found = network.to(memory_format=layout)(image.to(memory_format=layout))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_weights(peer_plan):
    plan = peer_plan([4, 8], [(1, 1), (2, 2)])
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in build(plan, 1, 2).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
