"""Networks of plans by the peer's rules have as many weights as the peer's own.

The figures are the peer's: `sum(p.numel() for p in network.parameters())` of nnU-Net v2 2.8.1's `get_network_from_plans`
(dynamic-network-architectures' PlainConvUNet and ResidualEncoderUNet, deep supervision on) for the plans in reference/planner_cases.json,
which its own planners made; a cascade's second stage with one more channel for each foreground label, as `determine_num_input_channels`.
"""

from __future__ import annotations

import json

import pytest
import torch

from autoseg.network import build
from autoseg.planning import plan_from_fingerprint
from autoseg.planning.forecast import parameters

FIGURES = {
    ("liver_like_ct", "nnunet", "3d_fullres"): 31_196_399,
    ("liver_like_ct", "nnunet", "3d_cascade_fullres"): 31_198_127,
    ("liver_like_ct", "nnunet-resenc-m", "3d_lowres"): 102_350_575,
    ("liver_like_ct", "nnunet-resenc-l", "3d_cascade_fullres"): 102_352_303,
    ("brain_tumour_like_4ch_regions", "nnunet-resenc-l", "3d_fullres"): 102_353_167,
    ("prostate_like_2ch_aniso", "nnunet", "2d"): 33_473_618,
    ("prostate_like_2ch_aniso", "nnunet-resenc-m", "2d"): 105_918_610,
    ("prostate_like_2ch_aniso", "nnunet-resenc-m", "3d_fullres"): 140_403_602,
    ("total_body_ct_30_classes", "nnunet-resenc-xl", "3d_fullres"): 102_372_310,
    ("natural_rgb_2d", "nnunet", "2d"): 59_177_872,
    ("natural_rgb_2d", "nnunet-resenc-xl", "2d"): 174_117_840,
    ("spine_sagittal_worst_last", "nnunet", "3d_fullres"): 44_597_624,
    ("spine_sagittal_worst_last", "nnunet-resenc-m", "3d_fullres"): 140_094_776,
    ("spine_sagittal_worst_last", "nnunet-resenc-l", "3d_fullres"): 140_422_456,
    ("very_few_slices", "nnunet-resenc-l", "3d_fullres"): 137_142_898,
    ("strongly_aniso_hist_stack", "nnunet", "3d_lowres"): 30_749_359,
    ("strongly_aniso_hist_stack", "nnunet-resenc-m", "3d_lowres"): 101_682_351,
    ("strongly_aniso_hist_stack", "nnunet-resenc-l", "3d_lowres"): 138_289_778,
    ("strongly_aniso_hist_stack", "nnunet-resenc-xl", "3d_cascade_fullres"): 135_731_829,
}


@pytest.fixture(scope="module")
def cases(shared_data):
    path = shared_data("hippocampus").parents[1] / "reference" / "planner_cases.json"
    return {case["name"]: case for case in json.loads(path.read_text())["cases"]}


@pytest.mark.parametrize(("case", "recipe", "configuration"), FIGURES)
def test_as_many_weights_as_the_peers_network(cases, case, recipe, configuration):
    plan = plan_from_fingerprint(cases[case]["dataset"], cases[case]["fingerprint"], recipe)
    network_plan = plan.configurations[configuration].network
    channels, outputs = plan.input_channels(configuration), plan.dataset.label_set().outputs
    with torch.device("meta"):
        network = build(network_plan, channels, outputs, deep_supervision=True)
    count = sum(p.numel() for p in network.parameters())
    assert count == FIGURES[case, recipe, configuration]
    lower_heads = sum(p.numel() for head in network.heads[1:] for p in head.parameters())
    assert parameters(network_plan, channels, outputs) == count - lower_heads, "what the forecast counts"
