"""A patch's image made on the device that trains: the same steps with the same numbers as on the CPU, as torch operations.

Noise alone differs, since a device has its own generator. Labels are moved on the CPU (see `material.moved`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from autoseg.training.augmentation.boxes import within
from autoseg.training.augmentation.drawing import Change
from autoseg.training.augmentation.intensity import Statistics, blur_bands, low_resolution_bands
from autoseg.training.augmentation.lines import Band, spline_band
from autoseg.training.augmentation.material import Material
from autoseg.training.augmentation.splines import MARGIN, TAPS


@torch.no_grad()
def image_on(material: Material, device: str | torch.device) -> Tensor:
    """The patch's image, float32 (C, z, y, x) on the device."""
    image = torch.from_numpy(material.image).to(device)
    if material.whole:
        image = change_intensity(image, material.changes, material.conventions, material.known)
    image = image[(slice(None), *within(material.needed, material.region))]
    image = _cut_out(material, image) if material.warp is None else _resampled(material, image)
    image = image.flip([axis + 1 for axis in material.mirrored])
    return image if material.whole else change_intensity(image, material.changes, material.conventions)


def change_intensity(image: Tensor, changes: Sequence[Change], conventions: str, known: Sequence[Statistics] | None = None) -> Tensor:
    """The image (C, z, y, x) after these changes, in this order (see `intensity.change_intensity`)."""
    channels = list(image)
    for number, change in enumerate(changes):
        generator = torch.Generator(image.device).manual_seed(change.seed)
        for c, value in enumerate(change.values):
            if value is None:
                continue
            if change.do == "contrast":
                channels[c] = _contrast(channels[c], value, known[c] if known is not None and number == 0 else None)
            elif change.do == "gamma":
                channels[c] = _gamma(channels[c], value, change.invert)
            elif change.do == "brightness":
                channels[c] = channels[c] * value
            elif change.do == "noise":
                channels[c] = channels[c] + value * torch.randn(image.shape[1:], generator=generator, device=image.device)
            else:
                bands = (
                    blur_bands(image.shape[1:], value, conventions) if change.do == "blur" else low_resolution_bands(image.shape[1:], value)
                )
                channels[c] = _along_axes(channels[c][None], bands)[0]
    return torch.stack(channels)


def _contrast(values: Tensor, factor: float, known: Statistics | None) -> Tensor:
    if known is None:
        return torch.lerp(values.mean(), values, factor).clamp(values.amin(), values.amax())
    return ((values - known.mean) * factor + known.mean).clamp(known.minimum, known.maximum)


def _gamma(values: Tensor, exponent: float, invert: bool) -> Tensor:
    values = -values if invert else values
    low, mean, deviation = values.amin(), values.mean(), values.std(correction=0)
    span = (values.amax() - low).clamp(min=1e-20)
    bent = ((values - low) / span) ** exponent * span
    bent = (bent - bent.mean()) * (deviation / (bent.std(correction=0) + 1e-8)) + mean
    return -bent if invert else bent


def _along_axes(image: Tensor, bands: Sequence[Band | None]) -> Tensor:
    """The image (C, z, y, x) after the bands of its axes, each as one matrix product (see `lines.along_axes`)."""
    for axis, band in enumerate(bands, start=1):
        if band is not None:
            matrix = torch.from_numpy(_dense(band, image.shape[axis])).to(image)
            image = torch.tensordot(image, matrix, ([axis], [1])).movedim(-1, axis)
    return image


def _dense(band: Band, length: int) -> np.ndarray:
    matrix = np.zeros((len(band.lines), length), np.float32)
    rows = np.broadcast_to(np.arange(len(band.lines))[:, None], band.lines.shape)
    counts = band.lines >= 0
    np.add.at(matrix, (rows[counts], band.lines[counts]), band.weights[counts])
    return matrix


def _cut_out(material: Material, image: Tensor) -> Tensor:
    inner = within(material.needed, material.wanted)
    widths = [(part.start, size - part.stop) for part, size in zip(inner, material.size, strict=True)]
    if material.padding == "minimum" and any(map(any, widths)):
        for axis, (before, after) in enumerate(widths, start=1):
            lowest = image.amin(axis, keepdim=True)
            image = torch.cat([lowest.repeat_interleave(before, axis), image, lowest.repeat_interleave(after, axis)], axis)
        return image
    return functional.pad(image, [width for pair in reversed(widths) for width in pair])


def _resampled(material: Material, image: Tensor) -> Tensor:
    """See `spatial.resample`: the same margins, the same weights; a sum over the taps of each axis."""
    order, shape = material.orders[0], image.shape[1:]
    if order == 3:
        image = _along_axes(image, [spline_band(length, MARGIN) for length in shape])
    else:
        image = functional.pad(image, MARGIN * 3)
    whole, part = _places(material, image.device)
    edge = 1 if material.fades and order < 3 else 0
    ends = torch.tensor(shape, device=image.device).reshape(3, 1, 1, 1) - 1 + edge
    inside = ((whole + part >= -edge) & (whole + part <= ends)).all(0)
    if order == 0:
        part = (part >= 0.5).to(part)
    weights = [_weights(part[axis], order) for axis in range(3)]
    steps = (image.shape[2] * image.shape[3], image.shape[3], 1)
    first = sum((whole[axis].clamp(-1, shape[axis]) + (MARGIN[0] if order < 3 else 0)) * step for axis, step in enumerate(steps))
    flat, total = image.reshape(len(image), -1), 0
    for a, wz in enumerate(weights[0]):
        for b, wy in enumerate(weights[1]):
            for c, wx in enumerate(weights[2]):
                taken = (first + (a * steps[0] + b * steps[1] + c * steps[2])).clamp(0, flat.shape[1] - 1)
                total = total + wz * wy * wx * flat[:, taken]
    return total * inside


def _places(material: Material, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each voxel of the patch: the voxel at or before its point, int64, and how far beyond that, float32; (3, *size) each."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in material.size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if len(material.field):
        points = points + torch.from_numpy(material.field).to(device)
    matrix = torch.from_numpy(material.warp.matrix).to(device, torch.float32)
    middle = np.array(material.middle)
    whole = np.floor(middle)  # apart, since float32 has few digits left beside a large one
    points = torch.tensordot(matrix, points, 1) + torch.tensor(middle - whole, device=device, dtype=torch.float32).reshape(3, 1, 1, 1)
    before = points.floor()
    return before.long() + torch.tensor(whole, device=device).long().reshape(3, 1, 1, 1), points - before


def _weights(part: Tensor, order: int) -> list[Tensor]:
    """Of the taps along an axis: two for orders 0 and 1, four for order 3."""
    if order < 3:
        return [1 - part, part]
    rows = torch.tensor(TAPS, device=part.device).reshape(4, 4, *[1] * part.ndim)
    return list(((rows[0] * part + rows[1]) * part + rows[2]) * part + rows[3])
