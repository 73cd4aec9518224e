"""Intensity kinds: proven by values, allowed by the channel (DESIGN 6.7, paper R1)."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import DatasetError, IntensityError
from autoseg.fingerprint.histogram import describe
from autoseg.fingerprint.kinds import intensity_kind, kind_for_case, looks_like, mend_hu, settle_kinds


def chest(seed: int = 0) -> np.ndarray:
    """HU of air, lung, fat, muscle and bone with noise, in whole numbers, -1024 at least."""
    rng = np.random.default_rng(seed)
    means = rng.choice([-1000, -850, -100, 45, 400], p=[0.3, 0.2, 0.2, 0.25, 0.05], size=(10, 40, 40))
    return np.rint(rng.normal(means, 20)).clip(-1024, 3071).astype(np.float32)


def brain(top: float, seed: int = 0) -> np.ndarray:
    """An MR: background at 0, two broad tissues, in whole numbers up to about `top`."""
    rng = np.random.default_rng(seed)
    means = rng.choice([0, 0.45, 0.6], p=[0.4, 0.3, 0.3], size=(10, 40, 40))
    return np.rint(np.abs(rng.normal(means, 0.08)) * top).astype(np.float32)


def windowed(hu: np.ndarray) -> np.ndarray:
    """-1250..250 HU as 0..255, in whole levels, as the paper has it."""
    return np.rint((hu.clip(-1250, 250) + 1250) / 1500 * 255)


def images(folder) -> dict[str, np.ndarray]:
    return {path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32) for path in sorted(folder.glob("*"))}


def look(values):
    return looks_like(describe(values))


def test_hu_is_proven_by_the_peaks_of_air_and_tissue_whatever_the_channel_is_called():
    found = intensity_kind(chest(), channel_name="scan")
    assert (found.kind, found.sure) == ("hu", True)
    assert "air" in found.why


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_padding_outside_the_scan_circle_is_hu_and_becomes_air(padding):
    hu = chest()
    padded = hu.copy()
    padded[:, :6] = padding
    assert intensity_kind(padded, channel_name="scan").kind == "hu"
    mended = mend_hu(padded)
    assert np.all(mended[:, :6] == -1024)
    assert np.array_equal(mended[:, 6:], hu[:, 6:])
    assert padded.min() == padding  # the argument stays


@pytest.mark.parametrize("padding", [0, -2000])
def test_ct_without_intercept_is_hu_after_mending(padding):
    hu = chest()
    stored = hu + 1024
    stored[:, :6] = padding
    hu[:, :6] = -1024
    found = intensity_kind(stored, channel_name="CT")
    assert (found.kind, found.sure, found.offset) == ("hu", True, -1024)
    assert np.array_equal(mend_hu(stored), hu)
    assert mend_hu(stored).dtype == stored.dtype


def test_ct_without_intercept_proves_nothing_in_a_channel_that_is_not_called_ct():
    assert intensity_kind(chest() + 1024, channel_name="T1").kind == "arbitrary"


def test_mending_leaves_true_hu_and_real_low_values_alone():
    hu = chest()
    hu[0, 0, 0] = -1130  # noise below air, as scanners and resampling leave it
    assert mend_hu(hu) is hu


@pytest.mark.parametrize("low", [0, 45])
def test_gray_values_of_a_ct_are_windowed(low):
    gray = windowed(chest()).clip(low, 255)
    found = intensity_kind(gray, channel_name="CT")
    assert (found.kind, found.sure) == ("windowed", True)
    assert not intensity_kind(gray + 0.25 * (gray < 200), channel_name="CT").sure  # no whole levels


@pytest.mark.parametrize("name", ["CT", "ct", "CT scan", "chest_CT", "ChestCT", "Hounsfield", "CTA", "computed tomography"])
def test_names_of_ct(name):
    assert intensity_kind(windowed(chest()), channel_name=name).kind == "windowed"


@pytest.mark.parametrize("name", ["MR", "T1", "FLAIR", "PET/CT", "octagon", "0", "direct", "CBF", ""])
def test_names_that_are_no_ct(name):
    assert intensity_kind(windowed(chest()), channel_name=name).kind == "arbitrary"


@pytest.mark.parametrize("top", [0.5, 122, 255, 1700, 4095, 1e6])
def test_mr_is_arbitrary_in_every_range(top):
    found = intensity_kind(brain(top) if top > 1 else brain(1000) / 2000, channel_name="MRI")
    assert (found.kind, found.sure) == ("arbitrary", True)


@settings(max_examples=25, deadline=None)
@given(st.floats(200, 1500), st.integers(0, 5))
def test_normalised_mr_does_not_prove_hu(scale, seed):
    mr = brain(1000, seed)
    scaled = np.rint((mr - mr.mean()) / mr.std() * scale)
    assert intensity_kind(scaled, channel_name="MR").kind == "arbitrary"


def test_a_ct_of_unknown_range_is_hu_as_a_last_resort():
    found = intensity_kind(brain(4095), channel_name="CT")
    assert (found.kind, found.sure) == ("hu", False)
    assert intensity_kind(chest().clip(-300, 300), channel_name="CT").sure  # R1: below -200 is HU


def test_one_case_in_hu_lets_the_others_be_windowed():
    looks = {"a": {"0": look(windowed(chest()))}, "b": {"0": look(brain(3000))}}
    assert {k["0"].kind for k in settle_kinds(looks, ["0"], {}).values()} == {"arbitrary"}
    looks["c"] = {"0": look(chest(1))}
    looks["d"] = {"0": look(chest(2) + 1024)}
    settled = settle_kinds(looks, ["0"], {})
    assert {case: found["0"].kind for case, found in settled.items()} == {"a": "windowed", "b": "hu", "c": "hu", "d": "hu"}
    assert not settled["b"]["0"].sure
    assert settled["d"]["0"].offset == -1024


def test_each_channel_is_settled_for_itself_and_overrides_win():
    looks = {"a": {"CT": look(windowed(chest())), "PET": look(brain(200))}, "b": {"CT": look(chest()), "PET": look(brain(200))}}
    settled = settle_kinds(looks, ["CT", "PET"], {"a": {"CT": "arbitrary"}})
    assert [settled[c][n].kind for c in "ab" for n in ("CT", "PET")] == ["arbitrary", "arbitrary", "hu", "arbitrary"]
    with pytest.raises(DatasetError, match=r"case b.*HU"):
        settle_kinds(looks, ["CT", "PET"], {"b": {"CT": "HU"}})


def test_a_fresh_case_gets_a_kind_that_the_plan_has_steps_for():
    hu, gray, mr = chest(), windowed(chest()), brain(3000)

    def kind(values, *kinds):
        found = kind_for_case(values, channel_name="0", kinds_in_plan=kinds)
        return found.kind, found.sure

    assert kind(gray, "arbitrary") == ("arbitrary", True)
    assert kind(hu, "hu", "windowed") == ("hu", True)
    assert kind(gray, "hu", "windowed") == ("windowed", True)
    assert kind(mr, "hu", "windowed") == ("hu", False)
    assert kind(hu + 1024, "hu", "windowed") == ("hu", True)
    assert kind(gray, "hu") == ("hu", False)
    assert kind(hu, "windowed") == ("windowed", False)
    assert kind(mr, "hu", "arbitrary") == ("arbitrary", True)
    assert "trained on no case of kind 'windowed'" in kind_for_case(gray, channel_name="CT", kinds_in_plan=["hu"]).why


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(IntensityError):
        intensity_kind(np.full((1, 2, 2), np.inf, np.float32), channel_name="CT")


@pytest.mark.parametrize(
    ("dataset", "part", "kind"),
    [
        ("covid_ct_small", "imagesTr", "windowed"),
        ("covid_ct_small", "imagesTs", "hu"),
        ("lung_ct_hu", "imagesTr", "hu"),
        ("lung_ct_hu", "imagesTs", "hu"),
        ("totalseg_ct", "imagesTr", "hu"),
    ],
)
def test_real_ct(shared_data, dataset, part, kind):
    for name, values in images(shared_data(dataset) / part).items():
        found = intensity_kind(values, channel_name="CT")
        assert (found.kind, found.sure, found.offset) == (kind, True, 0), name
        if kind == "hu":
            assert look(values).sure, name  # proven without the channel's name
            assert look(windowed(values)).kind == "windowed", name
            without = values.clip(-1024, None) + 1024
            assert np.array_equal(mend_hu(without), values.clip(-1024, None)), name


@pytest.mark.parametrize("dataset", ["hippocampus", "brats_2ch", "cardiac_cine"])
def test_real_mr_is_one_kind(measured_real, dataset):
    fingerprint = measured_real(dataset).fingerprint
    assert {kind for summaries in fingerprint.channels.values() for kind in summaries} == {"arbitrary"}
    assert all(channel.sure for case in fingerprint.cases.values() for channel in case.channels)


def test_hippocampus_whose_ranges_differ_a_thousandfold_is_one_kind(measured_real):
    cases = measured_real("hippocampus").fingerprint.cases.values()
    ranges = [case.channels[0].maximum - case.channels[0].minimum for case in cases]
    assert max(ranges) / min(ranges) > 1000
    assert {case.channels[0].kind for case in cases} == {"arbitrary"}
