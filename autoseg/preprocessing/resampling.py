"""Images and label maps brought to another size, and the rules that say which size and along which axes.

Resizing is linear and separable: one banded matrix an axis (see `axes` for the grid convention). Labels are weighed only where
the corners of a cell disagree.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from autoseg.preprocessing.axes import band, linear_cells, nearest_cells, resize_matrix
from autoseg.preprocessing.cells import take
from autoseg.preprocessing.products import resize_first_axis, resize_planes, resize_volume
from autoseg.preprocessing.voting import nearest, weighed

if TYPE_CHECKING:
    import torch

    Array = TypeVar("Array", np.ndarray, torch.Tensor)
else:
    Array = TypeVar("Array")

_NEARLY_WHOLE = 1e-4  # of a voxel; spacings that went through float32 miss whole sizes by this much
_THICK = 3.0  # ratio of spacings above which slices are resampled apart


def new_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float], size_rule: Literal["round", "floor"]
) -> tuple[int, ...]:
    """Voxels an axis at the `target` spacing, at least 1.

    Args:
        shape: voxels now.
        spacing, target: mm now and then, in the same order.
        size_rule: `round`, as the peer computes it (section 2.4, halves to even); `floor`, as the paper does (item 6), except
            that a size less than 1e-4 voxels below a whole number is that number.
    """
    if size_rule == "round":
        sizes = [round(old / new * n) for n, old, new in zip(shape, spacing, target, strict=True)]
    elif size_rule == "floor":
        sizes = [math.floor(n * old / new + _NEARLY_WHOLE) for n, old, new in zip(shape, spacing, target, strict=True)]
    else:
        message = f"size_rule is {size_rule!r}; it must be 'round' or 'floor'"
        raise ValueError(message)
    return tuple(max(1, size) for size in sizes)


def thick_axis(spacing: Sequence[float], new_spacing: Sequence[float]) -> int | None:
    """The axis of thick slices, which are resampled apart, or None (peer section 3.8).

    The coarsest axis of the present spacing if that is more than 3 times the finest; else the same of the new spacing. None
    where two axes are equally coarse.
    """
    for each in (spacing, new_spacing):
        if max(each) / min(each) > _THICK:
            coarsest = [axis for axis, value in enumerate(each) if value == max(each)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def across_axis(
    across: Literal["none", "thick"] | int, spacing: Sequence[float], new_spacing: Sequence[float], transpose: Sequence[int] | None
) -> int | None:
    """The axis, inside, that a plan's `across` means for one case.

    Args:
        across: as the plan has it; a number is an axis of the volume as read.
        spacing, new_spacing: mm, in the order inside (`transpose` applied).
        transpose: axis order inside; None: as read.
    """
    if across == "none":
        return None
    if across == "thick":
        return thick_axis(spacing, new_spacing)
    return int(across) if transpose is None else list(transpose).index(across)


def resample_image(
    image: Array, shape: Sequence[int], *, order: int = 3, across: int | None = None, order_across: int = 0, threads: int | None = None
) -> Array:
    """An image on a grid of another size over the same extent.

    Equals `skimage.transform.resize(channel, shape, order, mode="edge", anti_aliasing=False, clip=True)` of each channel, or, with
    `across`, of each slice, followed by `scipy.ndimage.map_coordinates(order=order_across, mode="nearest")` through the slices
    (peer section 3.8).

    Args:
        image: (C, z, y, x), numpy or torch, on any device. Floating types keep their type; integers come back as float32.
        shape: voxels wanted, (z, y, x).
        order: 0 nearest, 1 linear, 3 cubic B-spline; the result is clipped to the range of its channel.
        across: axis of thick slices (0, 1, 2), clipped each to its own range and joined with `order_across`; None: all axes alike.
        order_across: 0, 1 or 3; not clipped.
        threads: for numpy and CPU tensors; None takes one a core.

    Raises:
        ValueError: an order, axis or shape that there is not.
    """
    shape = _checked(image, 4, shape, (order, order_across), (0, 1, 3), across)
    if not isinstance(image, np.ndarray):
        return _resample_tensor(image, shape, order, across, order_across, threads)
    kept = image.dtype if np.issubdtype(image.dtype, np.floating) else np.dtype(np.float32)
    if image.shape[1:] == shape:
        return image.astype(kept)
    dtype = np.dtype(np.float64) if kept == np.float64 else np.dtype(np.float32)
    if len(image) == 1:
        return _resample_channel(image[0], shape, order, across, order_across, dtype, threads).astype(kept, copy=False)[None]
    result = np.empty((len(image), *shape), kept)
    for channel, target in zip(image, result, strict=True):
        target[...] = _resample_channel(channel, shape, order, across, order_across, dtype, threads)
    return result


def _resample_channel(
    channel: np.ndarray, shape: tuple[int, ...], order: int, across: int | None, order_across: int, dtype: np.dtype, threads: int | None
) -> np.ndarray:
    if across is not None:
        return np.ascontiguousarray(_resample_slices(channel, shape, order, across, order_across, dtype, threads))
    if order == 0:
        return nearest(channel, shape)
    bands = [band(old, new, order, dtype) for old, new in zip(channel.shape, shape, strict=True)]
    return resize_volume(channel, bands, dtype, threads=threads)


def _resample_slices(
    channel: np.ndarray, shape: tuple[int, ...], order: int, across: int, order_across: int, dtype: np.dtype, threads: int | None
) -> np.ndarray:
    """One channel with the slices along `across` resized apart and then joined."""
    slices = np.moveaxis(channel, across, 0)
    wanted = np.moveaxis(np.empty(shape, bool), across, 0).shape
    index = nearest_cells(len(slices), wanted[0]).low if order_across == 0 else np.arange(len(slices))
    used, place = np.unique(index, return_inverse=True)
    slices = take(slices, used, 0)
    if order == 0:
        slices = nearest(slices, (len(slices), *wanted[1:]))
    else:
        bands = [band(old, new, order, dtype) for old, new in zip(slices.shape[1:], wanted[1:], strict=True)]
        slices, low, high = resize_planes(slices, bands, dtype, threads=threads)
        np.clip(slices, low[:, None, None], high[:, None, None], out=slices)
    slices = take(slices, place, 0)
    along = band(len(slices), wanted[0], order_across, dtype) if order_across else None
    if along is not None:
        slices = resize_first_axis(np.ascontiguousarray(slices, dtype=dtype), along, threads=threads)
    return np.moveaxis(slices, 0, across)


def _resample_tensor(
    image: torch.Tensor, shape: tuple[int, ...], order: int, across: int | None, order_across: int, threads: int | None
) -> torch.Tensor:
    import torch

    kept = image.dtype if image.is_floating_point() else torch.float32
    dtype = torch.float64 if kept == torch.float64 else torch.float32
    image = image.detach()
    if image.device.type == "cpu":
        array = image.to(dtype).numpy()
        result = resample_image(array, shape, order=order, across=across, order_across=order_across, threads=threads)
        return torch.from_numpy(result).to(kept)
    if tuple(image.shape[1:]) == shape:
        return image.to(kept, copy=True)
    with _full_precision():
        return torch.stack([_resample_on_device(channel.to(dtype), shape, order, across, order_across) for channel in image]).to(kept)


def _resample_on_device(channel: torch.Tensor, shape: tuple[int, ...], order: int, across: int | None, order_across: int) -> torch.Tensor:
    """One channel by dense products, which an accelerator does faster than many narrow ones."""
    within = [axis for axis in range(3) if axis != across]
    low, high = channel.amin(within, keepdim=True), channel.amax(within, keepdim=True)
    for axis in sorted(within, key=lambda a: shape[a] / channel.shape[a]):
        channel = _along(channel, axis, shape[axis], order)
    channel = channel.clamp(low, high)
    return channel if across is None else _along(channel, across, shape[across], order_across)


def _along(channel: torch.Tensor, axis: int, new: int, order: int) -> torch.Tensor:
    import torch

    old = channel.shape[axis]
    if old == new:
        return channel
    if order == 0:
        return take(channel, nearest_cells(old, new).low, axis)
    matrix = torch.from_numpy(resize_matrix(old, new, order)).to(channel)
    return torch.tensordot(matrix, channel, dims=([1], [axis])).movedim(0, axis)


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Products in float32 proper: training may have allowed TF32, which keeps three digits."""
    import torch

    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def resample_labels(
    labels: Array,
    shape: Sequence[int],
    *,
    order: int = 1,
    rule: Literal["argmax", "half"] = "argmax",
    across: int | None = None,
    order_across: int = 0,
    threads: int | None = None,
) -> Array:
    """A label map on a grid of another size over the same extent, as if each label's mask were interpolated linearly.

    Args:
        labels: (z, y, x) integers, numpy or torch, on any device; the type is kept.
        shape: voxels wanted, (z, y, x).
        order: 0 takes the nearest voxel's label; 1 weighs the corners of the cell.
        rule: `argmax` (peer section 3.8): the label of the largest weight; a tie goes to the nearest voxel's label if it is among the
            tied, else to the smallest. `half` (paper.md items 6 and 17): a label with at least half of the weight, the larger one of
            two, else 0. Weights are exact, so that a tie never depends on rounding.
        across: axis of thick slices, which are weighed apart; None: all axes alike.
        order_across: through the slices, 0: the nearest slice's label; 1: the label with more than half of the weight (`argmax`) or
            as `half` has it, else 0.
        threads: for numpy and CPU tensors; None takes one a core.

    Raises:
        ValueError: an order, rule, axis or shape that there is not, or labels that are not integers.
    """
    shape = _checked(labels, 3, shape, (order, order_across), (0, 1), across)
    if rule not in ("argmax", "half"):
        message = f"rule is {rule!r}; it must be 'argmax' or 'half'"
        raise ValueError(message)
    if not isinstance(labels, np.ndarray) and labels.device.type == "cpu":
        import torch

        array = labels.numpy()
        return torch.from_numpy(
            resample_labels(array, shape, order=order, rule=rule, across=across, order_across=order_across, threads=threads)
        )
    if tuple(labels.shape) == shape:
        return labels.copy() if isinstance(labels, np.ndarray) else labels.clone()
    return _resample_labels(labels, shape, order, rule, across, order_across, threads)


def _resample_labels(
    labels: Array, shape: tuple[int, ...], order: int, rule: str, across: int | None, order_across: int, threads: int | None
) -> Array:
    """For arrays of either library, on any device."""
    last = None
    if across is not None and order_across == 1 and labels.shape[across] != shape[across]:
        alone = [nearest_cells(n, n) for n in shape]
        last = [linear_cells(labels.shape[across], shape[across]) if axis == across else each for axis, each in enumerate(alone)]
        shape = tuple(labels.shape[across] if axis == across else n for axis, n in enumerate(shape))
    kinds = [nearest_cells if order == 0 or axis == across else linear_cells for axis in range(3)]
    cells = [make(old, new) for make, old, new in zip(kinds, labels.shape, shape, strict=True)]
    labels = weighed(labels, cells, rule, threads=threads)
    return labels if last is None else weighed(labels, last, "majority" if rule == "argmax" else "half", threads=threads)


def _checked(
    array: Array, dimensions: int, shape: Sequence[int], orders: Sequence[int], known: Sequence[int], across: int | None
) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    if array.ndim != dimensions or len(shape) != 3 or min(*shape, *array.shape) < 1:
        have = f"an array of shape {tuple(array.shape)}"
        message = f"{have} cannot be resampled to {shape}; it needs {dimensions} axes and sizes of at least 1"
        raise ValueError(message)
    if any(order not in known for order in orders):
        message = f"order and order_across are {tuple(orders)}; each must be one of {tuple(known)}"
        raise ValueError(message)
    if across not in (None, 0, 1, 2):
        message = f"across is {across!r}; it must be None, 0, 1 or 2"
        raise ValueError(message)
    whole = array.dtype.kind in "iu" if isinstance(array, np.ndarray) else _whole_numbers(array)
    if dimensions == 3 and not whole:
        message = f"labels are {array.dtype}; they must be integers"
        raise ValueError(message)
    return shape


def _whole_numbers(tensor: torch.Tensor) -> bool:
    import torch

    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
