"""What doctor says about a dataset as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.fingerprint.checks import check
from autoseg.fingerprint.merge import summarise
from autoseg.fingerprint.types import CaseMeasures, ChannelMeasures, KindFinding


def case(kind="arbitrary", sure=True, labels=None, offsets=None, **more):
    """A usual case of two classes, but for what is given."""
    look = KindFinding(kind=kind, why="values say so", sure=sure)
    usual = {
        "content_key": "",
        "label_key": "",
        "spacing": (2.0, 1.0, 1.0),
        "shape": (50, 100, 100),
        "planar": False,
        "tilt": 0.0,
        "orientation": "LPS",
        "crop_box": ((0, 9), (0, 9), (0, 9)),
        "label_voxels": labels or {0: 490_000, 1: 5000, 2: 5000},
        "channels": [ChannelMeasures(**look.model_dump(), look=look, minimum=0, maximum=9, mean=4, std=2, foreground=None)],
        "side_overlap": dict.fromkeys(offsets or {}, 1.0),
        "side_offset": offsets or {},
    }
    return CaseMeasures(**usual | more)


@pytest.fixture
def problems(make_described):
    def find(cases: dict, names=("a", "b"), channel="MR", **more):
        dataset = make_described({name: value for value, name in enumerate(names, 1)}, (channel,), **more)
        named = {name: c if c.content_key else c.model_copy(update={"content_key": name}) for name, c in cases.items()}
        return check(dataset, summarise(named, {}, dataset))

    return find


def series(count, **one):
    """`count` usual cases, the last of them with something of its own."""
    cases = {f"case_{n}": case() for n in range(count)}
    cases[f"case_{count - 1}"] = case(**one)
    return cases


def only(rows):
    [row] = rows
    assert row.remedy and not row.remedy.endswith(".") and not row.message.endswith(".")
    return row


def test_usual_cases_give_no_rows(problems):
    assert problems(series(8)) == []


def test_an_outlier_of_spacing_or_extent_is_named(problems):
    row = only(problems(series(8, spacing=(8.0, 1.0, 1.0), shape=(12, 100, 100))))
    assert row.case == "case_7" and "spacing is 8 x 1 x 1 mm" in row.message and "median 2 x 1 x 1" in row.message
    row = only(problems(series(8, shape=(200, 100, 100))))
    assert row.case == "case_7" and "extent is 400 x 100 x 100 mm" in row.message


def test_a_dataset_of_many_spacings_has_no_outliers(problems):
    cases = {f"case_{n}": case(spacing=(s, 1.0, 1.0), shape=(round(100 / s), 100, 100)) for n, s in enumerate([1, 1, 1, 2, 5, 8, 8])}
    assert problems(cases) == []


def test_classes_that_few_cases_or_voxels_show(problems):
    row = only(problems(series(8, labels={0: 9, 1: 5000, 2: 5000, 3: 70}), ("a", "b", "c")))
    assert row.message == "fewer than 5 of 8 cases show (number in brackets): c (1)"
    row = only(problems({f"case_{n}": case(labels={0: 9, 1: 500, 2: 9 + n}) for n in range(8)}))
    assert "fewer than 30 voxels" in row.message and "b (12.5)" in row.message
    row = only(problems(series(8), ("a", "b", "c", "d")))
    assert row.message == "no case shows: c, d"


def test_a_case_that_does_not_annotate_a_class_is_not_asked_for_it(problems):
    cases = {f"case_{n}": case(labels={0: 9, 1: 5000, 2: 5000, 3: 70} if n == 0 else None) for n in range(8)}
    elsewhere = {f"case_{n}": ("a", "b") for n in range(1, 8)}
    assert problems(cases, ("a", "b", "c"), labels_present=elsewhere)[0].message.endswith("show (number in brackets): c (1)")
    nowhere = {f"case_{n}": ("a", "b") for n in range(8)}
    row = only(problems({f"case_{n}": case() for n in range(8)}, ("a", "b", "c"), labels_present=nowhere))
    assert row.message == "no case annotates: c"


def test_a_case_in_which_all_is_to_be_ignored_is_named(make_described):
    cases = series(8, labels={3: 500_000})
    dataset = make_described({"a": 1, "b": 2, "ignore": 3})
    cases = {name: c.model_copy(update={"content_key": name}) for name, c in cases.items()}
    row = only(check(dataset, summarise(cases, {}, dataset)))
    assert row.case == "case_7" and "only voxels to ignore (3)" in row.message


def test_mixed_kinds_are_a_notice_and_unsure_ones_are_named(problems):
    rows = problems(series(6, kind="windowed") | {"x": case(kind="hu")}, channel="CT")
    assert any(row.message == "channel 'CT' has 6 'hu' and 1 'windowed' cases" for row in rows)
    unsure = [row for row in rows if "for want of better" in row.message]
    assert len(unsure) == 5 and "intensity_kind" in unsure[0].remedy and unsure[0].case == "case_0"


def test_a_tilted_case_is_named(problems):
    row = only(problems(series(6, tilt=41.0)))
    assert row.case == "case_5" and "41 degrees" in row.message
    assert problems(series(6, tilt=29.0)) == []


def test_the_same_image_twice_names_both_unless_a_group_ties_them(problems):
    cases = series(6) | {"x": case(content_key="same", label_key="1"), "y": case(content_key="same", label_key="2")}
    row = only(problems(cases))
    assert row.message == "x, y hold the same image with different label maps" and "group" in row.remedy
    assert problems(cases, groups={"x": "p", "y": "p"}) == []
    assert len(problems(cases, groups={"x": "p", "y": "q"})) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["radiopaedia_10_85902_1", "radiopaedia_10_85902_3", "radiopaedia_14_85914_0", "coronacases_001"],
        ["patient07_frame1", "patient07_frame2", "patient08_frame1"],
        ["p1-pre", "p1-post", "p2-pre", "p2-post"],
    ],
)
def test_ids_that_look_like_several_scans_of_one_patient_are_a_question(problems, names):
    row = only(problems({name: case() for name in names}))
    assert row.severity == "question" and f"{names[0]}, {names[1]}" in row.message and "groups.csv" in row.remedy
    assert problems({name: case() for name in names}, groups={names[0]: "one", names[1]: "one"}) == []


@pytest.mark.parametrize(
    "names",
    [
        [f"case_{n:03d}" for n in range(12)],
        [f"BraTS20_Training_{n:03d}" for n in range(12)],
        ["patient037_frame12", "patient041_frame11"],
        [f"study1_{n:02d}" for n in range(12)] + [f"study2_{n:02d}" for n in range(12)],
    ],
)
def test_numbered_cases_are_no_scans_of_one_patient(problems, names):
    assert problems({name: case() for name in names}) == []


def test_left_labels_on_the_right_are_named(problems):
    def offsets(*mm):
        return {f"case_{n}": case(offsets={"lung_left|lung_right": x}) for n, x in enumerate(mm)}

    names = ("lung_left", "lung_right")
    assert problems(offsets(90, 90, 80, 70, 99), names) == []
    row = only(problems(offsets(90, 90, 80, 70, -99), names))
    assert row.case == "case_4" and "lung_left lies to the patient's right of lung_right" in row.message
    row = only(problems(offsets(-90, -90, -80, -70, -99), names))
    assert row.case is None and "in 5 of 5 cases" in row.message


def test_unnamed_sides_are_a_question(problems):
    cases = {f"case_{n}": case(offsets={"one|other": -90.0}) for n in range(6)}
    row = only(problems(cases, ("one", "other")))
    assert row.severity == "question" and "other and one look like the left and right one" in row.message


@pytest.mark.parametrize("name", ["covid_ct_small", "lung_ct_hu", "hippocampus", "brats_2ch", "em_2d"])
def test_usual_real_data_raise_no_alarm(measured_real, name):
    measured = measured_real(name)
    rows = check(measured.dataset, measured.fingerprint)
    assert rows == []
    assert np.isfinite(measured.fingerprint.median_relative_size_after_crop)
