"""What is drawn follows the plan, and is drawn before anything is read."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.errors import PlanError
from autoseg.planning.schema import AugmentationPlan
from autoseg.training.augmentation import check, in_processes, inside
from autoseg.training.augmentation.drawing import Drawn, Wanted, draw_changes, draw_warp
from autoseg.training.sampling import PatchPlace

PLACE = PatchPlace((3, 4, 5), (7.2, 8.4, 9.1), (8, 8, 8))
VALUES = {
    "backend": "native",
    "conventions": "batchgenerators",
    "device": "cpu",
    "plug_ins": [],
    "thick_axis": None,
    "mirror_axes": [],
    "mirror_probability": 0.5,
    "mirror_sides": "blind",
    "interpolation": (3, 0),
    "statistics": "volume",
    "previous_stage": [],
}


def plan(*transforms, **changes) -> AugmentationPlan:
    parts = [{"probability": 1, "channel_probability": 1, "invert": False, **t} for t in transforms]
    return AugmentationPlan(**{**VALUES, "transforms": parts, **changes})


def wanted(made: AugmentationPlan, dimension=3) -> Wanted:
    drawn = Drawn(
        intensity=tuple(t for t in made.transforms if t.do not in ("elastic", "rotate", "scale")),
        spatial=tuple(t for t in made.transforms if t.do in ("elastic", "rotate", "scale")),
    )
    return Wanted(made, drawn, PLACE, dimension, "zero", False)


def warps(made, count=400, dimension=3):
    rng = np.random.default_rng(0)
    return [draw_warp(wanted(made, dimension), rng) for _ in range(count)]


SCALE = {"do": "scale", "ranges": {"factor": (0.7, 1.4)}}
ROTATE = {"do": "rotate", "ranges": {"z": (-30, 30), "y": (-30, 30), "x": (-30, 30)}}
ELASTIC = {"do": "elastic", "ranges": {"alpha": (0, 900), "sigma": (9, 13)}}


def test_scales_are_drawn_as_the_conventions_say():
    """batchgenerators: below 1 as often as above; the peer: evenly over the range (section 4.6)."""
    even = np.array([w.matrix[0, 0] for w in warps(plan(SCALE), 3000)])
    uniform = np.array([w.matrix[0, 0] for w in warps(plan(SCALE, conventions="batchgeneratorsv2"), 3000)])
    assert np.mean(even < 1) == pytest.approx(0.5, abs=0.03) and np.mean(uniform < 1) == pytest.approx(3 / 7, abs=0.03)
    assert 0.7 <= uniform.min() < 0.71 and 1.39 < uniform.max() <= 1.4


def test_rotations_are_rotations_within_their_ranges():
    for warp in warps(plan(ROTATE), 50):
        np.testing.assert_allclose(warp.matrix @ warp.matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(warp.matrix) == pytest.approx(1)
    turned = {"do": "rotate", "ranges": {"y": (20, 20)}}
    matrix = warps(plan(turned), 1)[0].matrix
    np.testing.assert_allclose(matrix[1], (0, 1, 0), atol=1e-12)
    assert np.degrees(np.arccos(matrix[0, 0])) == pytest.approx(20)


@pytest.mark.parametrize(("dimension", "axis", "thick"), [(3, 1, 1), (2, 0, None)])
def test_slices_are_neither_bent_nor_stretched_across(dimension, axis, thick):
    made = plan(SCALE, ELASTIC, thick_axis=thick)
    for warp in warps(made, 20, dimension):
        assert warp.matrix[axis, axis] == 1 and not np.delete(warp.matrix[axis], axis).any()
        assert axis not in warp.elastic.axes and len(warp.elastic.axes) == 2
    coarse = plan({"do": "low_resolution", "ranges": {"factor": (0.5, 0.9)}}, thick_axis=thick)
    factors = draw_changes(wanted(coarse, dimension), 1, np.random.default_rng(0))[0].values[0]
    assert factors[axis] == 1 and all(0.5 <= f <= 0.9 for a, f in enumerate(factors) if a != axis)


def test_numbers_lie_in_their_ranges_channel_by_channel():
    made = plan(
        {"do": "contrast", "ranges": {"factor": (0.3, 3)}},
        {"do": "brightness", "ranges": {"factor": (0.5, 2)}},
        {"do": "gamma", "ranges": {"exponent": (0.7, 1.5)}, "invert": True},
        {"do": "noise", "ranges": {"deviation": (0, 0.05)}},
        {"do": "blur", "ranges": {"sigma": (0.5, 1)}, "channel_probability": 0.5},
        {"do": "low_resolution", "ranges": {"factor": (0.5, 1)}, "channel_probability": 0.5},
    )
    rng = np.random.default_rng(0)
    drawn = [draw_changes(wanted(made), 3, rng) for _ in range(500)]
    by_name = {c[0].do: [v for change in c for v in change.values] for c in zip(*drawn, strict=True)}
    for name, low, high in (("contrast", 0.3, 3), ("brightness", 0.5, 2), ("gamma", 0.7, 1.5), ("noise", 0, 0.05)):
        assert low <= min(by_name[name]) and max(by_name[name]) <= high
    assert np.mean(np.array(by_name["brightness"]) < 1) == pytest.approx(1 / 3, abs=0.04)  # evenly over its range
    assert np.mean(np.array(by_name["contrast"]) < 1) == pytest.approx(0.5, abs=0.04)
    assert all(len(set(c[3].values)) == 1 for c in drawn)  # noise: one deviation for all channels
    assert all(len(set(c[0].values)) == 3 for c in drawn)
    for name in ("blur", "low_resolution"):
        assert np.mean([v is not None for v in by_name[name]]) == pytest.approx(0.5, abs=0.04)
    assert all(len(set(v)) == 3 for v in by_name["blur"] if v) and all(len(set(v)) == 1 for v in by_name["low_resolution"] if v)
    assert all(c[2].invert and not c[0].invert for c in drawn)
    assert len({c[3].seed for c in drawn}) == 500


def test_whole_volumes_are_asked_for_only_where_their_values_matter():
    contrast = {"do": "contrast", "ranges": {"factor": (0.3, 3)}}
    gamma = {"do": "gamma", "ranges": {"exponent": (0.7, 1.5)}}
    brightness = {"do": "brightness", "ranges": {"factor": (0.5, 2)}}
    whole = [
        wanted(plan(*t)).needs_whole_volume for t in ([contrast], [contrast, brightness], [brightness, contrast], [gamma], [brightness])
    ]
    assert whole == [False, False, True, True, False]  # the stored volume's mean and range are known
    assert wanted(plan(contrast, backend="batchgenerators")).needs_whole_volume
    assert not wanted(plan(gamma, statistics="patch")).needs_whole_volume


def test_a_thick_axis_is_named_as_read():
    assert inside(plan(thick_axis=2), (2, 0, 1).index).thick_axis == 0
    assert inside(plan(), (2, 0, 1).index).thick_axis is None


def test_what_a_backend_cannot_do_is_refused_by_key():
    with pytest.raises(PlanError, match=r"interpolation asks for order 2 of the image.*\[0, 1, 3\].*batchgenerators"):
        check(plan(interpolation=(2, 0)))
    with pytest.raises(PlanError, match="order 3 of the labels"):
        check(plan(interpolation=(3, 3)))
    check(plan(interpolation=(2, 3), backend="batchgenerators"))
    with pytest.raises(PlanError, match=r"device is training.*CPU only"):
        check(plan(device="training", backend="batchgenerators"))
    with pytest.raises(PlanError, match=r"noise_transforms\.NoSuchTransform"):
        check(plan(plug_ins=[{"transform": "noise_transforms.NoSuchTransform", "arguments": {}, "probability": 1}]))
    check(plan(device="training"))


def test_processes_are_for_what_draws_from_shared_generators():
    rician = {"transform": "noise_transforms.RicianNoiseTransform", "arguments": {}, "probability": 1}
    assert not in_processes(plan())
    assert in_processes(plan(backend="batchgenerators")) and in_processes(plan(plug_ins=[rician]))
