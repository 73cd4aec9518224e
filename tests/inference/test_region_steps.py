"""Regions that overlap in part are written as the value that exactly those hold that are there."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from skimage.transform import resize

from autoseg.data.annotations.regions import value_of, write_steps
from autoseg.data.annotations.segments import gathered
from autoseg.data.labels import LabelSet
from autoseg.inference import upsampling
from autoseg.inference.export import decide
from autoseg.inference.upsampling import upsample_argmax
from autoseg.preprocessing.axes import linear_cells

PARTLY = gathered([{("heart",): 100, ("target",): 60, ("heart", "target"): 30, ("heart", "lung", "target"): 20, ("lung",): 50}])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_each_voxel_gets_the_value_of_all_regions_that_are_there(library, threshold):
    rng = np.random.default_rng(0)
    logits = rng.normal(threshold, 1, (len(PARTLY.names), 6, 7, 8)).astype(np.float32)
    shape = (11, 13, 9)
    scores = np.stack([resize(each.astype(float), shape, 1, mode="edge", anti_aliasing=False) for each in logits])
    given = logits if library == "numpy" else torch.from_numpy(logits)
    steps = write_steps(PARTLY)
    found = np.asarray(upsample_argmax(given, shape, region_steps=steps, threshold=threshold))
    if library == "torch":
        cells = [linear_cells(old, new) for old, new in zip(logits.shape[1:], shape, strict=True)]
        rule = partial(upsampling._state, limit=threshold, steps=steps.steps)
        on_device = upsampling._upsample_on_device(given, cells, rule, np.array(steps.values, np.uint8), steps.merged)
        assert np.array_equal(on_device, found)
    values = np.array(PARTLY.file_values)[found]
    known = set(PARTLY.file_values[1:])
    checked = 0
    for at in np.ndindex(shape):
        if np.abs(scores[(slice(None), *at)] - threshold).min() < 1e-5:
            continue
        names = {name for name, score in zip(PARTLY.names, scores[(slice(None), *at)], strict=True) if score > threshold}
        holding = {value for value in known if {n for n, some in zip(PARTLY.names, PARTLY.values, strict=True) if value in some} == names}
        if holding or not names:
            assert {int(values[at])} == (holding or {0})
            checked += 1
        else:  # no case shows just these together
            assert int(values[at]) in PARTLY.values[max(PARTLY.names.index(name) for name in names)]
    assert checked > 500


def test_a_label_map_of_named_segments_comes_back_from_its_own_regions():
    rng = np.random.default_rng(1)
    truth = rng.choice(PARTLY.file_values, (5, 6, 7))
    logits = np.stack([np.where(np.isin(truth, values), 3.0, -3.0) for values in PARTLY.values]).astype(np.float32)
    found = PARTLY.decode(decide(torch.from_numpy(logits), truth.shape, PARTLY, 0.0))
    assert np.array_equal(found, truth)
    assert all(value_of(PARTLY, {name}) in values for name, values in zip(PARTLY.names, PARTLY.values, strict=True))


def test_nested_regions_are_written_in_their_order_as_ever():
    brats = LabelSet.declared({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}, [1, 2, 3])
    logits = np.random.default_rng(2).normal(size=(3, 4, 5, 6)).astype(np.float32)
    painted = np.zeros((4, 5, 6), int)
    for value, score in zip((1, 2, 3), logits, strict=True):
        painted[score > 0] = value
    assert np.array_equal(decide(torch.from_numpy(logits), (4, 5, 6), brats, 0.0), painted)


def test_steps_for_another_number_of_outputs_are_refused():
    with pytest.raises(ValueError, match="region_steps has 3 steps"):
        upsample_argmax(np.zeros((2, 3, 3, 3), np.float32), (4, 4, 4), region_steps=write_steps(PARTLY))
