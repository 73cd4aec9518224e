"""plans.json as the peer writes and reads it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from autoseg.errors import PlanError
from autoseg.planning import plan_from_fingerprint, to_nnunet_plans

PEER = Path(__file__).resolve().parents[3] / "peer" / "bin" / "python"

READ = """
import json, sys
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
content = json.load(open(sys.argv[1]))
manager = PlansManager(content["plans"])
labels = manager.get_label_manager(content["dataset"])
found = {}
for name in manager.available_configurations:
    c = manager.get_configuration(name)
    outputs = labels.num_segmentation_heads
    network = get_network_from_plans(
        c.network_arch_class_name, c.network_arch_init_kwargs, c.network_arch_init_kwargs_req_import, 1, outputs, deep_supervision=True
    )
    c.resampling_fn_data, c.resampling_fn_seg, c.resampling_fn_probabilities, c.preprocessor_class, manager.image_reader_writer_class
    found[name] = sum(p.numel() for p in network.parameters())
print("FOUND" + json.dumps(found))
"""


@pytest.fixture
def hippocampus(shared_data):
    """dataset.json, fingerprint and plans of a model of the peer's."""
    folder = shared_data("nnunet_model")
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("dataset", "dataset_fingerprint", "plans")]


def test_a_complete_file_is_the_peers_own(hippocampus):
    dataset, fingerprint, theirs = hippocampus
    plan = plan_from_fingerprint(dataset, fingerprint, "nnunet")
    ours = to_nnunet_plans(plan, complete=True, dataset=dataset, fingerprint=fingerprint)
    assert set(ours) == set(theirs)
    theirs["configurations"]["3d_fullres"]["batch_size"] = ours["configurations"]["3d_fullres"]["batch_size"]  # edited there (README)
    theirs["dataset_name"] = ours["dataset_name"]
    assert ours == theirs


def test_complete_files_hold_what_the_decisions_hold(planner_cases):
    for case in planner_cases:
        plan = plan_from_fingerprint(case["dataset"], case["fingerprint"], "nnunet-resenc-l")
        brief, whole = to_nnunet_plans(plan), to_nnunet_plans(plan, complete=True)
        for name, part in brief["configurations"].items():
            architecture = part.pop("architecture", None)
            assert part.items() <= whole["configurations"][name].items()
            if architecture:
                assert architecture.items() <= whole["configurations"][name]["architecture"]["arch_kwargs"].items()


def test_ct_figures_are_the_steps(planner_cases):
    case = next(c for c in planner_cases if c["dataset"]["channel_names"] == {"0": "CT"})
    plans = to_nnunet_plans(plan_from_fingerprint(case["dataset"], case["fingerprint"], "nnunet"), complete=True)
    theirs = case["fingerprint"]["foreground_intensity_properties_per_channel"]["0"]
    [ours] = plans["foreground_intensity_properties_per_channel"].values()
    assert ours == pytest.approx({key: theirs[key] for key in ("mean", "std", "percentile_00_5", "percentile_99_5")})


def test_what_the_peer_cannot_build_is_refused(planned):
    with pytest.raises(PlanError, match=r"network\.downsampling is 'max_pool'"):
        to_nnunet_plans(planned("covid19-ct"), complete=True)
    assert to_nnunet_plans(planned("covid19-ct"))["configurations"]["3d_fullres"]["patch_size"]
    layers = to_nnunet_plans(planned("auto"), complete=True)["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert layers["norm_op"].endswith("BatchNorm3d") and layers["norm_op_kwargs"]["momentum"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["nnunet", "nnunet-resenc-l", "auto"])
def test_the_peer_reads_the_file_and_builds_the_networks(planner_cases, tmp_path, recipe):
    """As many parameters as autoseg counts for its own network of the same plan, deep-supervision heads included."""
    if not PEER.is_file():
        pytest.skip("the peer's own environment is not beside the checkout")
    from autoseg.network.build import build

    cascades = [case for case in planner_cases if "3d_cascade_fullres" in case["plans"]["default"]["configurations"]]
    case = next(case for case in cascades if len(case["dataset"]["channel_names"]) == 1)
    plan = plan_from_fingerprint(case["dataset"], case["fingerprint"], recipe)
    file = tmp_path / "plans.json"
    file.write_text(json.dumps({"plans": to_nnunet_plans(plan, complete=True), "dataset": case["dataset"]}))
    run = subprocess.run([PEER, "-c", READ, file], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.split("FOUND")[1])
    outputs = plan.dataset.label_set().outputs
    for name, part in plan.configurations.items():
        network = build(part.inside().network, 1, outputs, deep_supervision=True)
        assert found[name] == sum(p.numel() for p in network.parameters()), name
