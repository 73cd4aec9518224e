"""Mirror images, and what becomes of labels that have a side (DESIGN.md 6.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sides:
    """What a mirror image does to labels with a side.

    rule: `exchange` swaps the pairs, `keep` never mirrors left to right, `blind` takes no notice.
    axis: the volume's left-right axis, inside.
    pairs: class indices of (left, right); none where outputs are regions, which the loss's targets exchange.
    """

    rule: str
    axis: int
    pairs: tuple[tuple[int, int], ...]

    def exchanges(self, mirrored: Sequence[int]) -> bool:
        """Whether left and right change places when these axes of the volume are mirrored."""
        return self.rule == "exchange" and self.axis in mirrored


def mirror(image: np.ndarray, labels: np.ndarray, axes: Sequence[int], sides: Sides) -> tuple[np.ndarray, np.ndarray, bool]:
    """Image (C, ...) and labels (...) reversed along `axes` of the volume, and whether left and right were exchanged by that."""
    network_axes = tuple(a - 3 + labels.ndim for a in axes)
    image, labels = np.flip(image, tuple(a + 1 for a in network_axes)), np.flip(labels, network_axes)
    exchanged = sides.exchanges(axes)
    return image, exchange_sides(labels, sides.pairs) if exchanged else labels, exchanged


def exchange_sides(labels: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """The labels with left and right of each pair of class indices swapped."""
    table = np.arange(np.iinfo(labels.dtype).max + 1, dtype=labels.dtype)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table[labels]
