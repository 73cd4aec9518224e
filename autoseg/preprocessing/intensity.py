"""What is done to the values of one channel, step by step as the plan says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.planning.schema import Clip, IntensityStep, Nothing, Rescale, ZScore

_SMALLEST_STD = 1e-8  # peer section 3.4: what a deviation is divided by at least


def apply_steps(steps: Sequence[IntensityStep], channel_voxels: np.ndarray, *, mask: np.ndarray | None) -> np.ndarray:
    """One channel after the steps of an `IntensityPlan`, float32; the given array stays as it is.

    Args:
        steps: `before_resampling` or `after_resampling`.
        channel_voxels: (z, y, x).
        mask: boolean (z, y, x), the voxels inside; z-scores with `mask="nonzero"` take their statistics from these and change these only
            (peer section 3.4). None: all are inside.

    A volume without spread becomes 0 where a step divides by its own range or deviation.
    """
    values = np.array(channel_voxels, dtype=np.float32)
    apply_steps_in_place(steps, values, mask=mask)
    return values


def apply_steps_in_place(steps: Sequence[IntensityStep], values: np.ndarray, *, mask: np.ndarray | None) -> None:
    """As `apply_steps`, on the float32 array itself."""
    for step in steps:
        match step:
            case Clip():
                np.clip(values, step.low, step.high, out=values)
            case Rescale():
                _rescale(values, step)
            case ZScore():
                _zscore(values, step, mask if step.mask == "nonzero" else None)
            case Nothing():
                pass


def _rescale(values: np.ndarray, step: Rescale) -> None:
    """Straight line from (low, high) to `to`, values outside continued."""
    low = float(values.min()) if step.low is None else step.low
    high = float(values.max()) if step.high is None else step.high
    if high <= low:
        values[...] = 0
        return
    _subtract(values, low)
    values *= np.float32((step.to[1] - step.to[0]) / (high - low))
    values += np.float32(step.to[0])
    if step.round:
        np.rint(values, out=values)


def _zscore(values: np.ndarray, step: ZScore, mask: np.ndarray | None) -> None:
    inside = values if mask is None else values[mask]
    if inside.size == 0:
        return
    mean, std = mean_and_std(inside) if step.mean is None or step.std is None else (0.0, 0.0)
    own_spread = step.std is not None or float(inside.min()) < float(inside.max())
    mean = mean if step.mean is None else step.mean
    std = max(std if step.std is None else step.std, _SMALLEST_STD)
    if mask is None:
        _subtract(values, mean)
        values *= np.float32(1 / std if own_spread else 0)
    else:
        _subtract(inside, mean)
        values[mask] = inside * np.float32(1 / std if own_spread else 0)


def _subtract(values: np.ndarray, number: float) -> None:
    """In place, by way of float64: a mean that is large beside the deviation would lose digits in float32."""
    np.subtract(values, number, out=values, dtype=np.float64, casting="same_kind")


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and population deviation, summed in float64 part by part, so that no copy of the whole in float64 is made."""
    flat = values.reshape(-1) if values.flags.c_contiguous else values.ravel()
    parts = [flat[start : start + (1 << 18)] for start in range(0, flat.size, 1 << 18)]
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / flat.size
    squares = sum(float(np.square(np.subtract(part, mean, dtype=np.float64)).sum()) for part in parts)
    return mean, float(np.sqrt(squares / flat.size))
