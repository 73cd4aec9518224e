"""The peer's recipes reproduce its decisions (nnunet_algorithms.md section 2)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.errors import PlanError
from autoseg.planning import plan_from_fingerprint, to_nnunet_plans
from autoseg.planning.topology import Design, Levels, elements

PLANNERS = {"default": "nnunet", "resenc_m": "nnunet-resenc-m", "resenc_l": "nnunet-resenc-l", "resenc_xl": "nnunet-resenc-xl"}


def differences(expected, found, path=""):
    """Paths where two JSON values differ; floats within 1e-9."""
    if isinstance(expected, dict):
        if set(expected) != set(found):
            return [f"{path}: keys {sorted(set(expected) ^ set(found))}"]
        return [d for key in expected for d in differences(expected[key], found[key], f"{path}.{key}")]
    if isinstance(expected, list):
        if len(expected) != len(found):
            return [f"{path}: {expected} {found}"]
        return [d for i, (a, b) in enumerate(zip(expected, found, strict=True)) for d in differences(a, b, f"{path}[{i}]")]
    equal = math.isclose(expected, found, rel_tol=1e-9) if isinstance(expected, float) else expected == found
    return [] if equal else [f"{path}: {expected} {found}"]


def test_all_plans_of_the_peer_are_reproduced(planner_cases):
    wrong, right = {}, 0
    for case in planner_cases:
        for planner, expected in case["plans"].items():
            found = to_nnunet_plans(plan_from_fingerprint(case["dataset"], case["fingerprint"], PLANNERS[planner]))
            if off := differences(expected, {key: found[key] for key in expected}):
                wrong[case["name"], planner] = off[:3]
            else:
                right += 1
    assert not wrong
    assert right == 160


def peers(spacings, shapes, *, names=("MRI",), labels=2, training=None, relative=1.0):
    """dataset.json and dataset_fingerprint.json of given spacings and shapes."""
    dataset = {
        "channel_names": {str(i): n for i, n in enumerate(names)},
        "labels": {"background": 0, **{f"class_{i}": i for i in range(1, labels + 1)}},
        "numTraining": training or len(spacings),
        "file_ending": ".nii.gz",
    }
    properties = {"mean": 90.0, "median": 95.0, "std": 40.0, "min": -1e3, "max": 900.0, "percentile_00_5": -100.0, "percentile_99_5": 200.0}
    fingerprint = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "median_relative_size_after_cropping": relative,
        "foreground_intensity_properties_per_channel": {str(i): properties for i in range(len(names))},
    }
    return dataset, fingerprint


def test_worked_example_a():
    dataset, fingerprint = peers([[1.0, 1.0, 1.0]] * 208, [[38, 51, 37]] * 208)
    plans = to_nnunet_plans(plan_from_fingerprint(dataset, fingerprint, "nnunet"))
    full, two = plans["configurations"]["3d_fullres"], plans["configurations"]["2d"]
    assert list(plans["configurations"]) == ["2d", "3d_fullres"]
    assert full["patch_size"] == [40, 56, 40]
    assert full["architecture"]["features_per_stage"] == [32, 64, 128, 256]
    assert full["architecture"]["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert full["batch_size"] == 8
    assert full["batch_dice"] is False
    assert (two["patch_size"], two["batch_size"], two["batch_dice"]) == ([56, 40], 333, True)


def test_worked_example_b():
    spacings = [[3.0, 0.625, 0.625]] * 8 + [[3.6, 0.625, 0.625]] * 24
    shapes = [[20 if s[0] == 3.0 else 19, 320, 320] for s in spacings]
    shapes[10:20] = [[20, 320, 320]] * 10
    dataset, fingerprint = peers(spacings, shapes, names=("T2", "ADC"))
    full = to_nnunet_plans(plan_from_fingerprint(dataset, fingerprint, "nnunet"))["configurations"]["3d_fullres"]
    assert full["spacing"] == pytest.approx([3.0, 0.625, 0.625])
    assert full["patch_size"] == [20, 320, 256]
    assert full["architecture"]["strides"] == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert full["architecture"]["kernel_sizes"] == [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert full["architecture"]["features_per_stage"] == [32, 64, 128, 256, 320, 320, 320]
    assert full["batch_size"] == 2


@pytest.mark.parametrize(
    ("size", "stages", "residual", "most", "expected"),
    [
        ((128, 128, 128), 6, True, 320, 557_420_544),
        ((512, 512), 7, True, 512, 129_531_904),
        ((128, 128, 128), 6, False, 320, 452_796_416),
        ((512, 512), 8, False, 512, 82_886_656),
    ],
)
def test_feature_map_elements(size, stages, residual, most, expected):
    ones, twos = (1,) * len(size), (2,) * len(size)
    levels = Levels(size, (ones, *[twos] * (stages - 1)), ((3,) * len(size),) * stages)
    encoder, decoder = ((1, 3, 4, 6), (1,)) if residual else ((2,), (2,))
    features = [min(most, 32 * 2**level) for level in range(stages)]
    assert elements(levels, features, Design(residual, encoder, decoder, 3)) == expected


def test_memory_is_the_peers_target():
    dataset, fingerprint = peers([[1.0, 1.0, 1.0]] * 30, [[200, 300, 300]] * 30)
    plans = [plan_from_fingerprint(dataset, fingerprint, "nnunet", memory_gb=gb) for gb in (4, 8, 16)]
    voxels = [math.prod(plan.configurations["3d_fullres"].patch_size) for plan in plans]
    assert voxels[0] < voxels[1] < voxels[2]
    here, there = (plan_from_fingerprint(dataset, fingerprint, "nnunet", machine=machine) for machine in ("cpu", "cuda"))
    assert here == there  # the peer knows no machine


def test_triples_stand_as_read_and_turn_back():
    """Sagittal slices: the coarse axis is the last as read and the first inside."""
    dataset, fingerprint = peers([[0.8, 0.8, 4.0]] * 20, [[300, 280, 20]] * 20)
    plan = plan_from_fingerprint(dataset, fingerprint, "nnunet")
    full, inside = plan.configurations["3d_fullres"], to_nnunet_plans(plan)["configurations"]["3d_fullres"]
    assert full.transpose == (2, 0, 1)
    assert full.spacing == [0.8, 0.8, 4.0]
    assert inside["spacing"] == [4.0, 0.8, 0.8]
    assert np.argmin(full.patch_size) == 2
    assert np.argmin(inside["patch_size"]) == 0
    assert full.inside().patch_size == inside["patch_size"]
    assert plan.configurations["2d"].spacing == [0.8, 0.8]


def test_normalisation_follows_names_and_mask():
    names = ("ct", "noNorm", "T1", "Rescale_to_0_1", "rgb_to_0_1")
    dataset, fingerprint = peers([[1.0, 1.0, 1.0]] * 5, [[64, 64, 64]] * 5, names=names, relative=0.5)
    full = to_nnunet_plans(plan_from_fingerprint(dataset, fingerprint, "nnunet"))["configurations"]["3d_fullres"]
    assert full["normalization_schemes"] == [
        "CTNormalization",
        "NoNormalization",
        "ZScoreNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
    ]
    assert full["use_mask_for_norm"] == [False, False, True, False, False]


def test_channels_of_one_name_keep_their_own_figures():
    dataset, fingerprint = peers([[1.0, 1.0, 1.0]] * 5, [[64, 64, 64]] * 5, names=("CT", "CT"))
    fingerprint["foreground_intensity_properties_per_channel"]["1"] = {"mean": 1, "std": 2, "percentile_00_5": 3, "percentile_99_5": 4}
    plan = plan_from_fingerprint(dataset, fingerprint, "nnunet")
    assert plan.dataset.channels == ["CT", "CT (2)"]
    assert [plan.intensity[c]["hu"].before_resampling[1].mean for c in plan.dataset.channels] == [90, 1]


def test_missing_keys_are_named():
    dataset, fingerprint = peers([[1.0, 1.0, 1.0]], [[64, 64, 64]])
    del fingerprint["shapes_after_crop"]
    with pytest.raises(PlanError, match="shapes_after_crop"):
        plan_from_fingerprint(dataset, fingerprint, "nnunet")


def test_sides_by_name_alone_are_kept_apart():
    dataset, fingerprint = peers([[1.0, 1.0, 1.0]] * 5, [[64, 64, 64]] * 5)
    dataset["labels"] = {"background": 0, "kidney_left": 1, "kidney_right": 2}
    assert plan_from_fingerprint(dataset, fingerprint, "auto").training.augmentation.mirror_sides == "keep"
    assert plan_from_fingerprint(dataset, fingerprint, "nnunet").training.augmentation.mirror_sides == "blind"
