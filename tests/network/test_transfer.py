"""Given weights into a network with other outputs or channels: by name, nothing silently."""

from __future__ import annotations

import pytest
import torch

from autoseg.errors import ModelError
from autoseg.network import build
from autoseg.network.transfer import GivenWeights, take_over


def made(plan, channels: int, outputs: int, seed: int, *, deep_supervision: bool = False):
    torch.manual_seed(seed)
    return build(plan, channels, outputs, deep_supervision=deep_supervision)


def given(network, channels=("CT",), outputs=("background", "lung", "lesion"), regions=False) -> GivenWeights:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return GivenWeights("key", "made weights", state, channels, outputs, regions, frozenset())


@pytest.fixture
def plan(peer_plan):
    return peer_plan([4, 8, 8], [(1, 1), (2, 2), (2, 2)])


def test_the_same_network_is_taken_whole(plan):
    theirs, ours = made(plan, 1, 3, 0), made(plan, 1, 3, 1)
    transfer = take_over(ours, given(theirs), inputs=["CT"], outputs=["background", "lung", "lesion"], regions=False)
    assert sorted(transfer.taken) == sorted(ours.state_dict()) and not (transfer.partly or transfer.left or transfer.unused)
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())


def test_outputs_are_matched_by_label_name_and_new_ones_stay_fresh(plan):
    theirs, ours = made(plan, 1, 3, 0), made(plan, 1, 4, 1)
    fresh = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    transfer = take_over(ours, given(theirs), inputs=["CT"], outputs=["background", "vessel", "Lesion", "lung"], regions=False)
    now, before = ours.heads[0].weight, theirs.heads[0].weight
    assert torch.equal(now[0], before[0]) and torch.equal(now[2], before[2]) and torch.equal(now[3], before[1])
    assert torch.equal(now[1], fresh["heads.0.weight"][1])
    assert torch.equal(ours.heads[0].bias[[0, 2, 3]], theirs.heads[0].bias[[0, 2, 1]])
    assert transfer.partly["heads.0.weight"] == "outputs background, Lesion, lung taken, vessel fresh"
    assert not any(name.startswith("heads") for name in transfer.taken)


def test_the_same_labels_in_another_order_are_taken_whole_and_turned(plan):
    theirs, ours = made(plan, 1, 3, 0), made(plan, 1, 3, 1)
    transfer = take_over(ours, given(theirs), inputs=["CT"], outputs=["background", "lesion", "lung"], regions=False)
    assert "heads.0.weight" in transfer.taken
    assert torch.equal(ours.heads[0].weight, theirs.heads[0].weight[[0, 2, 1]])


def test_regions_and_classes_share_no_rows(plan):
    theirs, ours = made(plan, 1, 3, 0), made(plan, 1, 2, 1)
    transfer = take_over(ours, given(theirs), inputs=["CT"], outputs=["lung", "lesion"], regions=True)
    assert transfer.left["heads.0.weight"] == "its outputs are classes in the given weights, regions here"


@pytest.mark.parametrize(("number", "taken"), [(3, True), (4, False)])
def test_outputs_of_unknown_names_are_taken_in_order_if_as_many(plan, number, taken):
    theirs, ours = made(plan, 1, 3, 0), made(plan, 1, number, 1)
    names = ["background", *"abc"][:number]
    transfer = take_over(ours, given(theirs, outputs=None, regions=None), inputs=["CT"], outputs=names, regions=False)
    assert ("heads.0.weight" in transfer.taken) == taken and ("heads.0.weight" in transfer.left) != taken


def test_channels_are_matched_by_name_and_new_ones_start_at_0_so_that_the_network_begins_as_it_was(plan):
    theirs, ours = made(plan, 2, 3, 0).eval(), made(plan, 3, 3, 1).eval()
    outputs = ["background", "lung", "lesion"]
    transfer = take_over(ours, given(theirs, channels=("T1", "FLAIR")), inputs=["FLAIR", "T2", "t1"], outputs=outputs, regions=False)
    image = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(ours(image), theirs(image[:, [2, 0]]))
    assert transfer.partly["encoder.levels.0.0.conv.weight"] == "channels FLAIR, t1 taken, T2 at 0"


def test_channels_without_a_shared_name(plan):
    outputs = ["background", "lung", "lesion"]
    theirs, ours = made(plan, 2, 3, 0).eval(), made(plan, 2, 3, 1).eval()
    assert (
        "encoder.levels.0.0.conv.weight"
        in take_over(ours, given(theirs, channels=("a", "b")), inputs=["c", "d"], outputs=outputs, regions=False).taken
    )  # as many: in order
    theirs, ours = made(plan, 2, 3, 0).eval(), made(plan, 5, 3, 1).eval()
    transfer = take_over(ours, given(theirs, channels=None), inputs=list("cdefg"), outputs=outputs, regions=False)
    alike = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(ours(alike.expand(1, 5, 16, 16)), theirs(alike.expand(1, 2, 16, 16)), rtol=1e-4, atol=1e-5)
    assert transfer.partly["encoder.levels.0.0.conv.weight"] == "each of the 5 channels is the mean of the given 2 times 0.4"


def test_other_shapes_and_missing_tensors_are_named(peer_plan, plan):
    theirs, ours = made(plan, 1, 3, 0), made(peer_plan([4, 8, 16, 16], [(1, 1), *[(2, 2)] * 3]), 1, 3, 1)
    transfer = take_over(ours, given(theirs), inputs=["CT"], outputs=["background", "lung", "lesion"], regions=False)
    assert transfer.left["encoder.levels.2.0.conv.weight"] == "its shape is 8 x 8 x 3 x 3 in the given weights, 16 x 8 x 3 x 3 here"
    assert transfer.left["encoder.levels.3.0.conv.weight"] == "the given weights have no such tensor"
    assert transfer.left["encoder.levels.2.0.norm.weight"] == "its shape is 8 in the given weights, 16 here"
    wider = take_over(
        made(peer_plan([4, 8, 8], [(1, 1), (2, 2), (2, 2)], [(3, 3), (5, 5), (3, 3)]), 1, 3, 1),
        given(theirs),
        inputs=["CT"],
        outputs=["background", "lung", "lesion"],
        regions=False,
    )
    assert wider.left["encoder.levels.1.0.norm.bias"] == wider.left["encoder.levels.1.0.conv.bias"] == "its convolution stayed fresh"
    assert "encoder.levels.2.0.norm.bias" in wider.taken
    assert {"encoder.levels.0.0.conv.weight", "decoder.levels.0.0.conv.weight", "heads.0.weight"} <= set(transfer.taken)
    deep = take_over(
        made(plan, 1, 3, 1),
        given(made(plan, 1, 3, 0, deep_supervision=True)),
        inputs=["CT"],
        outputs=["background", "lung", "lesion"],
        regions=False,
    )
    assert deep.unused == ["heads.1.bias", "heads.1.weight"]


def test_weights_of_which_nothing_fits_are_refused(plan, peer_plan):
    theirs = made(peer_plan([4, 8], [(1, 1, 1), (2, 2, 2)]), 1, 3, 0)
    with pytest.raises(ModelError, match="nothing of made weights fits"):
        take_over(made(plan, 1, 5, 1), given(theirs, outputs=None), inputs=["CT"], outputs=list("abcde"), regions=False)
