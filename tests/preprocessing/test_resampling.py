"""Resampling equals scipy and skimage, whatever the shape, the axis of thick slices and the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from autoseg.preprocessing import resample_image, resample_labels, resampling
from autoseg.preprocessing.axes import linear_cells, nearest_indices, resize_matrix
from autoseg.preprocessing.resampling import across_axis, new_shape, thick_axis
from autoseg.preprocessing.voting import weighed

LENGTH = st.integers(1, 14)
SHAPE = st.tuples(LENGTH, LENGTH, LENGTH)
NEW_SHAPE = st.tuples(*[st.integers(1, 23)] * 3)
ACROSS = st.sampled_from([None, 0, 1, 2])
SEED = st.integers(0, 2**16)
quick = settings(max_examples=40, deadline=None)


def skimage_resize(volume: np.ndarray, shape, order: int) -> np.ndarray:
    return resize(volume.astype(float), shape, order, mode="edge", anti_aliasing=False, clip=True, preserve_range=True)


def through_slices(stack: np.ndarray, length: int, order: int) -> np.ndarray:
    """The first axis as the peer does it (section 3.8)."""
    if len(stack) == length:
        return stack
    index = np.mgrid[tuple(slice(0, n) for n in (length, *stack.shape[1:]))].astype(float)
    index[0] = (index[0] + 0.5) * len(stack) / length - 0.5
    return ndimage.map_coordinates(stack, index, order=order, mode="nearest")


def expected_image(volume: np.ndarray, shape, order: int, across: int | None, order_across: int) -> np.ndarray:
    if across is None:
        return skimage_resize(volume, shape, order)
    within = [n for axis, n in enumerate(shape) if axis != across]
    stack = np.stack([skimage_resize(plane, within, order) for plane in np.moveaxis(volume, across, 0)])
    return np.moveaxis(through_slices(stack, shape[across], order_across), 0, across)


def decided(labels: np.ndarray, shape, rule: str) -> np.ndarray:
    """Every label's mask interpolated densely, then the rule; weights closer than 1e-9 are a tie."""
    values = np.unique(labels)
    masks = np.stack([skimage_resize(labels == value, shape, 1) for value in values])
    if rule == "half":
        result = np.zeros(shape, labels.dtype)
        for value, mask in zip(values, masks, strict=True):
            result[mask >= 0.5 - 1e-9] = value
        return result
    tied = masks >= masks.max(0) - 1e-9
    near = skimage_resize(labels, shape, 0).astype(labels.dtype)
    near_is_tied = ((values.reshape(-1, *[1] * len(shape)) == near) & tied).any(0)
    return np.where(near_is_tied, near, values[tied.argmax(0)])


def expected_labels(labels: np.ndarray, shape, rule: str, across: int | None) -> np.ndarray:
    if across is None:
        return decided(labels, shape, rule)
    within = [n for axis, n in enumerate(shape) if axis != across]
    stack = np.stack([decided(plane, within, rule) for plane in np.moveaxis(labels, across, 0)])
    return np.moveaxis(through_slices(stack, shape[across], 0), 0, across)


@quick
@given(SHAPE, NEW_SHAPE, st.sampled_from([0, 1, 3]), ACROSS, st.sampled_from([0, 1, 3]), SEED)
def test_an_image_equals_skimage(shape, new, order, across, order_across, seed):
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    result = resample_image(image, new, order=order, across=across, order_across=order_across)
    assert result.dtype == np.float32
    assert not np.shares_memory(result, image)
    for channel, got in zip(image, result, strict=True):
        np.testing.assert_allclose(got, expected_image(channel, new, order, across, order_across), atol=2e-5)


@quick
@given(SHAPE, NEW_SHAPE, st.sampled_from(["argmax", "half"]), ACROSS, SEED)
def test_labels_equal_every_mask_interpolated(shape, new, rule, across, seed):
    labels = np.random.default_rng(seed).choice([0, 2, 5, 255], size=shape).astype(np.uint8)
    result = resample_labels(labels, new, rule=rule, across=across)
    assert result.dtype == labels.dtype
    assert not np.shares_memory(result, labels)
    np.testing.assert_array_equal(result, expected_labels(labels, new, rule, across))


@quick
@given(SHAPE, NEW_SHAPE, st.sampled_from([0, 1, 3]), ACROSS, st.sampled_from([0, 1, 3]), SEED)
def test_tensors_equal_arrays(shape, new, order, across, order_across, seed):
    """Of both kinds of code: the one for CPU tensors, and the one for accelerators, which runs on the CPU as well."""
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    array = resample_image(image, new, order=order, across=across, order_across=order_across)
    tensor = resample_image(torch.from_numpy(image), new, order=order, across=across, order_across=order_across)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), array)
    device = resampling._resample_on_device(torch.from_numpy(image[0]), new, order, across, order_across)
    np.testing.assert_allclose(device.numpy(), array[0], atol=2e-5)


@quick
@given(SHAPE, NEW_SHAPE, st.sampled_from(["argmax", "half"]), st.sampled_from([0, 1]), ACROSS, st.sampled_from([0, 1]), SEED)
def test_label_tensors_equal_label_arrays(shape, new, rule, order, across, order_across, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    arguments = {"order": order, "rule": rule, "across": across, "order_across": order_across}
    array = resample_labels(labels, new, **arguments)
    np.testing.assert_array_equal(resample_labels(torch.from_numpy(labels), new, **arguments).numpy(), array)
    device = resampling._resample_labels(torch.from_numpy(labels), new, order, rule, across, order_across, None)
    assert device.dtype == torch.uint8
    np.testing.assert_array_equal(device.numpy(), array)


@quick
@given(st.tuples(LENGTH, LENGTH, LENGTH), st.integers(1, 23), SEED)
def test_linear_weights_across_slices_need_a_majority(shape, length, seed):
    """The peer writes a label where its rounded weight is 1, that is above one half; else 0 (section 3.8)."""
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.int16)
    wanted = np.zeros((length, *shape[1:]), np.int16)
    if length == shape[0]:
        wanted = labels
    for value in np.unique(labels) if length != shape[0] else ():
        weight = skimage_resize(labels == value, (length, *shape[1:]), 1)
        wanted[weight > 0.5 + 1e-9] = value
    np.testing.assert_array_equal(resample_labels(labels, (length, *shape[1:]), across=0, order_across=1), wanted)


def test_axes_round_as_scipy_rounds():
    for old in range(1, 60, 3):
        for new in range(1, 60, 2):
            index = np.arange(old, dtype=float)[:, None].repeat(2, 1)
            np.testing.assert_array_equal(nearest_indices(old, new), skimage_resize(index, (new, 2), 0)[:, 0])
            linear, cells = resize_matrix(old, new, 1), linear_cells(old, new)
            np.testing.assert_allclose(linear.sum(1), 1)
            np.testing.assert_allclose(linear @ np.arange(old), cells.low + cells.upper / cells.unit * (cells.high - cells.low), atol=1e-9)


def test_a_large_volume_in_all_orders_of_axes():
    """Slabs, blocks of rows and either order of the axes give the same: compared with scipy on larger, uneven volumes."""
    rng = np.random.default_rng(0)
    for old, new in (((70, 130, 90), (33, 61, 200)), ((300, 20, 30), (40, 50, 60)), ((20, 150, 140), (90, 60, 61))):
        volume = rng.normal(size=old).astype(np.float32)
        wanted = ndimage.zoom(volume.astype(float), np.divide(new, old), order=3, mode="nearest", grid_mode=True)
        wanted = np.clip(wanted, volume.min(), volume.max())
        np.testing.assert_allclose(resample_image(volume[None], new)[0], wanted, atol=2e-5)
        one = resample_image(volume[None], new, threads=1)
        turned = resample_image(volume[None].transpose(0, 3, 1, 2), (new[2], *new[:2]))
        np.testing.assert_allclose(turned, one.transpose(0, 3, 1, 2), atol=2e-5)


@quick
@given(SHAPE, st.sampled_from([0, 1, 3]), ACROSS, st.sampled_from([0, 1]), st.sampled_from(["argmax", "half"]), SEED)
def test_the_same_shape_is_the_same_volume(shape, order, across, order_across, rule, seed):
    """Identity, exactly, whatever else is asked for; and a new array."""
    rng = np.random.default_rng(seed)
    image, labels = rng.normal(size=(2, *shape)).astype(np.float32), rng.integers(0, 4, shape).astype(np.uint8)
    same = resample_image(image, shape, order=order, across=across, order_across=order_across)
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)
    same = resample_labels(labels, shape, order=min(order, 1), rule=rule, across=across, order_across=order_across)
    np.testing.assert_array_equal(same, labels)
    assert not np.shares_memory(same, labels)


@quick
@given(SHAPE, NEW_SHAPE, st.sampled_from([0, 1, 3]), ACROSS, SEED)
def test_inputs_may_be_read_only_and_lie_in_any_order(shape, new, order, across, seed):
    """Pure: a view that cannot be written gives what a contiguous copy gives, and stays as it is."""
    rng = np.random.default_rng(seed)
    image = np.flip(rng.normal(size=(1, *shape[::-1])).astype(np.float32).transpose(0, 3, 2, 1), 2)
    labels = np.flip(rng.integers(0, 4, shape[::-1]).astype(np.uint8).transpose(2, 1, 0), 1)
    copies = image.copy(), labels.copy()
    image.flags.writeable = labels.flags.writeable = False
    kept = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    resampled = resample_image(image, new, order=order, across=across)
    np.testing.assert_allclose(resampled, resample_image(kept[0], new, order=order, across=across), atol=1e-6)
    voted = resample_labels(labels, new, order=min(order, 1), across=across)
    np.testing.assert_array_equal(voted, resample_labels(kept[1], new, order=min(order, 1), across=across))
    assert resampled.flags.writeable and voted.flags.writeable
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(labels, copies[1])


@quick
@given(SHAPE, st.integers(1, 23), SEED)
def test_half_across_slices_takes_the_larger_label_with_half_the_weight(shape, length, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    wanted = labels if length == shape[0] else decided(labels, (length, *shape[1:]), "half")
    result = resample_labels(labels, (length, *shape[1:]), rule="half", across=0, order_across=1)
    np.testing.assert_array_equal(result, wanted)


@quick
@given(SHAPE, NEW_SHAPE, SEED)
def test_labels_of_order_0_are_the_nearest(shape, new, seed):
    labels = np.random.default_rng(seed).integers(0, 9, shape).astype(np.uint8)
    np.testing.assert_array_equal(resample_labels(labels, new, order=0), skimage_resize(labels, new, 0))


@pytest.mark.gpu
@pytest.mark.parametrize("across", [None, 0, 2])
def test_a_gpu_gives_what_the_cpu_gives(across):
    rng = np.random.default_rng(3)
    image = rng.normal(size=(2, 40, 60, 50)).astype(np.float32)
    labels = (ndimage.gaussian_filter(rng.normal(size=(40, 60, 50)), 2) * 20).clip(0, 4).astype(np.uint8)
    for new in ((25, 90, 31), (40, 60, 50), (61, 30, 77)):
        on_gpu = resample_image(torch.from_numpy(image).cuda(), new, across=across)
        assert on_gpu.device.type == "cuda"
        np.testing.assert_allclose(on_gpu.cpu().numpy(), resample_image(image, new, across=across), atol=1e-4)
        for rule in ("argmax", "half"):
            voted = resample_labels(torch.from_numpy(labels).cuda(), new, rule=rule, across=across)
            np.testing.assert_array_equal(voted.cpu().numpy(), resample_labels(labels, new, rule=rule, across=across))


def test_types_are_kept_and_inputs_stay():
    image = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4)
    assert resample_image(image, (3, 3, 3)).dtype == np.float32
    for dtype in (np.float16, np.float32, np.float64):
        given_image = image.astype(dtype)
        same = resample_image(given_image, (2, 3, 4))
        assert same.dtype == dtype
        assert not np.shares_memory(same, given_image)
        assert resample_image(given_image, (4, 3, 4)).dtype == dtype
    half = torch.from_numpy(image.astype(np.float32)).to(torch.bfloat16)
    assert resample_image(half, (4, 3, 4)).dtype == torch.bfloat16
    exact = resample_image(image.astype(np.float64), (5, 7, 3))[0]
    np.testing.assert_allclose(exact, skimage_resize(image[0], (5, 7, 3), 3), atol=1e-12)


def test_every_type_of_labels_has_room_for_the_mark_of_open_voxels():
    rng = np.random.default_rng(1)
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int64):
        labels = rng.choice([0, 1, np.iinfo(dtype).max], size=(4, 5, 6)).astype(dtype)
        if dtype == np.int64:
            labels = rng.choice([-1, 0, 7], size=(4, 5, 6)).astype(dtype)
        result = resample_labels(labels, (7, 4, 9))
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, decided(labels, (7, 4, 9), "argmax"))


def test_ties_go_to_the_nearest_label_then_to_the_smallest():
    halves = np.array([[[3, 1]]])  # the middle weighs both alike; the nearest is the upper one
    assert resample_labels(halves, (1, 1, 1)).item() == 1
    assert resample_labels(halves[..., ::-1], (1, 1, 1)).item() == 3
    assert resample_labels(halves, (1, 1, 1), rule="half").item() == 3
    quarters = np.array([[[4, 2], [2, 9]], [[4, 7], [7, 9]]])  # 2, 4, 7, 9 weigh a quarter each, the nearest is 9
    assert resample_labels(quarters, (1, 1, 1)).item() == 9
    assert resample_labels(quarters, (1, 1, 1), rule="half").item() == 0
    lone = np.array([[[4, 2], [2, 4]], [[4, 2], [2, 8]]])  # 2 has 4/8, 4 has 3/8: no tie, although 8 is nearest
    assert resample_labels(lone, (1, 1, 1)).item() == 2
    unclear = np.array([[[5, 2], [2, 5]], [[5, 2], [6, 7]]])  # 2 and 5 tie, the nearest (7) is not among them
    assert resample_labels(unclear, (1, 1, 1)).item() == 2


def test_what_cannot_be_is_refused():
    image, labels = np.zeros((1, 2, 3, 4), np.float32), np.zeros((2, 3, 4), np.uint8)
    for call in (
        lambda: resample_image(image[0], (2, 2, 2)),
        lambda: resample_image(image, (2, 0, 2)),
        lambda: resample_image(image, (2, 2, 2), order=2),
        lambda: resample_image(image, (2, 2, 2), across=3),
        lambda: resample_labels(labels, (2, 2)),
        lambda: resample_labels(labels, (2, 2, 2), rule="most"),
        lambda: resample_labels(labels, (2, 2, 2), order=3),
        lambda: resample_labels(labels.astype(float), (2, 2, 2)),
        lambda: resample_labels(labels.astype(bool), (2, 2, 2)),
        lambda: resample_labels(torch.zeros(2, 2, 2), (2, 2, 2)),
        lambda: resample_labels(torch.zeros(2, 2, 2, dtype=torch.bool), (2, 2, 2)),
        lambda: resample_labels(torch.zeros(2, 2, 2, dtype=torch.complex64), (2, 2, 2)),
    ):
        with pytest.raises(ValueError, match=r"must be|needs|cannot be"):
            call()


def test_new_sizes_round_or_floor():
    assert new_shape((512, 512, 301), (0.74, 0.74, 1.0), (1.58, 1.58, 2.7), "floor") == (239, 239, 111)
    assert new_shape((512, 512, 301), (0.74, 0.74, 1.0), (1.58, 1.58, 2.7), "round") == (240, 240, 111)
    assert new_shape((5, 1), (0.5, 1.0), (1.0, 9.0), "round") == (2, 1)  # 2.5 goes to the even number, nothing to 0
    spacing = float(np.float32(2.7))  # a header's float32 must not cost a voxel
    assert new_shape((100,), (spacing - 2e-7,), (2.7,), "floor") == (100,)
    with pytest.raises(ValueError, match="size_rule"):
        new_shape((1,), (1.0,), (1.0,), "ceil")


def test_thick_slices_are_more_than_three_times_as_thick():
    assert thick_axis((5, 1, 1), (1, 1, 1)) == 0
    assert thick_axis((3, 1, 1), (1, 1, 1)) is None
    assert thick_axis((1, 1, 1), (1, 1, 3.1)) == 2
    assert thick_axis((4, 4, 1), (9, 1, 1)) is None
    assert thick_axis((1, 6, 1), (9, 1, 1)) == 1
    assert across_axis("none", (5, 1, 1), (5, 1, 1), None) is None
    assert across_axis("thick", (5, 1, 1), (5, 1, 1), (2, 0, 1)) == 0
    assert across_axis(2, (5, 1, 1), (5, 1, 1), (2, 0, 1)) == 0


def test_one_pass_with_several_threads_gives_the_same_labels():
    rng = np.random.default_rng(2)
    labels = (ndimage.gaussian_filter(rng.normal(size=(60, 90, 80)), 3) * 40).clip(0, 4).astype(np.uint8)
    cells = [linear_cells(old, new) for old, new in zip(labels.shape, (140, 120, 95), strict=True)]
    np.testing.assert_array_equal(weighed(labels, cells, "argmax", threads=3), weighed(labels, cells, "argmax", threads=1))
    np.testing.assert_array_equal(weighed(labels, cells, "argmax", threads=2), decided(labels, (140, 120, 95), "argmax"))
