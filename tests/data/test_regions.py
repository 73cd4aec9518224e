"""Regions that lie on one voxel become the value that exactly they hold."""

from __future__ import annotations

import itertools

import pytest

from autoseg.data.annotations.regions import value_of, write_steps
from autoseg.data.labels import LabelSet

PARTLY = {  # three regions that overlap in part
    "a": [1, 4, 5, 7],
    "b": [2, 4, 6, 7],
    "c": [3, 5, 6, 7],
}


def written(labels: LabelSet, names: set[str]) -> int:
    """The value that the steps lead to."""
    found = write_steps(labels)
    state = 0
    for name, step in zip(labels.names, found.steps, strict=True):
        state = step[state] if name in names else state
    return labels.file_values[found.values[state]]


def test_nested_regions_need_no_steps():
    brats = LabelSet.declared({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}, [1, 2, 3])
    assert write_steps(brats) is None and write_steps(LabelSet.declared({"background": 0, "a": 1})) is None


@pytest.mark.parametrize("missing", [(), (7,), (4, 6), (1,), (2, 3), (1, 2, 3)])
def test_each_set_of_regions_is_written_as_the_value_that_exactly_they_hold(missing):
    regions = {name: [v for v in values if v not in missing] for name, values in PARTLY.items()}
    labels = LabelSet.declared({"background": 0, **regions}, [values[0] for values in regions.values()])
    assert write_steps(labels) is not None
    for count in range(4):
        for names in map(set, itertools.combinations(labels.names, count)):
            exact = [v for v in labels.file_values[1:] if {n for n, values in regions.items() if v in values} == names]
            if exact or not names:
                assert written(labels, names) == (exact or [0])[0] == value_of(labels, names)
            else:  # no value says just this: what is written is one of the last region's
                last = max(names, key=labels.names.index)
                assert written(labels, names) in regions[last] and value_of(labels, names) in regions[last]


def test_a_value_that_several_hold_alike_is_the_one_that_the_region_writes():
    labels = LabelSet.declared({"background": 0, "whole": [1, 2, 3], "core": [2, 3]}, [1, 3])
    assert value_of(labels, {"whole"}) == 1 and value_of(labels, {"whole", "core"}) == 3 and value_of(labels, set()) == 0
