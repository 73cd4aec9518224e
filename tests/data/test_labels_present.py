"""Which classes somebody annotated in a case, as dataset.json says it."""

from __future__ import annotations

import pytest

from autoseg.data.folders.layouts import open_dataset
from autoseg.data.labels import LabelSet
from autoseg.errors import DatasetError, LabelError


def test_cases_that_are_not_named_annotate_everything(make_dataset):
    dataset = open_dataset(make_dataset(cases=2, extra={"labels_present": {"case_01": ["back", "back"]}}))
    assert dataset.labels_present == {"case_01": ("back",)}
    assert [dataset.annotates(case, name) for case in ("case_00", "case_01") for name in ("front", "back")] == [True, True, False, True]


@pytest.mark.parametrize(
    ("present", "error", "message"),
    [
        ({"case_00": ["front", "side"]}, LabelError, r"case case_00, dataset\.json: .*side, which are no labels\. .*of front, back"),
        ({"case_00": ["background"]}, LabelError, "background and ignore go without saying"),
        ({"case_00": []}, LabelError, "case case_00.*nobody annotated anything.*leave it out"),
        ({"case_77": ["front"]}, DatasetError, r"names case_77, which are no cases\. .*case_00"),
        ({"case_00": "front"}, DatasetError, r"no \{case: \[labels\]\}"),
        (["case_00"], DatasetError, r"no \{case: \[labels\]\}"),
    ],
)
def test_unknown_cases_and_labels_are_refused(make_dataset, present, error, message):
    """Of a mistyped case, what nobody annotated would silently become background."""
    with pytest.raises(error, match=message):
        open_dataset(make_dataset(cases=1, extra={"labels_present": present}))


def test_it_needs_declared_labels(make_dataset):
    with pytest.raises(LabelError, match="without `labels`"):
        open_dataset(make_dataset(cases=1, extra={"labels": None, "labels_present": {"case_00": ["front"]}}))


def test_outputs_that_a_case_annotates():
    classes = LabelSet.declared({"background": 0, "a": 1, "b": 2, "ignore": 3})
    regions = LabelSet.declared({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    assert classes.annotates(("b",)) == (True, False, True) and classes.annotates(None) == (True, True, True)
    assert regions.annotates(("whole",)) == (True, False) and regions.annotates(None) == (True, True)
