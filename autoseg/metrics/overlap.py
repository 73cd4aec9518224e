"""Agreement of two label maps, voxel by voxel: paper.md item 18, the peer's section 6.1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.errors import GridError, LabelError

METRICS = ("dice", "iou", "sensitivity", "specificity", "precision")
COUNTS = ("TP", "FP", "FN", "TN")
SLAB = 1 << 20  # voxels looked at together: 8 MB of joint codes
LARGEST_TABLE = 1 << 16  # label values up to this are looked up, larger ones searched


@dataclass(frozen=True)
class Overlap:
    """One label against the rest: voxels counted, and what follows from the counts. Undefined is nan, never 0 or 1."""

    TP: int
    FP: int
    FN: int
    TN: int

    @property
    def dice(self) -> float:
        """2TP / (2TP + FP + FN); nan where neither map shows the label."""
        return _ratio(2 * self.TP, 2 * self.TP + self.FP + self.FN)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); nan where neither map shows the label."""
        return _ratio(self.TP, self.TP + self.FP + self.FN)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); nan where the reference does not show the label."""
        return _ratio(self.TP, self.TP + self.FN)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); nan where the reference shows nothing else."""
        return _ratio(self.TN, self.TN + self.FP)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); nan where the prediction does not show the label."""
        return _ratio(self.TP, self.TP + self.FP)

    def __getitem__(self, name: str) -> float:
        """A count or a metric by its name."""
        if name not in COUNTS + METRICS:
            raise KeyError(name)
        return getattr(self, name)

    def as_dict(self) -> dict[str, float]:
        """Counts and metrics by name."""
        return {name: self[name] for name in COUNTS + METRICS}


@dataclass(frozen=True)
class OverlapTable(Mapping[str, Overlap]):
    """One row a name, in the order asked for."""

    rows: dict[str, Overlap]

    def __getitem__(self, name: str) -> Overlap:
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def as_dict(self) -> dict[str, dict[str, float]]:
        """name -> counts and metrics by name."""
        return {name: row.as_dict() for name, row in self.rows.items()}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def overlap(
    prediction: np.ndarray, reference: np.ndarray, labels: Mapping[str, Sequence[int]], *, ignore: int | None = None
) -> OverlapTable:
    """How far a predicted label map agrees with the reference, for each name, in one pass over the voxels.

    Args:
        prediction: non-negative integers (or booleans), any shape.
        reference: of the same shape.
        labels: name -> the values that it stands for; several make a group such as "lungs". Names may share values.
        ignore: voxels of this value in the reference count nowhere.

    Raises:
        GridError: the shapes differ.
        LabelError: an array does not hold non-negative integers, or a name stands for the ignored value.
    """
    prediction, reference = _checked(prediction, "prediction"), _checked(reference, "reference")
    if prediction.shape != reference.shape:
        raise GridError(f"prediction has shape {prediction.shape}, reference {reference.shape}", remedy="Bring both to one grid")
    wanted = {name: (values,) if isinstance(values, int | np.integer) else tuple(values) for name, values in labels.items()}
    if bad := [name for name, values in wanted.items() if ignore is not None and ignore in values]:
        raise LabelError(f"{', '.join(bad)} stands for {ignore}, the value to ignore", remedy="Score other values")
    known = sorted({int(v) for values in wanted.values() for v in values})
    counts = joint_counts(prediction, reference, known, ignore)
    position = {value: i + 1 for i, value in enumerate(known)}
    members = {name: [position[int(v)] for v in dict.fromkeys(values)] for name, values in wanted.items()}
    return OverlapTable({name: _one_against_rest(counts, indices) for name, indices in members.items()})


def joint_counts(prediction: np.ndarray, reference: np.ndarray, values: Sequence[int], ignore: int | None) -> np.ndarray:
    """Voxels by (predicted, true) value, (n + 1, n + 1) for n ascending `values`; index 0 is every other value."""
    side = len(values) + 1
    rows, columns = _coder(prediction, values, None, side + 1), _coder(reference, values, ignore, 1)
    counts = np.zeros(side * (side + 1), dtype=np.int64)
    flat = (prediction.reshape(-1), reference.reshape(-1))  # a copy only where the array is not contiguous
    for start in range(0, flat[0].size, SLAB):
        codes = rows(flat[0][start : start + SLAB])
        codes = codes + columns(flat[1][start : start + SLAB])
        counts += np.bincount(codes, minlength=counts.size)
    return counts.reshape(side, side + 1)[:, :side]  # the last column holds the ignored voxels


def _checked(array: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind not in "iu" or (array.dtype.kind == "i" and array.size and array.min() < 0):
        raise LabelError(f"the {what} does not hold non-negative integers ({array.dtype})", remedy="Give label maps as unsigned integers")
    return array


def _coder(array: np.ndarray, values: Sequence[int], ignore: int | None, step: int):
    """A function from label values to `step` times their place among `values` (1, 2, ...; 0 for others, last for `ignore`)."""
    keys = list(values) + ([] if ignore is None else [int(ignore)])
    codes = [i + 1 for i in range(len(values))] + ([] if ignore is None else [len(values) + 1])
    largest = int(array.max()) if array.dtype.itemsize > 2 and array.size else np.iinfo(array.dtype).max
    if largest < LARGEST_TABLE:
        table = np.zeros(largest + 1, dtype=np.intp)
        for key, code in zip(keys, codes, strict=True):
            if key <= largest:
                table[key] = code * step
        return table.__getitem__
    order = np.argsort(keys)
    sorted_keys, sorted_codes = np.array(keys, dtype=np.int64)[order], np.array(codes, dtype=np.intp)[order]

    def search(part: np.ndarray) -> np.ndarray:
        if not keys:
            return np.zeros(part.size, dtype=np.intp)
        place = np.minimum(np.searchsorted(sorted_keys, part), len(keys) - 1)
        return np.where(sorted_keys[place] == part, sorted_codes[place] * step, 0)

    return search


def _one_against_rest(counts: np.ndarray, members: list[int]) -> Overlap:
    both = int(counts[np.ix_(members, members)].sum())
    predicted, true = int(counts[members].sum()), int(counts[:, members].sum())
    return Overlap(TP=both, FP=predicted - both, FN=true - both, TN=int(counts.sum()) - predicted - true + both)
