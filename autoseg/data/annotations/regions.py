"""How regions that lie on one voxel become one integer, where no region holds the other too.

Nested regions are written one over the other, and the integer of the innermost says all. Regions that overlap in part have values of
their own for what they share; which is written depends on all regions that are there, found one after the other, as by an automaton.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from autoseg.data.labels import LabelSet


@dataclass(frozen=True)
class WriteSteps:
    """What a voxel becomes, region after region: in state 0 nothing is there; region i, where it is, leads from state s to steps[i][s].

    values: the class index that is written in each state.
    merged: states that different sets of regions lead to; any other stands for one set.
    """

    steps: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]
    merged: tuple[int, ...]


def value_of(labels: LabelSet, names: Collection[str]) -> int:
    """The file value of a voxel that these classes or regions cover: one that they and no others hold, else what the last one writes.

    Of exclusive classes that overlap all the same the one of the largest value holds.
    """
    if not names:
        return labels.background
    last = max(number for number, name in enumerate(labels.names) if name in names)
    written = labels.values[last][0] if labels.region_order is None else labels.region_order[last]
    exact = [value for value in labels.file_values[1:] if _holding(labels, value) == frozenset(names)]
    return written if written in exact or not exact else exact[0]


@cache
def write_steps(labels: LabelSet) -> WriteSteps | None:
    """How these regions are written; None where writing each over those before it, as `LabelSet.write_order` says, loses nothing."""
    if labels.region_order is None:
        return None
    place = {name: number for number, name in enumerate(labels.names)}
    known = {value: frozenset(place[name] for name in _holding(labels, value)) for value in labels.file_values[1:]}
    if all(labels.region_order[max(regions)] == value for value, regions in known.items()):
        return None
    states: dict[tuple[frozenset[int], bool], int] = {(frozenset(), False): 0}  # the regions; whether others are taken for them
    leads: list[dict[int, int]] = []
    for region, written in enumerate(labels.region_order):
        begun = {regions & frozenset(range(region + 1)) for regions in known.values()}
        lead = {}
        for (regions, merged), state in [*states.items()]:
            wanted = regions | {region}
            if wanted not in begun:  # no value stands for these: what this region writes stands for it
                wanted, merged = known[written] & frozenset(range(region + 1)), True
            lead[state] = states.setdefault((wanted, merged), len(states))
        leads.append(lead)
    index = {value: number for number, value in enumerate(labels.file_values)}
    values = tuple(index[value_of(labels, {labels.names[region] for region in regions})] for regions, _ in states)
    steps = tuple(tuple(lead.get(state, state) for state in range(len(states))) for lead in leads)
    return WriteSteps(steps, values, tuple(state for (_, merged), state in states.items() if merged))


def _holding(labels: LabelSet, value: int) -> frozenset[str]:
    """The names that hold a file value."""
    return frozenset(name for name, values in zip(labels.names, labels.values, strict=True) if value in values)
