"""One image out of DICOM files: which planes, in which order, with which values, at which points in the patient."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.case import SeriesChoice
from autoseg.data.formats.dicom import headers as dicom_headers
from autoseg.data.formats.dicom.headers import read_headers
from autoseg.data.formats.dicom.series import images_of, matching
from autoseg.data.formats.dicom.voxels import read_series
from autoseg.data.formats.readers import read_pixels
from autoseg.errors import DatasetError, GridError, UnreadableFileError
from tests.dicom_phantoms import shown


@pytest.fixture(params=["pydicom", "SimpleITK"])
def reader(request, monkeypatch):
    """Headers read with the extra, and without it."""
    if request.param == "SimpleITK":
        monkeypatch.setattr(dicom_headers, "has_pydicom", lambda: False)
    else:
        pytest.importorskip("pydicom")
    return request.param


def rotation(degrees: float = 20) -> np.ndarray:
    a, b = np.radians(degrees), np.radians(degrees / 3)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return about_x @ np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])


def assert_shows(pixels, add: float = 0.0, tolerance: float = 0.51) -> None:
    """Every voxel has the value of its own point."""
    points = pixels.grid.points(np.argwhere(np.ones(pixels.grid.shape, bool)))
    assert np.abs(pixels.values[0].ravel() - shown(points) - add).max() <= tolerance


def read(folder: Path, pattern: str = ""):
    return read_series(folder, SeriesChoice(pattern))


def test_slices_are_placed_by_position_whatever_they_are_called(tmp_path, write_series, reader):
    write_series(tmp_path, direction=rotation())
    pixels = read(tmp_path)
    assert pixels.grid.shape == (5, 12, 10) and pixels.grid.spacing == pytest.approx((2.0, 0.8, 0.7)) and pixels.doubts == ()
    assert_shows(pixels)


def test_each_slice_has_its_own_rescale(tmp_path, write_series, reader):
    write_series(tmp_path, rescale=lambda index: (0.5 + index, -100.0 * index), modality="MR")
    assert_shows(read(tmp_path), tolerance=2.6)


def test_reports_localisers_and_what_is_no_dicom_are_passed_over(tmp_path, write_series, write_report, reader):
    write_series(tmp_path)
    write_series(
        tmp_path,
        slices=2,
        series="1.2.3.5",
        number=5,
        change=lambda i, file: setattr(file, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    write_series(tmp_path, slices=3, series="1.2.3.6", number=6, direction=rotation(90), description="3-plane_Scout")
    write_report(tmp_path / "report")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert_shows(read(tmp_path))


def test_several_series_are_told_and_chosen(tmp_path, write_series, reader):
    write_series(tmp_path, description="t1 pre", number=2, series="1.2.3.2")
    write_series(tmp_path, description="T1 post", number=3, series="1.2.3.3", slices=4, add=500)
    with pytest.raises(DatasetError, match=r"2 DICOM series lie together \(5 slices, 4 slices\)\. .*--series") as caught:
        read(tmp_path)
    assert "MEIER" not in str(caught.value) and "t1" not in str(caught.value)
    for pattern in ("T1 post", "t1 p?st", "*post", "3", "1.2.3.3", "re:.*po[s]t", "re:[3-9]"):
        assert_shows(read(tmp_path, pattern), add=500)
    with pytest.raises(DatasetError, match="none fits the pattern 'flair'"):
        read(tmp_path, "flair")
    with pytest.raises(DatasetError, match=r"of which 2 fit the pattern 't1\*'"):
        read(tmp_path, "t1*")
    with pytest.raises(DatasetError, match="no regular expression"):
        read(tmp_path, "re:(")


PHASES = {
    "time point": lambda phase, file: setattr(file, "TemporalPositionIdentifier", phase + 1),
    "echo time": lambda phase, file: setattr(file, "EchoTime", f"{4.6 * (phase + 1):g}"),
    "image type": lambda phase, file: setattr(file, "ImageType", ["DERIVED", "PRIMARY", "WF"[phase]]),
    "b-value": lambda phase, file: setattr(file, "DiffusionBValue", 800.0 * phase),
    "acquisition": lambda phase, file: setattr(file, "AcquisitionNumber", phase + 1),
}


@pytest.mark.parametrize("by", PHASES)
def test_images_inside_one_series_are_told_apart(tmp_path, write_series, reader, by):
    for phase in (0, 1):
        write_series(
            tmp_path,
            add=300 * phase,
            change=lambda index, file, phase=phase: (PHASES[by](phase, file), setattr(file, "SOPInstanceUID", f"1.9.{phase}.{index}")),
            names=f"{phase}_{{0:08X}}",
        )
    images = images_of(read_headers(sorted(tmp_path.iterdir())).slices)
    assert [image.number for image in images] == ["1.1", "1.2"] and all(image.distinction.startswith(by) for image in images)
    with pytest.raises(DatasetError, match=r"2 DICOM images lie together \(5 slices, 5 slices\)"):
        read(tmp_path)
    first, second = sorted((image.values[0].mean(), image) for image in (read(tmp_path, "1.1"), read(tmp_path, "1.2")))
    assert_shows(first[1])
    assert_shows(second[1], add=300)


def test_phases_that_nothing_tells_apart_follow_their_numbers(tmp_path, write_series, reader):
    for phase in (0, 1, 2):
        write_series(
            tmp_path,
            add=300 * phase,
            change=lambda index, file, phase=phase: (
                setattr(file, "InstanceNumber", 3 * index + phase + 1),
                setattr(file, "SOPInstanceUID", f"1.9.{phase}.{index}"),
            ),
            names=f"{phase}_{{0:08X}}",
        )
    for phase in (0, 1, 2):
        assert_shows(read(tmp_path, f"portal venous position in time {phase + 1}"), add=300 * phase)


def test_what_differs_from_slice_to_slice_tells_nothing_apart(tmp_path, write_series, reader):
    write_series(
        tmp_path, change=lambda index, file: (setattr(file, "AcquisitionNumber", index), setattr(file, "TriggerTime", 10.0 * index))
    )
    assert_shows(read(tmp_path))


def test_a_missing_slice_is_refused_by_name(tmp_path, write_series, reader):
    files = write_series(tmp_path, slices=8)
    files[3].unlink()
    with pytest.raises(GridError, match="not evenly spaced: usually 2 mm apart, 4 mm after slice 3 of 7"):
        read(tmp_path)


def test_copies_of_slices_are_left_out_with_a_notice(tmp_path, write_series, reader):
    files = write_series(tmp_path)
    shutil.copyfile(files[2], tmp_path / "again")
    pixels = read(tmp_path)
    assert [doubt.message for doubt in pixels.doubts] == ["1 of its files are copies of others and left out"]
    assert_shows(pixels)


def test_a_slice_stored_twice_under_two_ids_is_left_out_only_if_it_is_the_same(tmp_path, write_series, reader):
    write_series(tmp_path)
    extra = write_series(tmp_path / "x", change=lambda index, file: setattr(file, "SOPInstanceUID", f"1.9.{index}"))[1]
    shutil.move(extra, tmp_path / "extra")
    pixels = read(tmp_path)
    assert_shows(pixels)
    assert "1 of its slices are repeated" in pixels.doubts[0].message
    other = write_series(tmp_path / "y", add=50, change=lambda index, file: setattr(file, "SOPInstanceUID", f"1.9.{index}"))[1]
    shutil.move(other, tmp_path / "extra")
    with pytest.raises(GridError, match="1 of its 6 slices lie at the position of another"):
        read(tmp_path)


def test_a_tilted_gantry_is_a_sheared_grid(tmp_path, write_series, reader):
    write_series(tmp_path, tilt=15, slices=9)
    pixels = read(tmp_path)
    assert pixels.grid.sheared and pixels.grid.straight().spacing == pytest.approx((2.0, 0.8, 0.7))
    assert "15.0 degrees" in pixels.doubts[0].message
    assert_shows(pixels)


def test_a_slice_beside_the_line_of_the_others_is_refused(tmp_path, write_series, reader):
    def shift(index, file):
        if index == 2:
            file.ImagePositionPatient = [file.ImagePositionPatient[0] + 3, *file.ImagePositionPatient[1:]]

    write_series(tmp_path, change=shift)
    with pytest.raises(GridError, match="slice 3 of 5 is 3 mm beside it"):
        read(tmp_path)


@pytest.mark.parametrize("modality, turned_over", [("MR", True), ("CT", False)])
def test_monochrome1_is_turned_over_where_values_are_no_quantity(tmp_path, write_series, reader, modality, turned_over):
    rescale = (lambda index: (2.0, -1024.0)) if modality == "CT" else None
    write_series(
        tmp_path, modality=modality, rescale=rescale, change=lambda index, file: setattr(file, "PhotometricInterpretation", "MONOCHROME1")
    )
    pixels = read(tmp_path)
    if not turned_over:
        assert_shows(pixels, tolerance=1.1)
        return
    points = pixels.grid.points(np.argwhere(np.ones(pixels.grid.shape, bool)))
    assert np.array_equal(pixels.values[0].ravel(), -1 - shown(points))  # 16 bits with sign: -1 - stored
    assert "MONOCHROME1" in pixels.doubts[0].message


@pytest.mark.parametrize("kept, message", [(700, "1 of its 5 files cannot be read as DICOM"), (1000, "cannot be read")])
def test_a_truncated_file_is_no_missing_slice(tmp_path, write_series, reader, kept, message):
    files = write_series(tmp_path)
    whole = files[2].read_bytes()
    start = whole.index(b"\xe0\x7f\x10\x00")
    files[2].write_bytes(whole[: start - 200] if kept == 700 else whole[: start + 100])
    with pytest.raises(UnreadableFileError, match=message):
        read(tmp_path)


def test_frames_are_told_apart_and_placed(tmp_path, write_enhanced):
    write_enhanced(tmp_path / "IM1")
    for echo, add in ((4.6, 0), (9.2, 100)):
        pixels = read(tmp_path, f"dixon echo time {echo}")
        assert pixels.grid.shape == (4, 12, 10) and pixels.grid.spacing == pytest.approx((2.0, 0.8, 0.7))
        assert_shows(pixels, add=add)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_single_multi_frame_file_is_an_image_too(tmp_path, write_enhanced, compressed):
    import pydicom

    path = write_enhanced(tmp_path / "volume.dcm", echoes=(4.6,))
    if compressed:
        file = pydicom.dcmread(path)
        file.compress(pydicom.uid.RLELossless)
        file.save_as(path)
    assert_shows(read_pixels(path))


def test_without_pydicom_a_multi_frame_file_names_the_remedy(tmp_path, write_enhanced, monkeypatch):
    write_enhanced(tmp_path / "IM1")
    monkeypatch.setattr(dicom_headers, "has_pydicom", lambda: False)
    with pytest.raises(UnreadableFileError, match=r"multi-frame DICOM file.* pip install 'autoseg3d\[dicom\]'"):
        read(tmp_path)


def test_a_film_is_no_volume(tmp_path, write_enhanced):
    import pydicom

    path = write_enhanced(tmp_path / "film", rescale=False)
    file = pydicom.dcmread(path)
    del file.PerFrameFunctionalGroupsSequence, file.SharedFunctionalGroupsSequence
    file.save_as(path)
    with pytest.raises(UnreadableFileError, match="8 frames do not say where they lie"):
        read(tmp_path)


def test_a_radiograph_is_planar_and_keeps_its_pixel_size(tmp_path, write_series, reader):
    def no_place(index, file):
        file.Modality = "DX"
        del file.ImagePositionPatient, file.ImageOrientationPatient

    write_series(tmp_path, slices=1, change=no_place)
    pixels = read(tmp_path)
    assert pixels.grid.planar and pixels.grid.spacing == pytest.approx((1.0, 0.8, 0.7)) and not pixels.placed


def test_both_readers_of_headers_say_the_same(shared_data, monkeypatch):
    pytest.importorskip("pydicom")
    files = sorted(
        path
        for name in ("dicom_mixed", "dicom_ct", "dicom_mr_oblique", "dicom_per_slice_rescale")
        for path in (shared_data("formats") / name).iterdir()
    )
    by_pydicom = read_headers(files)
    monkeypatch.setattr(dicom_headers, "has_pydicom", lambda: False)
    by_simpleitk = read_headers(files)
    assert len(by_pydicom.slices) == 38 and by_pydicom == by_simpleitk


def test_many_files_are_read_in_processes_in_the_same_order(tmp_path, write_series, monkeypatch):
    files = write_series(tmp_path, slices=12)
    monkeypatch.setattr(dicom_headers, "_CHUNK", 3)
    assert read_headers(files, workers=2) == read_headers(files)


def test_without_a_pattern_a_localiser_counts_only_where_there_is_nothing_else(tmp_path, write_series):
    write_series(tmp_path, slices=2, description="LOCALIZER")
    images = images_of(read_headers(sorted(tmp_path.iterdir())).slices)
    assert matching(images, "") == images
