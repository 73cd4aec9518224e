"""A small picture of each case's image, by which copies are known again that were saved with other numbers.

Equal voxels have equal content keys. A copy that was rescaled, windowed, denoised, converted or cropped has not, but shows the
same anatomy at the same size: its cells agree with the original's once the two lie on each other. Different patients' cells agree
less, even where the anatomy is the same, since what is compared is the detail of a few cells' width and not the outline.
"""

from __future__ import annotations

import base64
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.ndimage import gaussian_filter, map_coordinates, shift

from autoseg.fingerprint.types import Signature
from autoseg.geometry import Orientation, Spacing

MOST_CELLS = {2: 64, 3: 24}  # along an axis, of an image and of a volume: some 5 KB, and 18 KB at most
OUTSIDE = 12  # of 255; darker cells are air or masked away, and alike in all patients
FINE, COARSE = 0.7, 2.0  # cells; the widths between which detail is compared
FARTHEST = 0.25  # of an axis; how far a copy is looked for, beyond the difference in length
LEAST_OVERLAP = 0.4  # of the smaller one's cells
LEAST_CELLS = 60  # that both show; fewer prove nothing
WORTH_A_LOOK = 0.75  # likeness at whole cells from which the fraction of a cell is sought
FEW = 25  # cases, of which all pairs are compared
NEAREST = 2  # cases by a rough look that each case is compared with
ROUGH = {2: 24, 3: 8}  # points along an axis of the rough look
MIDDLE = 0.8  # of the median extent that they span


def sign(voxels: np.ndarray, spacing: Spacing, orientation: Orientation) -> Signature:
    """The signature of one channel.

    Args:
        voxels: (z, y, x), as read.
        spacing: mm, (z, y, x).
        orientation: what brings it to LPS axes.
    """
    long = [axis for axis in range(3) if voxels.shape[axis] > 1]
    most = MOST_CELLS[3 if len(long) == 3 else 2]
    cells, sizes = np.asarray(voxels, np.float32), list(map(float, spacing))
    for axis in long:
        length = voxels.shape[axis] * spacing[axis]
        sizes[axis] = max(2.0 ** math.ceil(math.log2(length / most)), 2.0 ** math.ceil(math.log2(spacing[axis])))
        cells = _averaged(cells, axis, _weights(voxels.shape[axis], spacing[axis], sizes[axis]))
    low, high = np.percentile(cells, (1, 99))
    levels = np.clip((cells - low) / max(high - low, 1e-9) * 255, 0, 255).round().astype(np.uint8)
    return _packed(orientation.apply(levels), tuple(sizes[axis] for axis in orientation.axes))


def _weights(count: int, spacing: float, size: float) -> np.ndarray:
    """(cells, voxels): the share of each voxel in each cell; whole cells of `size` mm around the middle."""
    cells = max(1, int(count * spacing / size + 1e-6))
    edges = (count * spacing - cells * size) / 2 + size * np.arange(cells + 1)
    begin = np.arange(count) * spacing
    shared = np.minimum(begin + spacing, edges[1:, None]) - np.maximum(begin, edges[:-1, None])
    weights = np.clip(shared, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _averaged(array: np.ndarray, axis: int, weights: np.ndarray) -> np.ndarray:
    if axis == 0:  # the whole volume, which must not be copied
        return (weights @ array.reshape(len(array), -1)).reshape(len(weights), *array.shape[1:])
    return np.moveaxis(np.tensordot(weights, array, (1, axis)), 0, axis)


def _packed(cells: np.ndarray, sizes: Sequence[float]) -> Signature:
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(cells).tobytes())).decode("ascii")
    return Signature(shape=cells.shape, cell_mm=tuple(sizes), cells=text)


def unpacked(signature: Signature) -> np.ndarray:
    """The cells, uint8 (z, y, x) in LPS axes."""
    return np.frombuffer(zlib.decompress(base64.b64decode(signature.cells)), np.uint8).reshape(signature.shape)


def near_duplicates(signatures: Mapping[str, Signature], least: float) -> list[tuple[str, str, float]]:
    """Pairs of cases whose images show the same anatomy of the same patient, with their likeness, the most alike first.

    Args:
        least: likeness from which two are a pair.
    """
    cases = {name: _shown(signature) for name, signature in signatures.items()}
    pairs = ((one, other, _likeness(cases[one], cases[other])) for one, other in _candidates(cases))
    return sorted((pair for pair in pairs if pair[2] >= least), key=lambda pair: -pair[2])


@dataclass(frozen=True)
class _Shown:
    """A signature made ready to compare; arrays (z, y, x). mm: of a cell. detail: see `_detail`."""

    cells: np.ndarray
    mm: tuple[float, ...]
    detail: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Where there is anything but air."""
        return self.cells > OUTSIDE


def _shown(signature: Signature) -> _Shown:
    cells = unpacked(signature)
    return _Shown(cells, signature.cell_mm, _detail(cells))


def _candidates(cases: Mapping[str, _Shown]) -> list[tuple[str, str]]:
    """All pairs of few cases; of many each with the two that are nearest at a rough look, since all would take hours for a thousand."""
    names, shapes = list(cases), np.array([case.cells.shape for case in cases.values()])
    if len(names) <= FEW:
        return list(itertools.combinations(names, 2))
    extents = np.median(shapes * [case.mm for case in cases.values()], axis=0)
    middle = np.median(shapes, axis=0).astype(int)
    counts = np.minimum(middle, ROUGH[3 if middle.min() > 1 else 2])
    step = MIDDLE * extents / counts
    table = np.array([_rough(case, step, counts, places=1)[0] for case in cases.values()])
    pairs = set()
    for one, case in enumerate(cases.values()):
        nearness = (table @ _rough(case, step, counts, places=3).T).max(axis=1)
        nearness[one] = -1
        pairs |= {(min(one, other), max(one, other)) for other in np.argsort(nearness)[-NEAREST:].tolist() if nearness[other] > 0}
    return [(names[one], names[other]) for one, other in sorted(pairs)]


def _rough(case: _Shown, step: np.ndarray, counts: np.ndarray, *, places: int) -> np.ndarray:
    """A few hundred points of the detail around the middle, `step` mm apart: a row of length 1 from each of 1 or 27 places, half a
    step apart."""
    axes = [
        (np.arange(-n, n + 1) if n > 1 else np.zeros(1)) * mm / 2 / size + (length - 1) / 2
        for n, mm, size, length in zip(counts, step, case.mm, case.cells.shape, strict=True)
    ]
    fine = map_coordinates(case.detail, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest", output=np.float32)
    begins = range(3) if places > 1 else (1,)
    parts = [[slice(o, o + 2 * n - 1, 2) for o in begins] if n > 1 else [slice(None)] for n in counts]
    rows = np.array([fine[part].ravel() for part in itertools.product(*parts)])
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def likeness(one: Signature, other: Signature) -> float:
    """Correlation (0 to 1) of two images' detail, where both show something, once the one lies best on the other."""
    return _likeness(_shown(one), _shown(other))


def _likeness(one: _Shown, other: _Shown) -> float:
    for axis, (a, b) in enumerate(zip(one.mm, other.mm, strict=True)):
        if one.cells.shape[axis] == other.cells.shape[axis] == 1:
            continue
        if not 0.4 < a / b < 2.5:
            return 0.0
        one = _halved(one, axis) if a < 0.8 * b else one
        other = _halved(other, axis) if b < 0.8 * a else other
    rough, offset = _laid_on(one.detail, other.detail)
    return max(rough, 0.0) if rough < WORTH_A_LOOK else max(_correlation(one, other, offset), 0.0)


def _halved(case: _Shown, axis: int) -> _Shown:
    whole = case.cells.shape[axis] // 2 * 2
    even, odd = (np.take(case.cells, np.arange(start, whole, 2), axis) for start in (0, 1))
    cells = (even.astype(np.float32) + odd) / 2
    return _Shown(cells, tuple(mm * 2 if a == axis else mm for a, mm in enumerate(case.mm)), _detail(cells))


def _detail(cells: np.ndarray) -> np.ndarray:
    """What is larger than FINE and smaller than COARSE cells, along axes of more than two."""
    wide = [n > 2 for n in cells.shape]
    fine, coarse = (gaussian_filter(np.asarray(cells, np.float32), [width * w for w in wide], mode="nearest") for width in (FINE, COARSE))
    return fine - coarse


def _laid_on(one: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """The best correlation over shifts by whole cells, and the shift of `other` that gives it, to a fraction of a cell."""
    shapes = list(zip(one.shape, other.shape, strict=True))
    reach = [0 if max(a, b) == 1 else math.ceil(FARTHEST * max(a, b)) + abs(a - b) for a, b in shapes]
    size = [next_fast_len(max(a, b) + r, real=True) for (a, b), r in zip(shapes, reach, strict=True)]
    within = np.ix_(*(np.arange(-r, r + 1) % n for r, n in zip(reach, size, strict=True)))
    a, b = one - one.mean(), other - other.mean()
    ones = [rfftn(x, size) for x in (a, a * a, np.ones(a.shape))]
    others = [rfftn(x, size).conj() for x in (b, b * b, np.ones(b.shape))]

    def over(first: int, second: int) -> np.ndarray:
        return irfftn(ones[first] * others[second], size)[within]

    count = np.maximum(over(2, 2).round(), 1)
    sum_a, sum_b = over(0, 2), over(2, 0)
    spread_a, spread_b = over(1, 2) - sum_a**2 / count, over(2, 1) - sum_b**2 / count
    flat = (spread_a < 1e-3 * a.var() * count) | (spread_b < 1e-3 * b.var() * count)
    scale = np.sqrt(np.maximum(spread_a * spread_b, 1e-12))
    table = np.where(flat | (count < LEAST_OVERLAP * min(a.size, b.size)), -1, (over(0, 0) - sum_a * sum_b / count) / scale)
    best = np.unravel_index(int(np.argmax(table)), table.shape)
    return float(table[best]), np.array(best) - reach + [_peak(table, best, axis) for axis in range(3)]


def _peak(table: np.ndarray, best: tuple[int, ...], axis: int) -> float:
    """Where, within half a cell, the parabola through the best value and its two neighbours has its top."""
    place = best[axis]
    if not 0 < place < table.shape[axis] - 1:
        return 0.0
    below, middle, above = (float(np.take(table, place + step, axis)[tuple(np.delete(best, axis))]) for step in (-1, 0, 1))
    bend = below - 2 * middle + above
    return 0.0 if bend >= 0 or min(below, above) == -1 else max(-0.5, min(0.5, (below - above) / (2 * bend)))


def _correlation(one: _Shown, other: _Shown, offset: np.ndarray) -> float:
    """The correlation where both show something, with `other` moved by `offset` cells."""
    whole = np.round(offset).astype(int)
    fraction = np.where(np.minimum(one.cells.shape, other.cells.shape) > 4, offset - whole, 0)
    here, there = [], []
    for a, b, moved in zip(one.cells.shape, other.cells.shape, whole.tolist(), strict=True):
        low, high = max(0, moved), min(a, b + moved)
        here.append(slice(low, high))
        there.append(slice(low - moved, high - moved))
    here, there = tuple(here), tuple(there)
    mask = one.shown[here] & (shift(other.shown.astype(float), fraction, order=1, mode="nearest") > 0.5)[there]
    if mask.sum() < LEAST_CELLS:
        return 0.0
    a, b = one.detail[here][mask], shift(other.detail, fraction, order=3, mode="nearest")[there][mask]
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0
