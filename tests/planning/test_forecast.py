"""Memory and disk by formula: the arithmetic, what --memory does to a plan, and what is said of it."""

from __future__ import annotations

import math

import pytest

from autoseg.errors import ResourceError
from autoseg.planning import plan_from_fingerprint
from autoseg.planning.activations import Form, Operation, kept, peak, step_operations
from autoseg.planning.forecast import FIRST_STEP_GB, FRAGMENTS, GB, Task, case_size, training_ram_gb, training_step_gb
from autoseg.planning.schema import Plan

THIN = {"shape": (300, 512, 512), "spacing": (1.0, 0.8, 0.8)}
SHARE = 0.8  # of the memory, in plans/auto.json


def by_forecast(plan: Plan, name: str = "3d_fullres") -> float:
    return training_step_gb(plan.configurations[name], plan.training, Task.of(plan, name), plan.made_for.device)


def test_the_peak_is_found_by_going_forward_and_back():
    # what is kept: 10, then 15, then 15; the second passes 3 forward and 4 backward, the last 9 and 2
    tape = [Operation(kept=10, backward=7), Operation(kept=5, forward=3, backward=4), Operation(forward=9, backward=2)]
    assert peak(tape) == 15 + 9
    # backward: the last leaves a gradient of 6 that waits, so the second has 15 + 6 + 4, and the first 10 + 6 + 7
    waiting = [tape[0], Operation(ends=0), tape[1], Operation(forward=1, backward=2, waits=6, level=0)]
    assert peak(waiting) == 15 + 6 + 4
    assert peak([*waiting[:2], Operation(gradient=20), *waiting[2:]]) == 10 + 20 + 7  # the weights' gradients stay
    assert kept(tape) == 15


def test_a_step_of_two_levels_keeps_what_a_hand_count_finds(planned):
    network = (
        planned(settings={"features": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]], "patch_size": [8, 16, 16]})
        .configurations["3d_fullres"]
        .network
    )
    assert network.norm.name == "batch" and network.blocks.encoder == [2, 2]
    high, low = 2 * 8 * 16 * 16, 2 * 4 * 8 * 8  # voxels of a map in a batch of two
    form = Form(4, channels_last=True, cpu=False)
    operations = step_operations(network, [8, 16, 16], 2, 1, 3, form, deep_supervision=False, regions=False)
    # each unit keeps its convolution's and its norm's map; the decoder the joined maps too; then logits and probabilities of 3 classes
    maps = high * 4 * (2 * 2) + low * 8 * (2 * 2) + high * (2 * 4) + high * 4 * (2 * 2) + 2 * high * 3
    assert kept(operations) == 4 * maps


def test_memory_grows_with_the_patch_and_less_than_the_patch(planned):
    small, large = (planned(**THIN, settings={"patch_size": size}).forecast["3d_fullres"] for size in ([32, 32, 32], [64, 64, 64]))
    passing = [(f.training_memory_gb - FIRST_STEP_GB) / (1 + FRAGMENTS) for f in (small, large)]
    assert 4 < passing[1] / passing[0] <= 8
    assert large.disk_gb == small.disk_gb
    assert large.disk_gb == pytest.approx(10 * (300 * 512 * 512 * (0.9 * 4 + 0.05) + 3 * 120_000) / GB, abs=0.001)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("memory_gb", [2.0, 6.0, 24.0])
def test_a_plan_fits_by_forecast_in_the_memory_that_it_is_made_for(planned, device, memory_gb):
    plan = planned(device=device, memory_gb=memory_gb, **THIN)
    for name, configuration in plan.configurations.items():
        allowed = SHARE * memory_gb
        if device == "cpu":
            allowed -= training_ram_gb(configuration, plan.training, Task.of(plan, name), workers=1)
        assert by_forecast(plan, name) == pytest.approx(plan.forecast[name].training_memory_gb, abs=0.001)
        assert plan.forecast[name].training_memory_gb <= allowed
    assert plan.made_for.memory_gb == memory_gb


def test_what_needs_more_memory_gets_a_smaller_patch_or_batch(planned):
    """float32 maps take twice the memory of short ones, which a count of elements does not see."""
    short, long = (
        planned(device="cuda", memory_gb=6, settings={"training.precision": p}, **THIN).configurations["3d_fullres"]
        for p in ("bfloat16", "float32")
    )
    assert math.prod(long.patch_size) * long.batch_size < math.prod(short.patch_size) * short.batch_size
    assert all(p % d == 0 for p, d in zip(long.patch_size, long.network.divisor, strict=True))


def test_a_cpu_with_little_memory_gets_a_smaller_patch(planned):
    enough, little = (planned(device="cpu", memory_gb=gb, **THIN).configurations["3d_fullres"] for gb in (4, 1.1))
    assert math.prod(little.patch_size) < math.prod(enough.patch_size)
    assert enough == planned(device="cpu", memory_gb=64, **THIN).configurations["3d_fullres"]  # beyond that, time bounds it


def test_a_given_patch_stays_and_the_batch_gives_way(planned):
    settings = {"patch_size": [128, 128, 128], "training.precision": "float32"}
    plan = planned(device="cuda", memory_gb=24, settings=settings, **THIN).configurations["3d_fullres"]
    assert plan.patch_size == [128, 128, 128]
    less = planned(device="cuda", memory_gb=12, settings=settings, **THIN).configurations["3d_fullres"]
    assert less.patch_size == [128, 128, 128] and 2 <= less.batch_size < plan.batch_size


def test_the_peers_recipes_keep_its_own_estimate(planned):
    one, other = (planned("nnunet", settings={"training.precision": p}, **THIN).configurations for p in ("bfloat16", "float32"))
    assert one == other


def test_memory_that_nothing_fits_in_names_figures_and_remedy(planned):
    with pytest.raises(ResourceError, match=r"--memory") as refused:
        planned(device="cpu", memory_gb=0.4, **THIN)
    assert "GB" in str(refused.value)


def test_a_plan_for_a_card_that_is_not_here_is_made_from_json_alone():
    dataset = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 20, "file_ending": ".nii.gz"}
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]] * 20,
        "shapes_after_crop": [[160, 192, 160]] * 20,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    plan = plan_from_fingerprint(dataset, fingerprint, machine={"device": "cuda", "memory_gb": 6})
    assert (plan.made_for.device, plan.made_for.memory_gb) == ("cuda", 6)
    assert 1 < plan.forecast["3d_fullres"].training_memory_gb <= SHARE * 6


def test_the_size_of_a_prepared_case_follows_spacing_crop_and_axis_order(planned):
    plan = planned(spacing=(1.0, 1.0, 4.0), shape=(200, 200, 40), crop=(180, 190, 40), settings={"spacing": [2.0, 1.0, 4.0]})
    configuration = plan.configurations["3d_fullres"]
    assert configuration.transpose == (2, 0, 1)
    size = case_size(configuration, (1.0, 1.0, 4.0), (200, 200, 40), (180, 190, 40))
    assert size.prepared == ((40, 90, 190) if configuration.crop == "nonzero" else (40, 100, 200))
    assert size.original == size.larger == 200 * 200 * 40
