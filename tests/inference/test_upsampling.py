"""Upsampled argmax equals dense interpolation and argmax, although only undecided cells are interpolated."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from autoseg.inference import upsampling
from autoseg.inference.upsampling import upsample_argmax
from autoseg.preprocessing.axes import linear_cells, nearest_cells

SHAPE = st.tuples(*[st.integers(1, 9)] * 3)
NEW_SHAPE = st.tuples(*[st.integers(1, 20)] * 3)
ACROSS = st.sampled_from([None, 0, 1, 2])
quick = settings(max_examples=40, deadline=None)


def dense(logits: np.ndarray, shape, across: int | None, order_across: int) -> np.ndarray:
    """All classes at the full size by scipy and skimage, float64."""
    if across is None or order_across == 1:
        return np.stack([resize(each.astype(float), shape, 1, mode="edge", anti_aliasing=False) for each in logits])
    grid = np.mgrid[tuple(slice(0, n) for n in shape)].astype(float)
    for axis, (old, new) in enumerate(zip(logits.shape[1:], shape, strict=True)):
        grid[axis] = (grid[axis] + 0.5) * old / new - 0.5
    grid[across] = np.floor(grid[across] + 0.5)
    return np.stack([ndimage.map_coordinates(each.astype(float), grid, order=1, mode="nearest") for each in logits])


def written(scores: np.ndarray, region_order, threshold: float) -> np.ndarray:
    result = np.zeros(scores.shape[1:], int)
    for value, score in zip(region_order, scores, strict=True):
        result[score > threshold] = value
    return result


def assert_equal_but_for_ties(result, wanted, scores, regions, threshold=0.0):
    if regions:
        margin = np.abs(scores - threshold).min(0)
    elif len(scores) > 1:
        margin = np.diff(np.sort(scores, 0)[-2:], axis=0)[0]
    else:
        margin = np.ones(wanted.shape)
    assert (result == wanted)[margin > 1e-5].all()


@quick
@given(SHAPE, NEW_SHAPE, st.integers(1, 5), ACROSS, st.sampled_from([0, 1]), st.integers(0, 2**16))
def test_classes_equal_dense_argmax(shape, new, classes, across, order_across, seed):
    logits = np.random.default_rng(seed).normal(size=(classes, *shape)).astype(np.float32)
    scores = dense(logits, new, across, order_across)
    result = upsample_argmax(logits, new, across=across, order_across=order_across)
    assert result.dtype == np.uint8
    assert_equal_but_for_ties(result, scores.argmax(0), scores, False)


@quick
@given(SHAPE, NEW_SHAPE, st.integers(1, 4), ACROSS, st.sampled_from([0.0, 0.5]), st.integers(0, 2**16))
def test_regions_write_in_order(shape, new, regions, across, threshold, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(threshold, 1, size=(regions, *shape)).astype(np.float32)
    order = rng.integers(1, 400, regions).tolist()
    scores = dense(logits, new, across, 0)
    result = upsample_argmax(logits, new, across=across, region_order=order, threshold=threshold)
    assert result.dtype == (np.uint8 if max(order) < 256 else np.uint16)
    assert_equal_but_for_ties(result, written(scores, order, threshold), scores, True, threshold)


@quick
@given(SHAPE, NEW_SHAPE, ACROSS, st.data())
def test_rows_are_a_slice_of_the_whole_and_tensors_equal_arrays(shape, new, across, data):
    logits = np.random.default_rng(3).normal(size=(3, *shape)).astype(np.float32)
    whole = upsample_argmax(logits, new, across=across)
    start = data.draw(st.integers(0, new[0] - 1))
    stop = data.draw(st.integers(start + 1, new[0]))
    np.testing.assert_array_equal(upsample_argmax(logits, new, across=across, rows=(start, stop)), whole[start:stop])
    tensor = torch.from_numpy(logits)
    np.testing.assert_array_equal(upsample_argmax(tensor, new, across=across).numpy(), whole)
    cells = [(nearest_cells if axis == across else linear_cells)(old, n) for axis, (old, n) in enumerate(zip(shape, new, strict=True))]
    rule = partial(upsampling._winner, limit=None)
    device = upsampling._upsample_on_device(tensor, cells, rule, np.arange(3, dtype=np.uint8), ())
    np.testing.assert_array_equal(device.numpy(), whole)


def test_a_smooth_volume_over_many_slabs():
    rng = np.random.default_rng(0)
    logits = np.stack([ndimage.gaussian_filter(rng.normal(size=(30, 40, 36)), 4) for _ in range(6)]).astype(np.float32)
    new = (75, 130, 120)
    scores = dense(logits, new, None, 0)
    margin = np.diff(np.sort(scores, 0)[-2:], axis=0)[0]
    result = upsample_argmax(logits, new, threads=2)
    assert (result == scores.argmax(0))[margin > 1e-7].all()
    np.testing.assert_array_equal(result, upsample_argmax(logits, new, threads=1))


def test_many_classes_need_two_bytes():
    logits = np.zeros((300, 2, 2, 2), np.float32)
    logits[299], logits[7, 0] = 1, 2
    result = upsample_argmax(logits, (4, 2, 2))
    assert result.dtype == np.uint16
    assert sorted(np.unique(result)) == [7, 299]
    assert upsample_argmax(torch.from_numpy(logits), (4, 2, 2)).dtype == torch.uint16
    for classes in (254, 255, 256):
        assert upsample_argmax(np.eye(classes, dtype=np.float32)[:, -1].reshape(-1, 1, 1, 1), (2, 2, 2)).max() == classes - 1


def test_equal_classes_fall_to_the_first():
    assert not upsample_argmax(np.ones((4, 3, 3, 3), np.float32), (5, 7, 4)).any()


def test_all_classes_at_full_size_are_never_held():
    import tracemalloc

    rng = np.random.default_rng(0)
    logits = np.stack([ndimage.gaussian_filter(rng.normal(size=(20, 24, 24)), 4) for _ in range(20)]).astype(np.float32)
    shape = (160, 192, 192)
    upsample_argmax(logits, (8, 8, 8))
    tracemalloc.start()
    upsample_argmax(logits, shape, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.15 * len(logits) * np.prod(shape) * 4


def test_what_cannot_be_is_refused():
    logits = np.zeros((2, 3, 3, 3), np.float32)
    for arguments in (
        {"shape": (3, 3)},
        {"shape": (3, 3, 0)},
        {"shape": (3, 3, 3), "across": 4},
        {"shape": (3, 3, 3), "order_across": 3},
        {"shape": (3, 3, 3), "region_order": (1,)},
        {"shape": (3, 3, 3), "rows": (2, 2)},
        {"shape": (3, 3, 3), "rows": (0, 4)},
    ):
        with pytest.raises(ValueError, match=r"must be|needs?"):
            upsample_argmax(logits, **arguments)
