"""What doctor says about a dataset as a whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.fingerprint.checks import check
from autoseg.fingerprint.checks.copies import suggested_groups
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
        ["P01_t0", "P01_t1", "P02_t0"],
        ["P01_20200131", "P01_2021-02-28", "P02_20200131"],
        ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w"],
    ],
)
def test_ids_that_look_like_several_scans_of_one_patient_are_a_question(problems, names):
    row = only(problems({name: case() for name in names}))
    assert row.severity == "question" and f"{names[0]}, {names[1]}" in row.message and "groups.csv" in row.remedy
    assert problems({name: case() for name in names}, groups={names[0]: "one", names[1]: "one"}) == []


def test_groups_are_suggested_from_ids():
    names = ["P01_t0", "P01_t1", "P02_t0", "P03_t0", "P03_t1", "P03_t2"]
    assert suggested_groups(names) == {"P01_t0": "P01", "P01_t1": "P01", "P03_t0": "P03", "P03_t1": "P03", "P03_t2": "P03"}
    assert suggested_groups([f"case_{n}" for n in range(8)]) == {}


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


def test_a_slice_among_volumes_is_named(problems):
    cases = {f"case_{n}": case() for n in range(8)} | {"flat": case(shape=(1, 100, 100), spacing=(100.0, 1.0, 1.0), planar=True)}
    row = only([row for row in problems(cases) if "single slice" in row.message])
    assert row.case == "flat"


def test_a_header_unlike_the_others_is_named(problems):
    def at(*origin, **more):
        return case(origin=origin, **more)

    usual = {f"case_{n}": at(-120.0 - n, -90.0, 30.0 * n) for n in range(10)}
    assert problems(usual) == []
    row = only(problems(usual | {"case_3": at(-123.0, -90.0, 0.0, orientation="RAS")}))
    assert row.case == "case_3" and "axes run RAS, those of 9 of 10 cases run LPS" in row.message
    row = only(problems(usual | {"case_3": at(0.0, 0.0, 0.0)}))
    assert row.case == "case_3" and "0, 0, 0" in row.message
    half = {name: at(0.0, 0.0, 0.0) if n % 2 else one for n, (name, one) in enumerate(usual.items())}
    assert problems(half) == [], "many without a place are no mistake"


def test_an_image_that_is_shifted_in_a_common_space_is_named(problems):
    atlas = {f"case_{n}": case(origin=(-90.0, -126.0, -72.0)) for n in range(10)}
    assert problems(atlas) == []
    assert problems(atlas | {"case_4": case(origin=(-89.0, -125.0, -71.0))}) == [], "counting from 1"
    row = only(problems(atlas | {"case_4": case(origin=(-90.0, -126.0, -60.0))}))
    assert row.case == "case_4" and "12 mm" in row.message


def places(**values):
    """Centres of labels 1, 2, ... as fractions (z, y, x)."""
    return {"label_places": {0: (0.5, 0.5, 0.5)} | {int(key[1:]): place for key, place in values.items()}}


def arranged(count=8, seed=0):
    """Cases whose label 1 lies above and in front of label 2, with some spread; left-right varies."""
    rng = np.random.default_rng(seed)
    found = {}
    for n in range(count):
        z, y, x = rng.normal(0, 0.01, 3) * (1, 1, 10)
        found[f"case_{n}"] = case(**places(l1=(0.62 + z, 0.35 + y, 0.5 + x), l2=(0.45 + z, 0.66 + y, 0.5 - x)))
    return found


def test_labels_that_lie_mirrored_or_swapped_are_named(problems):
    usual = arranged()
    assert problems(usual) == []
    one = usual["case_2"].label_places
    mirrored = {v: (z, 1 - y, x) for v, (z, y, x) in one.items()}
    row = only(problems(usual | {"case_2": usual["case_2"].model_copy(update={"label_places": mirrored})}))
    assert row.case == "case_2" and "mirrored front to back" in row.message and "a is behind b" in row.message
    swapped = one | {1: one[2], 2: one[1]}
    row = only(problems(usual | {"case_2": usual["case_2"].model_copy(update={"label_places": swapped})}))
    assert row.case == "case_2" and "a and b lie the other way round" in row.message and "swapped" in row.remedy


def test_a_single_label_on_the_other_side_is_named(problems):
    rng = np.random.default_rng(0)
    cases = {f"case_{n}": case(labels={0: 9, 1: 500}, **places(l1=(0.5, 0.5, 0.3 + rng.normal(0, 0.01)))) for n in range(8)}
    assert problems(cases, ("liver",)) == []
    row = only(problems(cases | {"case_5": case(labels={0: 9, 1: 500}, **places(l1=(0.5, 0.5, 0.71)))}, ("liver",)))
    assert row.case == "case_5" and "liver lies in the left half" in row.message
    varied = {name: one.model_copy(update=places(l1=(0.5, 0.5, 0.3 if n % 2 else 0.7))) for n, (name, one) in enumerate(cases.items())}
    assert problems(varied, ("liver",)) == [], "where both sides occur, none is wrong"


@pytest.mark.parametrize(
    ("name", "axis", "words"), [("hippocampus", 1, "front to back"), ("cardiac_cine", 2, "RV is to the patient's left of LV")]
)
def test_a_flipped_real_label_map_is_found(measured_real, name, axis, words):
    measured = measured_real(name)
    cases = dict(measured.fingerprint.cases)
    victim = sorted(cases)[3]
    flipped = {v: tuple(1 - c if a == axis else c for a, c in enumerate(place)) for v, place in cases[victim].label_places.items()}
    cases[victim] = cases[victim].model_copy(update={"label_places": flipped})
    row = only(check(measured.dataset, measured.fingerprint.model_copy(update={"cases": cases})))
    assert row.case == victim and words in row.message


def test_sections_of_one_block_are_said_to_be(measured_real):
    measured = measured_real("em_2d")
    row = only(check(measured.dataset, measured.fingerprint))
    assert "numbered in one run" in row.message and "0.43" in row.message
    assert check(replace(measured.dataset, groups={"em_00": "a"}), measured.fingerprint) == []


def test_a_near_copy_is_named_unless_a_group_ties_it(measured_real):
    measured = measured_real("cardiac_cine")
    cases = dict(measured.fingerprint.cases)
    first = sorted(cases)[0]
    cases["again"] = cases[first].model_copy(update={"content_key": "other numbers"})
    fingerprint = measured.fingerprint.model_copy(update={"cases": cases})
    row = only(check(measured.dataset, fingerprint))
    assert f"again, {first} show nearly the same image" in row.message and "group" in row.remedy
    assert check(replace(measured.dataset, groups={first: "p", "again": "p"}), fingerprint) == []


def test_unnamed_sides_are_a_question(problems):
    cases = {f"case_{n}": case(offsets={"one|other": -90.0}) for n in range(6)}
    row = only(problems(cases, ("one", "other")))
    assert row.severity == "question" and "other and one look like the left and right one" in row.message


@pytest.mark.parametrize("name", ["covid_ct_small", "lung_ct_hu", "hippocampus", "brats_2ch", "cardiac_cine"])
def test_usual_real_data_raise_no_alarm(measured_real, name):
    measured = measured_real(name)
    rows = check(measured.dataset, measured.fingerprint)
    assert rows == []
    assert np.isfinite(measured.fingerprint.median_relative_size_after_crop)
