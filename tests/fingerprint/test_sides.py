"""Left and right: names propose, shapes decide (DESIGN 6.5)."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.data.labels import LabelSet
from autoseg.fingerprint.sides import measure_sides, sides_by_name, summarise_sides, unnamed_sides

NAMES = [
    ("lung_left", "lung_right"),
    ("left lung", "right lung"),
    ("Left Lung", "Right Lung"),
    ("L_lung", "R_lung"),
    ("lung-L", "lung-R"),
    ("Lunge links", "Lunge rechts"),
    ("linke Lunge", "rechte Lunge"),
    ("linker Lappen", "rechter Lappen"),
    ("poumon gauche", "poumon droit"),
    ("poumon_G", "poumon_D"),
    ("pulmón izquierdo", "pulmón derecho"),
    ("pulmo sinister", "pulmo dexter"),
    ("polmone sx", "polmone dx"),
    ("LeftLung", "RightLung"),
    ("lungLeft", "lungRight"),
    ("leftlung", "rightlung"),
    ("lunglinks", "lungrechts"),
    ("lh", "rh"),
    ("Lt kidney", "Rt kidney"),
    ("left", "right"),
    ("L", "R"),
    ("rib_left_1", "rib_right_1"),
    ("lung_left1", "lung_right1"),
    ("vänster lunga", "höger lunga"),
    ("venstre lunge", "højre lunge"),
    ("левое лёгкое", "правое лёгкое"),
    ("左肺", "右肺"),
    ("pulmão esquerdo", "pulmão direito"),
    ("left lung upper", "right lung upper"),
    ("LUNG_LEFT", "LUNG_RIGHT"),
    ("lung.L", "lung.R"),
    ("LungL", "LungR"),
    ("lung (left)", "lung (right)"),
    ("Lunge li", "Lunge re"),
    ("NiereLinks", "NiereRechts"),
    ("pulmo sin", "pulmo dex"),
    ("pulmo sin.", "pulmo dext."),
    ("pulmón izq.", "pulmón der."),
    ("riñón izquierdo", "riñón derecho"),
    ("polmone sinistro", "polmone destro"),
    ("rene_sin", "rene_des"),
    ("reingauche", "reindroit"),
    ("linkerlong", "rechterlong"),
    ("linker nier", "rechter nier"),
    ("ctx-lh-insula", "ctx-rh-insula"),
    ("Glnd_Submand_L", "Glnd_Submand_R"),
    ("A_Carotid_L", "A_Carotid_R"),
    ("Left-Cerebral-White-Matter", "Right-Cerebral-White-Matter"),
    ("lewe płuco", "prawe płuco"),
    ("venstrelunge", "højrelunge"),
    ("sol akciğer", "sağ akciğer"),
    ("αριστερός πνεύμονας", "δεξιός πνεύμονας"),
    ("왼쪽 폐", "오른쪽 폐"),
]


@pytest.mark.parametrize(("left", "right"), NAMES)
def test_names_in_several_styles_and_languages(left, right):
    for order in ([left, "heart", right], [right, left, "heart"]):
        found = sides_by_name(order)
        assert (found.pairs, found.unpaired, found.plain) == (((left, right),), (), ("heart",))


def test_both_word_orders_may_stand_in_one_dataset():
    assert sides_by_name(["left lung", "lung_right"]).pairs == (("left lung", "lung_right"),)


def test_a_sided_label_without_its_partner_is_unpaired():
    found = sides_by_name(["lung_left", "lung_right", "lung_middle_lobe_right", "spleen", "appendage left"])
    assert found.pairs == (("lung_left", "lung_right"),)
    assert found.unpaired == ("lung_middle_lobe_right", "appendage left")
    assert found.plain == ("spleen",)


@pytest.mark.parametrize(
    "names",
    [
        ["RV", "myocardium", "LV"],
        ["vertebrae_L1", "vertebrae_L2", "vertebrae_S1"],
        ["cleft", "bright spot"],
        ["L", "M"],
        ["liver", "kidney", "der Kopf"],
        ["anterior", "posterior"],
        ["region_d", "region_f"],
        ["label_1", "label_2"],
        ["GG", "ET", "TC"],
        ["lever", "leverage"],
        ["a", "b", "c", "d", "e"],
        ["region_c", "region_d", "region_e"],
        ["rightmost", "leftover"],
        ["sole", "sagittal"],
    ],
)
def test_names_without_a_side(names):
    found = sides_by_name(names)
    assert found.pairs == () and found.unpaired == ()


def test_ambiguous_names_make_no_pair():
    assert sides_by_name(["lung_left", "left lung", "lung_right"]).pairs == ()
    assert sides_by_name(["left to right shunt", "right to left shunt"]).pairs == ()


def lungs(shift: int = 0, left=1, right=2) -> np.ndarray:
    """Two mirrored ellipsoids, label `left` at larger x (the patient's left in LPS)."""
    z, y, x = np.mgrid[:24, :30, :60].astype(float)
    labels = np.zeros(z.shape, np.uint8)
    labels[((z - 12) / 9) ** 2 + ((y - 15) / 10) ** 2 + ((x - 15) / 9) ** 2 <= 1] = right
    labels[((z - 12 - shift) / 9) ** 2 + ((y - 15) / 10) ** 2 + ((x - 43) / 9) ** 2 <= 1] = left
    return labels


def labelled(**values):
    return LabelSet.declared({"background": 0, **values})


def test_mirror_images_cover_each_other_wherever_the_plane_lies():
    overlap, offset = measure_sides(lungs(), (2.0, 1.0, 1.0), labelled(lung_left=1, lung_right=2))
    assert overlap == {"lung_left|lung_right": 1.0}
    assert offset["lung_left|lung_right"] == pytest.approx(28, abs=0.1)


def test_overlap_is_measured_within_a_tenth_of_the_distance():
    # two points 20 mm apart in x; mirrored, they miss each other by dz: 2 mm is within the tolerance, 3 mm is not
    for dz, expected in ((1, 1.0), (3, 0.0)):
        labels = np.zeros((9, 5, 40), np.uint8)
        labels[2, 2, 30], labels[2 + dz, 2, 10] = 1, 2
        overlap, _ = measure_sides(labels, (1.0, 1.0, 1.0), labelled(left=1, right=2))
        assert overlap["left|right"] == expected


def test_real_pairs_of_lungs(measured_real):
    for name in ("covid_ct_small", "lung_ct_hu"):
        sides = measured_real(name).fingerprint.sides
        assert [(p.left, p.right) for p in sides.pairs] == [("lung_left", "lung_right")]
        assert sides.pairs[0].overlap > 0.95 and sides.pairs[0].volume_ratio < 1.3
        assert not (sides.unpaired or sides.rejected or sides.unseen)


def test_ventricles_have_no_side_by_name_and_none_by_shape(measured_real):
    measured = measured_real("cardiac_cine")
    assert measured.fingerprint.sides.pairs == [] and measured.fingerprint.sides.rejected == []
    assert not [p for p in measured.problems if "look like the left and right" in p.message]


def test_left_and_right_ventricle_by_name_are_rejected_by_shape(shared_data, make_described):
    from dataclasses import replace

    from autoseg.data.folders.layouts import open_dataset
    from autoseg.fingerprint.measure import measure

    dataset = open_dataset(shared_data("cardiac_cine"))
    named = replace(dataset, labels=LabelSet.declared({"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3}))
    sides = measure(named, orientation="lps", workers=1).fingerprint.sides
    assert sides.pairs == []
    assert [(p.left, p.right) for p in sides.rejected] == [("left ventricle", "right ventricle")]
    assert sides.rejected[0].overlap < 0.6


def test_real_organs_without_partner(measured_real):
    sides = measured_real("totalseg_ct").fingerprint.sides
    assert sides.unpaired == ["lung_middle_lobe_right", "atrial_appendage_left"]
    confirmed = {(p.left, p.right) for p in sides.pairs}
    assert ("kidney_left", "kidney_right") in confirmed and ("rib_left_8", "rib_right_8") in confirmed
    assert ("clavicula_left", "clavicula_right") in sides.unseen


def test_a_pair_of_unlike_volume_is_rejected(measured_cases):
    labels = lungs()
    labels[:, :, 43:][labels[:, :, 43:] == 1] = 0
    labels[12:][labels[12:] == 1] = 0  # a quarter of the left one is left
    cases, dataset = measured_cases({"a": (labels, labels)}, {"lung_left": 1, "lung_right": 2})
    sides = summarise_sides(cases, dataset.labels)
    assert sides.pairs == [] and sides.rejected[0].volume_ratio > 2.5


def test_regions_count_with_all_their_values(make_case, make_described):
    from dataclasses import replace

    from autoseg.fingerprint.case_measures import measure_case

    labels = lungs()
    labels[:12][labels[:12] == 1] = 3  # the left lung in two values
    regions = LabelSet.declared({"background": 0, "lung left": [1, 3], "lung right": [2], "lungs": [1, 2, 3]}, [1, 2, 3])
    dataset = replace(make_described({"x": 1}), labels=regions)
    sides = summarise_sides({"a": measure_case(make_case("a", labels, labels), dataset).measures}, regions)
    assert [(p.left, p.right, p.overlap, p.volume_ratio) for p in sides.pairs] == [("lung left", "lung right", 1.0, 1.0)]


def test_unnamed_labels_that_look_like_sides_are_found_and_only_they(measured_cases):
    labels = lungs()
    labels[2:20, 2:5, 20:40] = 3
    cases, dataset = measured_cases({"a": (labels, labels), "b": (labels, labels)}, {"one": 2, "other": 1, "spine": 3})
    assert [(p.left, p.right) for p in unnamed_sides(cases, dataset.labels)] == [("other", "one")]


@pytest.mark.parametrize("name", ["hippocampus", "brats_2ch", "em_2d", "covid_ct_small"])
def test_no_real_labels_are_taken_for_unnamed_sides(measured_real, name):
    measured = measured_real(name)
    assert unnamed_sides(measured.fingerprint.cases, measured.dataset.labels) == []
