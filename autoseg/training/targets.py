"""From class indices to what the loss compares with, and counts of how well logits agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autoseg.data.labels import LabelSet


@dataclass(frozen=True)
class TargetForm:
    """How labels become targets.

    side_pairs: outputs that are each other's mirror image, by number.
    """

    label_set: LabelSet
    side_pairs: tuple[tuple[int, int], ...]

    def targets(self, labels: np.ndarray, exchanged: Sequence[bool]) -> torch.Tensor:
        """The loss's target of a batch.

        Args:
            labels: class indices (B, ...).
            exchanged: per sample, whether it was mirrored left to right with its sides exchanged. Class indices are exchanged
                already; regions, which may share classes, are exchanged here.

        Returns:
            int64 class indices (B, ...); or, for regions, float32 (B, R, ...) of 0 and 1, with the label set's `ignore_index` in all
            channels where nobody annotated.
        """
        if not self.label_set.regions:
            return torch.from_numpy(labels.astype(np.int64))
        regions = self._region_table()[:, labels].swapaxes(0, 1)  # (B, R, ...)
        for sample in np.flatnonzero(exchanged):
            for left, right in self.side_pairs:
                regions[sample, [left, right]] = regions[sample, [right, left]]
        return torch.from_numpy(np.ascontiguousarray(regions))

    def present(self, annotated: Sequence[Sequence[str] | None], exchanged: Sequence[bool]) -> torch.Tensor | None:
        """Which outputs each sample's case annotates, as the loss takes it: (B, outputs) booleans; None if all annotate all.

        Args:
            annotated: per sample, the names of the classes or regions that its case annotates, before any exchange; None: all.
            exchanged: per sample, whether left and right were exchanged: what was annotated of the left one is now of the right one.
        """
        if all(names is None for names in annotated):
            return None
        table = np.array([self.label_set.annotates(names) for names in annotated])
        for sample in np.flatnonzero(exchanged):
            for left, right in self.side_pairs:
                table[sample, [left, right]] = table[sample, [right, left]]
        return None if table.all() else torch.from_numpy(table)

    def _region_table(self) -> np.ndarray:
        """Target of each region (first axis) for each class index."""
        ignore = self.label_set.ignore_index
        table = np.zeros((len(self.label_set.names), len(self.label_set.file_values) + (ignore is not None)), np.float32)
        for region, indices in enumerate(self.label_set.region_indices):
            table[region, list(indices)] = 1
        if ignore is not None:
            table[:, ignore] = ignore
        return table


@torch.no_grad()
def overlap_counts(logits: torch.Tensor, target: torch.Tensor, ignore: int | None, present: torch.Tensor | None = None) -> torch.Tensor:
    """TP, FP and FN voxels of each foreground output over a batch: int64 (outputs, 3).

    Args:
        logits: (B, K, ...); classes with background, or regions.
        target: as `TargetForm.targets` makes it, which tells classes (one axis fewer than logits) from regions.
        present: as `TargetForm.present` makes it; a sample counts only for what its case annotates.
    """
    regions = target.ndim == logits.ndim
    counts = _region_counts(logits, target, ignore) if regions else _class_counts(logits, target, ignore)  # (B, outputs, 3)
    if present is not None:
        counts = counts * present[:, 0 if regions else 1 :, None].to(counts.device)
    return counts.sum(0)


def _region_counts(logits: torch.Tensor, target: torch.Tensor, ignore: int | None) -> torch.Tensor:
    known = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    predicted, truth = (logits > 0) & known, (target == 1) & known
    return torch.stack([part.flatten(2).sum(2) for part in (predicted & truth, predicted & ~truth, truth & ~predicted)], 2)


def _class_counts(logits: torch.Tensor, target: torch.Tensor, ignore: int | None) -> torch.Tensor:
    samples, classes = logits.shape[:2]
    predicted, truth = logits.argmax(1).flatten(1), target.flatten(1)  # (B, V)
    if logits.is_cuda:  # there bincount and masks would wait for the device
        return _counts_by_class(predicted, truth, classes, ignore)
    codes = truth * classes + predicted + classes**2 * torch.arange(samples, device=target.device)[:, None]
    codes = codes.flatten() if ignore is None else codes[truth != ignore]
    table = torch.bincount(codes, minlength=samples * classes**2).reshape(samples, classes, classes)
    hits = table.diagonal(dim1=1, dim2=2)
    return torch.stack([hits, table.sum(1) - hits, table.sum(2) - hits], 2)[:, 1:]


def _counts_by_class(predicted: torch.Tensor, truth: torch.Tensor, classes: int, ignore: int | None) -> torch.Tensor:
    """TP, FP, FN of each foreground class (B, classes - 1, 3) from indices (B, V), one comparison after the other."""
    known = None if ignore is None else truth != ignore
    rows = []
    for index in range(1, classes):
        found, there = predicted == index, truth == index
        false = found & ~there if known is None else found & ~there & known
        rows.append(torch.stack([(found & there).sum(1), false.sum(1), (there & ~found).sum(1)], 1))
    return torch.stack(rows, 1)


def dice(counts: torch.Tensor | Sequence[Sequence[float]]) -> list[float | None]:
    """Dice of each output from its TP, FP, FN; None where there was neither truth nor prediction."""
    rows = counts.tolist() if isinstance(counts, torch.Tensor) else counts
    return [2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None for tp, fp, fn in rows]
