"""Splines on a volume, compiled: coefficients of order 3, and values at drawn points, with labels at the same points.

Volumes that are interpolated carry a margin, MARGIN voxels before and after on every axis, so that no point near an edge needs
special care: mirrored coefficients for order 3, zeros otherwise. Conventions are scipy's: voxel n stands at index n; a spline of
order 3 mirrors the volume at its outermost voxels.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from autoseg.training.augmentation.compiling import compiled

MARGIN = (1, 2)
_POLE = np.float32(math.sqrt(3) - 2)
_HORIZON = 16  # voxels; the pole's power is then 7e-10
_GAIN = np.float32(6)
_ROWS = 32
_OUTSIDE = -(2**30)
TAPS = [[-1 / 6, 1 / 2, -1 / 2, 1 / 6], [1 / 2, -1, 1 / 2, 0], [-1 / 2, 0, 1 / 2, 0], [1 / 6, 2 / 3, 1 / 6, 0]]
"""The four weights of a cubic B-spline at t beyond a voxel: t ** 3 times the first row + t ** 2 times the second + ..."""


@compiled
def _filter(flat, start, step, length, width):
    """Values to coefficients, in place: `length` lines of `width` voxels, `step` apart, mirrored at the ends; once forward, once back."""
    first = flat[start : start + width]
    power, mirrored = _POLE, 2 * length - 2
    if length <= _HORIZON:  # the mirrored signal repeats, and its geometric series is summed whole: over both ways, counted twice
        ends = np.float32(1)
        for _ in range(mirrored):
            ends *= _POLE
        far = ends / _POLE  # of the voxel that comes last on the way back
        for k in range(1, length):
            line = flat[start + k * step : start + k * step + width]
            weight = power + far if k < length - 1 else power
            for b in range(width):
                first[b] += weight * line[b]
            power, far = power * _POLE, far / _POLE
        for b in range(width):
            first[b] /= np.float32(1) - ends
    else:
        for k in range(1, _HORIZON):
            line = flat[start + k * step : start + k * step + width]
            for b in range(width):
                first[b] += power * line[b]
            power *= _POLE
    before = first
    for k in range(1, length):
        line = flat[start + k * step : start + k * step + width]
        for b in range(width):
            line[b] += _POLE * before[b]
        before = line
    last, pole = before, _POLE / (_POLE * _POLE - np.float32(1))
    before = flat[start + (length - 2) * step : start + (length - 2) * step + width]
    for b in range(width):
        last[b] = pole * (last[b] + _POLE * before[b])
    for k in range(length - 2, -1, -1):
        line = flat[start + k * step : start + k * step + width]
        for b in range(width):
            line[b] = _POLE * (last[b] - line[b])
        last = line


@compiled
def _filter_rows(flat, start, step, length, rows, turned, gain):
    """The same along `rows` rows of `length` voxels, `step` apart: they are turned into lines and back, and multiplied by `gain`."""
    for low in range(0, rows, _ROWS):
        here = min(_ROWS, rows - low)
        for r in range(here):
            row = flat[start + (low + r) * step : start + (low + r) * step + length]
            for n in range(length):
                turned[n * _ROWS + r] = row[n]
        if length > 1:
            _filter(turned, low - low, _ROWS + low - low, length, _ROWS + low - low)  # numbers, not constants: compiled once
        for r in range(here):
            row = flat[start + (low + r) * step : start + (low + r) * step + length]
            for n in range(length):
                row[n] = turned[n * _ROWS + r] * gain


@compiled
def filter_inside(volume):
    """Turn what lies inside of the margins of a contiguous float32 volume (z, y, x) into coefficients of order 3, in place."""
    flat, step, plane = volume.reshape(-1), volume.shape[2], volume.shape[1] * volume.shape[2]
    margins = MARGIN[0] + MARGIN[1]
    z, y, x = volume.shape[0] - margins, volume.shape[1] - margins, volume.shape[2] - margins
    gain, first = np.float32(1), MARGIN[0] * (plane + step + 1)
    for length in (z, y, x):
        if length > 1:
            gain *= _GAIN
    if z > 1:
        for j in range(y):
            _filter(flat, first + j * step, plane, z, x)
    turned = np.zeros(x * _ROWS, np.float32)
    for i in range(z):
        if y > 1:
            _filter(flat, first + i * plane, step, y, x)
        _filter_rows(flat, first + i * plane, step, x, y, turned, gain)


def to_coefficients(volume: np.ndarray) -> None:
    """Turn the values of a float32 volume (z, y, x) with margins into coefficients of order 3, in place; the margins are mirrored."""
    filter_inside(volume)
    for axis in range(3):
        lines = np.moveaxis(volume, axis, 0)
        length = len(lines) - sum(MARGIN)
        period = max(2 * length - 2, 1)
        for place in (0, length + 1, length + 2):
            inside = abs(place - MARGIN[0]) % period
            lines[place] = lines[MARGIN[0] + (inside if inside < length else period - inside)]


@intrinsic
def _cubic(_typing, volume, start, row, plane, tz, ty, tx):
    """The weighted sum of the 4 x 4 x 4 voxels from index `start` of a flat volume, tz, ty, tx beyond the second.

    Four voxels of a row are one vector. numba leaves this to LLVM's loop vectoriser, which does not see it; written out it takes a
    third of the time.
    """
    four, i32, relaxed = ir.VectorType(ir.FloatType(), 4), ir.IntType(32), ("contract",)

    def code(context, builder, signature, arguments):
        flat, start, row, plane, *parts = arguments

        def lane(vector, k):
            chosen = ir.Constant(ir.VectorType(i32, 4), [k] * 4)
            return builder.shuffle_vector(vector, ir.Constant(four, ir.Undefined), chosen)

        def added(total, a, b):
            product = builder.fmul(a, b, flags=relaxed)
            return product if total is None else builder.fadd(product, total, flags=relaxed)

        def weights(part):
            t = lane(builder.insert_element(ir.Constant(four, ir.Undefined), part, i32(0)), 0)
            total = ir.Constant(four, TAPS[0])
            for coefficients in TAPS[1:]:
                total = added(ir.Constant(four, coefficients), total, t)
            return total

        wz, wy, wx = (weights(part) for part in parts)
        at = builder.gep(context.make_array(signature.args[0])(context, builder, flat).data, [start])
        total = None
        for a in range(4):
            lines, pointer = None, at
            for b in range(4):
                values = builder.load(builder.bitcast(pointer, four.as_pointer()))
                values.align = 4
                lines = added(lines, values, lane(wy, b))
                pointer = builder.gep(pointer, [row])
            total = added(total, lines, lane(wz, a))
            at = builder.gep(at, [plane])
        total = builder.fmul(total, wx, flags=relaxed)
        ends = [builder.extract_element(total, i32(k)) for k in range(4)]
        return builder.fadd(builder.fadd(ends[0], ends[1]), builder.fadd(ends[2], ends[3]))

    return types.float32(volume, start, row, plane, tz, ty, tx), code


@compiled
def _linear(flat, start, row, plane, tz, ty, tx):
    """The weighted sum of the 2 x 2 x 2 voxels from index `start` of a flat volume."""
    # unsigned: numba would look at each index whether it counts from the end
    k = np.uint64(start)
    y, z, one = np.uint64(row), np.uint64(plane), np.uint64(1)
    a = flat[k] + tx * (flat[k + one] - flat[k])
    b = flat[k + y] + tx * (flat[k + y + one] - flat[k + y])
    c = flat[k + z] + tx * (flat[k + z + one] - flat[k + z])
    d = flat[k + z + y] + tx * (flat[k + z + y + one] - flat[k + z + y])
    near, far = a + ty * (b - a), c + ty * (d - c)
    return near + tz * (far - near)


@compiled
def _locate(size, z, y, matrix, centre, field, shape, edge, whole, part):
    """For a row of the patch: the voxel at or before each point, and how far beyond it, (3, x) each; _OUTSIDE where nothing is."""
    qz, qy, half = z - (size[0] - 1) / 2, y - (size[1] - 1) / 2, (size[2] - 1) / 2
    # read once: the compiler cannot know that writing `whole` leaves them as they are
    a, b, c, at_z = matrix[0, 0], matrix[0, 1], matrix[0, 2], centre[0]
    d, e, f, at_y = matrix[1, 0], matrix[1, 1], matrix[1, 2], centre[1]
    g, h, i, at_x = matrix[2, 0], matrix[2, 1], matrix[2, 2], centre[2]
    end_z, end_y, end_x = shape[0] - 1 + edge, shape[1] - 1 + edge, shape[2] - 1 + edge
    bent = field.shape[0] > 0
    for x in range(size[2]):
        bz, by, bx = qz, qy, x - half
        if bent:
            bz, by, bx = bz + field[0, z, y, x], by + field[1, z, y, x], bx + field[2, z, y, x]
        pz = a * bz + b * by + c * bx + at_z
        py = d * bz + e * by + f * bx + at_y
        px = g * bz + h * by + i * bx + at_x
        fz, fy, fx = np.floor(pz), np.floor(py), np.floor(px)
        inside = (pz >= -edge) & (pz <= end_z) & (py >= -edge) & (py <= end_y) & (px >= -edge) & (px <= end_x)
        whole[0, x] = np.int32(fz) if inside else np.int32(_OUTSIDE)
        whole[1, x] = np.int32(fy)
        whole[2, x] = np.int32(fx)
        part[0, x] = pz - fz
        part[1, x] = py - fy
        part[2, x] = px - fx


@compiled
def _image_row(volume, whole, part, order, row):
    """Values of a volume with margins at the points of a row."""
    flat = volume.reshape(-1)
    step, plane = volume.shape[2], volume.shape[1] * volume.shape[2]
    before = MARGIN[0] if order < 3 else 0  # a cubic begins one voxel earlier
    for x in range(len(row)):
        if whole[0, x] == _OUTSIDE:
            row[x] = np.float32(0)
            continue
        start = (np.int64(whole[0, x]) + before) * plane + (whole[1, x] + before) * step + whole[2, x] + before
        tz, ty, tx = part[0, x], part[1, x], part[2, x]
        if order == 3:
            row[x] = _cubic(flat, start, step, plane, tz, ty, tx)
        elif order == 1:
            row[x] = _linear(flat, start, step, plane, tz, ty, tx)
        else:
            half = np.float32(0.5)
            row[x] = flat[start + (plane if tz >= half else 0) + (step if ty >= half else 0) + (1 if tx >= half else 0)]


@compiled
def _vote(labels, z, y, x, tz, ty, tx, values, shares):
    """The label with the largest linear weight among the eight voxels around a point; of equal ones the nearest voxel's, else the least.

    What lies outside of the volume counts as one label more, below all others, which is background in the end.
    """
    found, nearest = 0, -1
    for corner in range(8):
        dz, dy, dx = corner // 4, corner // 2 % 2, corner % 2
        share = (tz if dz else 1 - tz) * (ty if dy else 1 - ty) * (tx if dx else 1 - tx)
        inside = 0 <= z + dz < labels.shape[0] and 0 <= y + dy < labels.shape[1] and 0 <= x + dx < labels.shape[2]
        value = np.int64(labels[z + dz, y + dy, x + dx]) if inside else np.int64(-1)
        if (tz >= 0.5) == (dz == 1) and (ty >= 0.5) == (dy == 1) and (tx >= 0.5) == (dx == 1):
            nearest = value
        place = 0
        while place < found and values[place] != value:
            place += 1
        if place == found:
            values[place], shares[place] = value, np.float32(0)
            found += 1
        shares[place] += share
    most = np.float32(0)
    for place in range(found):
        most = max(most, shares[place])
    most -= np.float32(1e-6)
    winner = np.int64(2**62)
    for place in range(found):
        if shares[place] >= most:
            if values[place] == nearest:
                winner = nearest
                break
            winner = min(winner, values[place])
    return max(winner, 0)


@compiled
def _label_row(labels, whole, part, order, values, shares, row):
    """Labels at the points of a row: the nearest voxel's (order 0), or by `_vote` where the eight around a point differ (order 1)."""
    flat, last_z, last_y, last_x = labels.reshape(-1), labels.shape[0] - 1, labels.shape[1] - 1, labels.shape[2] - 1
    step, plane, one = np.uint64(labels.shape[2]), np.uint64(labels.shape[1] * labels.shape[2]), np.uint64(1)
    half = np.float32(0.5)
    for i in range(len(row)):
        z, y, x = np.int64(whole[0, i]), np.int64(whole[1, i]), np.int64(whole[2, i])
        if z == _OUTSIDE:
            row[i] = 0
            continue
        tz, ty, tx = part[0, i], part[1, i], part[2, i]
        if order == 0:
            z, y, x = z + (tz >= half), y + (ty >= half), x + (tx >= half)
            inside = (z >= 0) & (z <= last_z) & (y >= 0) & (y <= last_y) & (x >= 0) & (x <= last_x)
            row[i] = flat[np.uint64(z) * plane + np.uint64(y) * step + np.uint64(x)] if inside else 0
            continue
        if (z >= 0) & (z < last_z) & (y >= 0) & (y < last_y) & (x >= 0) & (x < last_x):
            k = np.uint64(z) * plane + np.uint64(y) * step + np.uint64(x)
            value, m = flat[k], k + plane
            same = (value == flat[k + one]) & (value == flat[k + step]) & (value == flat[k + step + one]) & (value == flat[m])
            if same & (value == flat[m + one]) & (value == flat[m + step]) & (value == flat[m + step + one]):
                row[i] = value
                continue
        row[i] = _vote(labels, z, y, x, tz, ty, tx, values, shares)


@compiled
def _reverse(row):
    for i in range(len(row) // 2):
        row[i], row[len(row) - 1 - i] = row[len(row) - 1 - i], row[i]


@compiled
def take_patch(volumes, labels, matrix, centre, field, orders, edge, mirrored, image_out, labels_out):
    """Image and labels of a patch, at matrix @ (voxel - the patch's middle + field) + centre, reversed along the mirrored axes.

    Args:
        volumes: float32 (C, z, y, x) with margins; coefficients if the image's order is 3.
        labels: (L, z, y, x) without margins.
        matrix, centre: float64 (3, 3) and (3,), in voxels of the volume.
        field: float32 (3, *patch), or (0, 1, 1, 1) where nothing is bent.
        orders: of image (0, 1, 3) and labels (0, 1).
        edge: how far beyond its outermost voxels' centres the volume is known: 0, or 1 where it fades into its margin.
        mirrored: bool (3,).
        image_out, labels_out: (C, *patch) and (L, *patch).
    """
    size = labels_out.shape[1:]
    shape = labels.shape[1:]
    whole, part = np.empty((3, size[2]), np.int32), np.empty((3, size[2]), np.float32)
    values, shares = np.empty(8, np.int64), np.empty(8, np.float32)
    for z in range(size[0]):
        for y in range(size[1]):
            _locate(size, z, y, matrix, centre, field, shape, edge, whole, part)
            to_z = size[0] - 1 - z if mirrored[0] else z
            to_y = size[1] - 1 - y if mirrored[1] else y
            for channel in range(len(volumes)):
                row = image_out[channel, to_z, to_y]
                _image_row(volumes[channel], whole, part, orders[0], row)
                if mirrored[2]:
                    _reverse(row)
            for volume in range(len(labels)):
                label_row = labels_out[volume, to_z, to_y]
                _label_row(labels[volume], whole, part, orders[1], values, shares, label_row)
                if mirrored[2]:
                    _reverse(label_row)
