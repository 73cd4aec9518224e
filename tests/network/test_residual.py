"""The residual encoder (peer section 4.2)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.errors import PlanError
from autoseg.network import build
from autoseg.network.residual import Block


@pytest.fixture
def plan(peer_plan):
    return peer_plan([4, 8, 8], [(1, 1, 1), (1, 2, 2), (2, 2, 2)], residual=True)


def test_stem_blocks_and_plain_decoder_are_as_planned(plan):
    network = build(plan, 2, 3)
    stem = network.encoder.stem.conv
    assert (stem.in_channels, stem.out_channels, stem.stride) == (2, 4, (1, 1, 1))
    assert [len(level) for level in network.encoder.levels] == [1, 3, 4]
    assert [len(level) for level in network.decoder.levels] == [1, 1]
    assert [tuple(m.shape[1:]) for m in network.encoder(torch.rand(1, 2, 4, 8, 8))] == [(4, 4, 8, 8), (8, 4, 4, 4), (8, 2, 2, 2)]
    assert network(torch.rand(1, 2, 4, 8, 8)).shape == (1, 3, 4, 8, 8)


def test_skips_pool_where_strided_and_widen_where_widened(plan):
    levels = build(plan, 2, 3).encoder.levels
    names = [[type(layer).__name__ for layer in level[0].skip] for level in levels]
    assert names == [[], ["AvgPool3d", "Conv3d", "InstanceNorm3d"], ["AvgPool3d"]]
    assert levels[1][0].skip.conv.bias is None
    assert list(levels[1][0].skip.pool.kernel_size) == [1, 2, 2]


def test_a_fresh_block_passes_on_its_skip_alone(plan):
    torch.manual_seed(0)
    blocks = [m for m in build(plan, 1, 2).modules() if isinstance(m, Block)]
    assert len(blocks) == 8
    for block in blocks:
        assert not block.second.norm.weight.any()
        assert not block.second.norm.bias.any()
    x = torch.randn(1, 8, 4, 4, 4)
    assert torch.equal(blocks[-1](x), nn.functional.leaky_relu(x, 0.01))


def test_a_block_adds_then_activates(plan):
    """Against the same layers called one by one."""
    torch.manual_seed(0)
    block = build(plan, 1, 2).encoder.levels[1][0]
    nn.init.normal_(block.second.norm.weight)
    x = torch.randn(1, 4, 4, 8, 8)
    inner = nn.functional.leaky_relu(block.first.norm(block.first.conv(x)), 0.01)
    skip = block.skip.norm(block.skip.conv(nn.functional.avg_pool3d(x, (1, 2, 2))))
    expected = nn.functional.leaky_relu(block.second.norm(block.second.conv(inner)) + skip, 0.01)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("change", [{"downsampling": "max_pool"}, {"order_of_layers": "conv-activation-norm"}])
def test_options_that_contradict_it_are_refused(plan, change):
    with pytest.raises(PlanError, match="residual_unet"):
        build(plan.model_copy(update=change), 1, 2)
