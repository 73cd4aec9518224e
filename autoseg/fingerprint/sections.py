"""Whether 2D images are the sections of one block of tissue, or the slices of volumes, stored one by one in order.

Then neighbours show nearly the same, and a network that is tested on the neighbours of what it was trained on is praised for
remembering. Names tell the order, signatures tell whether neighbours by name are alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.fingerprint.numbering import number, stacks
from autoseg.fingerprint.signature import unpacked
from autoseg.fingerprint.types import CaseMeasures

FEWEST = 6  # images; fewer have no order to speak of
LEAST_IN_ORDER = 0.8  # share of the images that have a neighbour by number
FAR = 8  # numbers apart; sections so far from each other share little
MOST_PAIRS = 1000  # that are compared; their mean is known well enough from these


@dataclass(frozen=True)
class Sections:
    """Images that are numbered one after the other.

    stacks: the images of each run of numbers, in order.
    neighbours: mean correlation of images with neighbouring numbers; apart: of images of other stacks, or far apart in one.
    """

    stacks: tuple[tuple[str, ...], ...]
    neighbours: float
    apart: float

    @property
    def gain(self) -> float:
        """By how much neighbours are more alike than images that have nothing to do with each other."""
        return self.neighbours - self.apart


def serial_sections(cases: Mapping[str, CaseMeasures]) -> Sections | None:
    """How alike neighbours by number are, of a dataset of numbered 2D images; None for every other dataset."""
    if len(cases) < FEWEST or not all(case.planar and case.signature is not None for case in cases.values()):
        return None
    runs = stacks(cases)
    place = {name: (run, number(name)) for run, names in enumerate(runs) for name in names}
    pairs = [(a, b) for names in runs for a, b in itertools.pairwise(names) if number(b) - number(a) == 1]
    if len({name for pair in pairs for name in pair}) < LEAST_IN_ORDER * len(cases):
        return None
    order = [name for names in runs for name in names]
    chance = np.random.default_rng(0).integers(len(order), size=(MOST_PAIRS, 2))
    drawn = [(order[i], order[j]) for i, j in chance.tolist()]
    far = [(a, b) for a, b in drawn if place[a][0] != place[b][0] or abs(place[a][1] - place[b][1]) >= FAR]
    near, apart = (_mean_correlation(cases, some) for some in (pairs[:: 1 + len(pairs) // MOST_PAIRS], far))
    return None if near is None or apart is None else Sections(tuple(runs), near, apart)


def _mean_correlation(cases: Mapping[str, CaseMeasures], pairs: list[tuple[str, str]]) -> float | None:
    """Over the pairs of images of one size; None if there are none."""
    alike = [(a, b) for a, b in pairs if cases[a].signature.shape == cases[b].signature.shape]
    looks = {name: _look(cases[name]) for pair in alike for name in pair}
    return float(np.mean([(looks[a] * looks[b]).sum() for a, b in alike])) if alike else None


def _look(case: CaseMeasures) -> np.ndarray:
    cells = unpacked(case.signature).astype(np.float32)
    cells -= cells.mean()
    return cells / max(float(np.linalg.norm(cells)), 1e-12)
