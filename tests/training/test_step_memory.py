"""The forecast of a training step's memory against real steps on a CPU, each plan in a process of its own."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoseg.planning.activations import kept, step_operations
from autoseg.planning.forecast import Task, form_on, training_step_gb
from autoseg.planning.schema import Plan

STEPS, TOLERANCE = 3, 0.15

# Name -> features, patch, and what differs from a U-Net with batch norm in channels_last
PLANS: dict[str, dict[str, Any]] = {
    "small": {"features": [8, 16, 32], "patch": [32, 64, 64]},
    "contiguous": {"features": [16, 32, 64, 128], "patch": [32, 80, 80], "memory_layout": "contiguous"},
    "residual": {"features": [16, 32, 64, 128], "patch": [48, 80, 80], "kind": "residual_unet"},
    "instance_contiguous_deep": {
        "features": [16, 32, 64, 128],
        "patch": [48, 96, 96],
        "norm": "instance",
        "memory_layout": "contiguous",
        "deep_supervision": True,
    },
    "instance": {"features": [16, 32, 64, 128], "patch": [64, 112, 112], "norm": "instance"},
}
TINY: dict[str, dict[str, Any]] = {
    "batch": {},
    "batch_contiguous": {"memory_layout": "contiguous"},
    "instance": {"norm": "instance"},
    "instance_contiguous_deep": {"norm": "instance", "memory_layout": "contiguous", "deep_supervision": True},
    "residual": {"kind": "residual_unet"},
    "residual_instance": {"kind": "residual_unet", "norm": "instance"},
    "max_pool": {"downsampling": "max_pool"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16_max_pool": {"precision": "bfloat16", "downsampling": "max_pool"},
}


def plan_of(content: dict[str, Any], wanted: dict[str, Any]) -> Plan:
    """The made plan with another network; layers twice at each level, once in a residual network's decoder."""
    content, wanted = copy.deepcopy(content), dict(wanted)
    training, configuration = content["training"], content["configurations"]["net"]
    network, levels = configuration["network"], len(wanted["features"])
    training |= {key: wanted.pop(key) for key in ("memory_layout", "deep_supervision", "precision") if key in wanted}
    training["augmentation"]["transforms"] = []
    configuration["patch_size"] = wanted.pop("patch")
    network["norm"] = {"name": wanted.pop("norm", "batch"), "momentum": 0.1, "eps": 1e-5}
    network |= {"strides": [[1] * 3] + [[2] * 3] * (levels - 1), "kernels": [[3] * 3] * levels, "downsampling": "stride", "dropout": 0.0}
    decoder = 1 if wanted.get("kind") == "residual_unet" else 2
    network |= {"blocks": {"encoder": [2] * levels, "decoder": [decoder] * (levels - 1)}, "activation": "leaky_relu", **wanted}
    return Plan.model_validate(content)


def kept_bytes(plan: Plan) -> float:
    """By formula, of one step."""
    configuration, training, task = plan.configurations["net"].inside(), plan.training, Task.of(plan, "net")
    operations = step_operations(
        configuration.network,
        configuration.patch_size,
        configuration.batch_size,
        task.inputs,
        task.outputs,
        form_on(training, "cpu"),
        deep_supervision=training.deep_supervision,
        regions=task.regions,
    )
    return kept(operations)


def run_steps(plan: Plan) -> tuple[float, float]:
    """Resident GB after the imports, and by how much real steps on random patches raise it at most."""
    import torch

    from autoseg.memory import PeakRam, resident_gb
    from autoseg.training.setting import fresh_state, make_setting
    from autoseg.training.step import train_step

    torch.set_num_threads(2)
    after_imports = resident_gb()
    with PeakRam() as peak:
        setting = make_setting(plan, "net", *nowhere(), "cpu")
        state = fresh_state(setting)
        for _ in range(STEPS):
            train_step(setting, state, random_batch(setting), lambda _: None)
            state.step += 1
    return after_imports, peak.gb


def nowhere() -> tuple[Any, Path]:
    from autoseg.planning.folds import Fold

    return Fold(0, ("a",), ()), Path("/nonexistent")


def random_batch(setting):
    import numpy as np
    import torch

    from autoseg.training.step import Batch

    size, patch, rng = setting.configuration.batch_size, setting.configuration.patch_size, np.random.default_rng(0)
    image = torch.from_numpy(rng.random((size, 1, *patch), np.float32)).contiguous(memory_format=setting.layout)
    labels = rng.integers(0, 3, (size, *patch), np.uint8)
    return Batch(image, setting.form.targets(labels, [False] * size), ("a",) * size)


def measured(plan: Plan) -> tuple[float, float]:
    """What `run_steps` gives in a process of its own."""
    run = subprocess.run([sys.executable, __file__], input=plan.model_dump_json(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return tuple(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the constants of the forecast are those of Linux")
@pytest.mark.parametrize("name", PLANS)
def test_peak_memory_of_real_steps_is_within_15_percent_of_the_forecast(make_fold, name):
    plan = plan_of(make_fold().content, PLANS[name])
    forecast = training_step_gb(plan.configurations["net"], plan.training, Task.of(plan, "net"), "cpu")
    after_imports, peak = measured(plan)
    print(
        f"{name}: activations {kept_bytes(plan) / 2**30:.3f} GB, forecast {forecast:.3f}, measured {peak:.3f} "
        f"beyond {after_imports:.3f} after imports, forecast / measured {forecast / peak:.3f}"
    )
    assert forecast == pytest.approx(peak, rel=TOLERANCE)


def test_the_plans_that_are_measured_span_a_factor_of_ten(make_fold):
    sizes = [kept_bytes(plan_of(make_fold().content, wanted)) for wanted in PLANS.values()]
    assert max(sizes) >= 10 * min(sizes)


@pytest.mark.parametrize("name", TINY)
def test_what_is_kept_by_formula_is_what_autograd_saves(make_fold, name):
    import torch

    from autoseg.network.precision import autocast
    from autoseg.training.setting import fresh_state, make_setting

    plan = plan_of(make_fold().content, {"features": [4, 8, 8], "patch": [8, 16, 16], **TINY[name]})
    anywhere = plan.training.model_copy(update={"precision": "float32"})  # what a machine without bfloat16 refuses it can still compute
    setting = make_setting(plan.model_copy(update={"training": anywhere}), "net", *nowhere(), "cpu")
    setting = replace(setting, precision=plan.training.precision)
    network, batch = fresh_state(setting).network.train(), random_batch(setting)
    given = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), batch.image, batch.target)}
    saved: dict[int, Any] = {}  # the storages themselves, that none is freed and its place taken by another

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in given:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with autocast(setting.precision, "cpu"):
            logits = network(batch.image)
        loss = setting.loss(logits, batch.target)[0]
    assert loss.requires_grad
    for output in logits if isinstance(logits, list | tuple) else [logits]:
        saved[output.untyped_storage().data_ptr()] = output.untyped_storage()  # held by the step, whatever autograd keeps
    assert kept_bytes(plan) == pytest.approx(sum(storage.nbytes() for storage in saved.values()), rel=0.01)


if __name__ == "__main__":
    print(json.dumps(run_steps(Plan.model_validate_json(sys.stdin.read()))))
