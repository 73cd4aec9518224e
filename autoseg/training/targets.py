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

    side_pairs: outputs (of regions) that are each other's mirror image, by number.
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
def overlap_counts(logits: torch.Tensor, target: torch.Tensor, ignore: int | None) -> torch.Tensor:
    """TP, FP and FN voxels of each foreground output over a batch: int64 (outputs, 3).

    Args:
        logits: (B, K, ...); classes with background, or regions.
        target: as `TargetForm.targets` makes it, which tells classes (one axis fewer than logits) from regions.
    """
    if target.ndim == logits.ndim:
        known = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
        predicted, truth = (logits > 0) & known, (target == 1) & known
        axes = [0, *range(2, logits.ndim)]
        columns = [(predicted & truth).sum(axes), (predicted & ~truth).sum(axes), (truth & ~predicted).sum(axes)]
        return torch.stack(columns, 1)
    classes = logits.shape[1]
    predicted, truth = logits.argmax(1).reshape(-1), target.reshape(-1)
    if ignore is not None:
        known = truth != ignore
        predicted, truth = predicted[known], truth[known]
    table = torch.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)
    hits = table.diagonal()
    return torch.stack([hits, table.sum(0) - hits, table.sum(1) - hits], 1)[1:]


def dice(counts: torch.Tensor | Sequence[Sequence[float]]) -> list[float | None]:
    """Dice of each output from its TP, FP, FN; None where there was neither truth nor prediction."""
    rows = counts.tolist() if isinstance(counts, torch.Tensor) else counts
    return [2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None for tp, fp, fn in rows]
