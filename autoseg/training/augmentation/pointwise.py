"""What happens to each voxel by itself, and the sums over all voxels that it depends on, compiled."""

from __future__ import annotations

import numpy as np

from autoseg.training.augmentation.compiling import compiled

_BLOCK = 4096  # voxels that a float32 partial sum runs over before it is added up in float64


@compiled
def moments(values):
    """Mean, population standard deviation, minimum and maximum of float32 values (N)."""
    low, high = values[0], values[0]
    for i in range(len(values)):
        low, high = min(low, values[i]), max(high, values[i])
    shift = np.float32(0.5) * (low + high)  # sums about a value in between lose less
    total, squares = 0.0, 0.0
    for start in range(0, len(values), _BLOCK):
        part, part_squares = np.float32(0), np.float32(0)
        for i in range(start, min(start + _BLOCK, len(values))):
            v = values[i] - shift
            part += v
            part_squares += v * v
        total += part
        squares += part_squares
    mean = total / len(values)
    return mean + shift, np.sqrt(max(squares / len(values) - mean * mean, 0.0)), low, high


@compiled
def stretch(values, factor, offset, low, high):
    """values * factor + offset, kept between low and high, in place."""
    for i in range(len(values)):
        values[i] = min(max(values[i] * factor + offset, low), high)


@compiled
def scale(values, factor, offset):
    """values * factor + offset, in place."""
    for i in range(len(values)):
        values[i] = values[i] * factor + offset


@compiled
def add(values, others, factor):
    """values + factor * others, in place."""
    for i in range(len(values)):
        values[i] += factor * others[i]


@compiled
def bend(values, low, span, exponent):
    """((values - low) / span) ** exponent * span, in place, for values from low to about low + span.

    A power of 2 to the exponent times the base-2 logarithm, both by short series (relative error below 2e-6), since a call of the
    library's power a voxel takes six times as long.
    """
    one, inverse = np.float32(1), np.float32(1) / span
    for i in range(len(values)):
        t = (values[i] - low) * inverse + np.float32(1e-37)  # above 0: its power is as good as 0
        shifted = np.int32(np.float32(t).view(np.int32) - np.int32(0x3F3504F3))  # the mantissa from sqrt(1/2) to sqrt(2)
        mantissa = np.int32((shifted & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3)).view(np.float32)
        s = (mantissa - one) / (mantissa + one)
        q = s * s
        series = np.float32(0.412198583) + q * np.float32(0.320598897)
        series = np.float32(2.88539008) + q * (np.float32(0.961796694) + q * (np.float32(0.577078016) + q * series))
        power = exponent * (np.float32(np.int32(shifted >> np.int32(23))) + s * series)
        power = max(power, np.float32(-126))
        whole = np.int32(power - np.float32(0.5)) if power < 0 else np.int32(power + np.float32(0.5))
        f = power - np.float32(whole)
        series = np.float32(0.00961812911) + f * (np.float32(0.00133335581) + f * np.float32(0.000154035304))
        series = one + f * (np.float32(0.693147181) + f * (np.float32(0.240226507) + f * (np.float32(0.0555041087) + f * series)))
        values[i] = series * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32) * span
