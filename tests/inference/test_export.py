"""From slabs to label maps: equal to interpolating the whole volume, in bounded memory, back in the right place."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates, zoom
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.data.labels import LabelSet
from autoseg.geometry import Grid, Orientation, whole_box
from autoseg.inference import export
from autoseg.inference.sliding_window import Slab
from autoseg.planning.schema import Interpolation, LabelInterpolation
from autoseg.preprocessing.prepared import Origin

CLASSES = LabelSet(("a", "b"), ((3,), (7,)))
REGIONS = LabelSet(("whole", "core"), ((1, 2), (2,)), region_order=(1, 2))


def cut(outputs: np.ndarray, lengths: list[int]) -> list[Slab]:
    edges = np.minimum(np.cumsum([0, *lengths, outputs.shape[1]]), outputs.shape[1])
    return [Slab(int(a), torch.from_numpy(outputs[:, a:b].copy())) for a, b in itertools.pairwise(edges) if b > a]


def labelled(slabs, to: export.Target, labels: LabelSet = CLASSES, *, across=None, order_across=0, threshold=0.0) -> np.ndarray:
    return export.labels_from_logits(slabs, to, across=across, order_across=order_across, labels=labels, threshold=threshold)


def target(source, shape, spacing=(1.0, 1.0, 1.0), source_spacing=(1.0, 1.0, 1.0)) -> export.Target:
    return export.Target((0, 1, 2), tuple(source), tuple(shape), source_spacing, spacing)


def upsampled(outputs: np.ndarray, shape) -> np.ndarray:
    """The whole volume interpolated linearly by scipy, in double precision; the outer edges of the grids coincide."""
    axes = [(np.arange(n) + 0.5) * s / n - 0.5 for n, s in zip(shape, outputs.shape[1:], strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    return np.stack([map_coordinates(o.astype(float), places, order=1, mode="nearest") for o in outputs])


def smooth(outputs: int, shape, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).normal(size=(outputs, 4, 4, 4))
    return np.stack([zoom(c, [n / 4 for n in shape], order=1, mode="nearest", grid_mode=True) for c in coarse]).astype(np.float32)


def same_but_for_ties(found: np.ndarray, values: np.ndarray) -> None:
    """`found` is the argmax of `values`, except where the best two are as good as equal."""
    best = np.take_along_axis(values, found[None].astype(int), 0)[0]
    np.testing.assert_allclose(best, values.max(0), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    source=st.tuples(*[st.integers(1, 12)] * 3),
    shape=st.tuples(*[st.integers(1, 25)] * 3),
    lengths=st.lists(st.integers(1, 4), max_size=8),
    seed=st.integers(0, 99),
)
def test_slabs_give_what_the_whole_volume_gives(source, shape, lengths, seed):
    outputs = np.random.default_rng(seed).normal(size=(3, *source)).astype(np.float32)
    found = labelled(cut(outputs, lengths), target(source, shape))
    assert found.shape == shape
    same_but_for_ties(found, upsampled(outputs, shape))


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize("order_across", [0, 1])
def test_thick_slices_are_resampled_apart(across, order_across):
    source, shape = (7, 8, 9), (17, 19, 13)
    outputs = smooth(3, source)
    found = labelled(cut(outputs, [3, 2]), target(source, shape), across=across, order_across=order_across)
    within = upsampled(outputs, [source[a] if a == across else shape[a] for a in range(3)])
    places = np.indices(shape).astype(float)
    places[across] = (places[across] + 0.5) * source[across] / shape[across] - 0.5
    same_but_for_ties(found, np.stack([map_coordinates(o, places, order=order_across, mode="nearest") for o in within]))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_regions_are_written_in_order_where_they_exceed_the_threshold(threshold):
    source, shape = (6, 7, 8), (13, 9, 20)
    outputs = smooth(2, source, seed=3) + threshold
    found = labelled(cut(outputs, [4]), target(source, shape), REGIONS, threshold=threshold)
    values = upsampled(outputs, shape) - threshold
    expected = np.where(values[1] > 0, 2, np.where(values[0] > 0, 1, 0))
    clear = np.abs(values).min(0) > 1e-4
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_labels_are_decided_on_the_prepared_grid_where_the_plan_says_so():
    outputs = smooth(3, (6, 6, 6))
    rule = LabelInterpolation(order=0, rule="argmax", across="none", order_across=0)
    found = export.labels_from_labels(cut(outputs, [2, 3]), target((6, 6, 6), (12, 12, 12)), rule, across=None, labels=CLASSES, threshold=0)
    expected = outputs.argmax(0).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_probabilities_are_those_that_the_labels_come_from(labels, average):
    source, shape = (5, 6, 7), (9, 11, 10)
    outputs = smooth(labels.outputs, source, seed=1)
    if average == "probabilities":
        outputs = np.exp(outputs) / (1 + np.exp(outputs) if labels.regions else np.exp(outputs).sum(0))
    found = export.probabilities_from(
        cut(outputs, [2, 2]), target(source, shape), across=None, order_across=0, labels=labels, average=average
    )
    values = upsampled(outputs, shape)
    if average == "logits":
        values = 1 / (1 + np.exp(-values)) if labels.regions else np.exp(values) / np.exp(values).sum(0)
    np.testing.assert_allclose(found, values, atol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the number of values of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_outputs_at_the_original_size_are_never_held(monkeypatch):
    """Twenty classes of a long volume: nothing is larger than a few slabs, far from classes x original size."""
    source, shape, classes = (120, 16, 16), (300, 40, 40), 12
    labels = LabelSet(tuple(f"c{i}" for i in range(1, classes)), tuple((i,) for i in range(1, classes)))
    outputs = smooth(classes, source)
    monkeypatch.setattr(export, "BLOCK_VALUES", 16 * 16 * classes * 8)
    with Largest():
        labelled(cut(outputs[:, :2], []), target((2, 16, 16), (4, 16, 16)), labels)
    tracemalloc.start()  # what the first call imports or compiles is left out
    with Largest() as largest:
        slabs = (Slab(start, torch.from_numpy(outputs[:, start : start + 8].copy())) for start in range(0, 120, 8))
        found = labelled(slabs, target(source, shape), labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    everything = classes * np.prod(shape) * 4
    assert largest.values * 4 < everything / 10
    assert peak < everything / 10
    same_but_for_ties(found, upsampled(outputs, shape))


def test_blocks_do_not_change_the_result(monkeypatch):
    outputs, to = smooth(3, (11, 5, 6)), target((11, 5, 6), (29, 8, 9))
    expected = labelled(cut(outputs, [11]), to)
    monkeypatch.setattr(export, "BLOCK_VALUES", 1)
    found = labelled(cut(outputs, [3, 1, 1, 4]), to)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("transpose", [None, (0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_map_goes_back_to_where_its_crop_came_from(transpose, axis):
    """What preparation did (crop, transpose) is undone, whichever axis slabs were cut along."""
    grid = Grid((9, 10, 11), (3.0, 2.0, 1.0))
    expected = np.zeros(grid.shape, np.uint8)
    box = ((1, 6), (2, 9), (3, 11))
    expected[1:6, 2:9, 3:11] = np.random.default_rng(0).integers(0, 3, (5, 7, 8))
    origin = Origin(grid, Orientation(), grid, box, transpose, "key")
    prepared = expected[1:6, 2:9, 3:11].transpose(transpose or (0, 1, 2))
    to = export.Target.of(origin, prepared.shape, (1.0, 1.0, 1.0), axis)
    assert to.shape == tuple(prepared.shape[a] for a in to.axes)
    label_map = export.on_oriented_grid(prepared.transpose(to.axes), to, origin, CLASSES)
    np.testing.assert_array_equal(label_map.voxels, np.array([0, 3, 7])[expected])
    assert label_map.grid == grid
    assert label_map.voxels.dtype == np.uint8


def test_outside_of_the_crop_all_is_background():
    labels = replace(CLASSES, background=5)
    grid = Grid((4, 4, 4))
    origin = Origin(grid, Orientation(), grid, ((1, 2), (1, 2), (1, 2)), None, "key")
    to = export.Target.of(origin, (1, 1, 1), (1.0, 1.0, 1.0), 0)
    label_map = export.on_oriented_grid(np.full((1, 1, 1), 2, np.uint8), to, origin, labels)
    assert (label_map.voxels == 5).sum() == 63
    assert label_map.voxels[1, 1, 1] == 7
    volume = export.probabilities_on_oriented_grid(np.full((3, 1, 1, 1), 1 / 3, np.float32), to, origin, labels)
    np.testing.assert_allclose(volume.sum(0), 1)
    assert volume[0, 0, 0, 0] == 1


def test_the_thick_axis_follows_the_slab_order():
    """Read (z, y, x) with x thick; inside the axes are (x, z, y); slabs are cut along inside axis 1."""
    grid = Grid((30, 31, 8), (1.0, 1.0, 5.0))
    origin = Origin(grid, Orientation(), grid, whole_box(grid.shape), (2, 0, 1), "key")
    to = export.Target.of(origin, (8, 20, 21), (5.0, 1.5, 1.5), 1)
    assert to.axes == (1, 0, 2)
    assert to.spacing == (1.0, 5.0, 1.0)
    for across in ("thick", 2):
        assert to.across(Interpolation(order=1, across=across, order_across=0), origin) == 1
    assert to.across(Interpolation(order=1, across="none", order_across=0), origin) is None
