"""Segments of 3D Slicer, DICOM-SEG and RTSTRUCT on the image's grid, from files that slicerio, highdicom and pydicom write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.annotations import reading as annotations
from autoseg.data.annotations.reading import names_segments, read_annotation
from autoseg.errors import DatasetError, GridError, LabelError, UnreadableFileError
from autoseg.geometry import Grid, Orientation

ORGANS = {"liver": 5, "spleen": 1, "aorta": 52}
AS_IT_IS = Orientation()
ORIENTATIONS = [AS_IT_IS, Orientation((1, 0, 2), (True, False, True)), Orientation((2, 1, 0), (False, True, False))]


@dataclass(frozen=True)
class Scan:
    """A real CT's grid, its slices' DICOM headers in its order, and real organs, of which two are made to overlap."""

    grid: Grid
    slices: list
    masks: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def scan(shared_data) -> Scan:
    import highdicom
    import pydicom

    folder = shared_data("totalseg_ct") / "dicom"
    label = sitk.ReadImage(str(folder / "label_native" / "totalseg_02.nii.gz"))
    whole = sitk.GetArrayFromImage(label)
    grid = Grid(whole.shape, label.GetSpacing()[::-1], label.GetOrigin(), label.GetDirection())
    box = tuple((int(at.min()), int(at.max()) + 1) for at in np.nonzero(np.isin(whole, list(ORGANS.values()))))
    grid, voxels = grid.cropped(box), whole[tuple(slice(*side) for side in box)]
    masks = {name: voxels == value for name, value in ORGANS.items()}
    places = np.argwhere(masks["liver"])
    tumour = np.zeros_like(masks["liver"])  # in part in the liver, in part beside it
    z, y, x = places[len(places) // 2]
    tumour[z - 2 : z + 3, y - 9 : y + 9, x : x + 40] = True
    masks["tumour"] = tumour
    series, study = highdicom.UID(), highdicom.UID()
    slices = []
    for file in sorted((folder / "series").glob("*.dcm")):  # the files' own identifiers were emptied when they were made anonymous
        header = pydicom.dcmread(file, stop_before_pixels=True)
        header.SOPClassUID, header.SOPInstanceUID = header.file_meta.MediaStorageSOPClassUID, highdicom.UID()
        header.SeriesInstanceUID, header.StudyInstanceUID = series, study
        slices.append(header)
    slices = sorted(slices, key=lambda h: h.ImagePositionPatient[2])[slice(*box[0])]
    return Scan(grid, slices, masks)


def write_slicer(path: Path, masks: dict[str, np.ndarray], grid: Grid, crop: tuple[slice, slice, slice]) -> Path:
    """Segments as Slicer saves them: index order i, j, k, cropped, layers where they overlap."""
    import slicerio

    affine = np.eye(4)
    affine[:3, :3] = grid.axes[:, ::-1]
    affine[:3, 3] = grid.points(np.array([[s.start for s in crop]]))[0]
    shape = next(iter(masks.values()))[crop].T.shape
    content = slicerio.create_segmentation(shape, affine)
    for name, mask in masks.items():
        slicerio.add_segment(content, mask[crop].T, {"id": f"Segment_{name}", "name": name})
    slicerio.write_segmentation(str(path), content)
    return path


def write_seg(path: Path, masks: dict[str, np.ndarray], scan: Scan, kind: str, rows: slice, columns: slice, keep: slice) -> Path:
    """A DICOM segmentation of a part of the slices and of their pixels, without the frames that are empty."""
    import copy

    import highdicom as hd
    from pydicom.sr.codedict import codes

    sources = []
    for number in range(keep.start, keep.stop):
        header = scan.slices[number]
        part = copy.deepcopy(header)
        part.SpecificCharacterSet = header.get("SpecificCharacterSet") or "ISO_IR 100"
        part.Rows, part.Columns = rows.stop - rows.start, columns.stop - columns.start
        corner = scan.grid.points(np.array([[number, rows.start, columns.start]]))[0]
        part.ImagePositionPatient = [round(float(value), 6) for value in corner]
        sources.append(part)
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, start=1)
    ]
    pixels = np.stack([mask[keep, rows, columns] for mask in masks.values()], axis=-1)
    content = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="made",
        manufacturer_model_name="for tests",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    content.save_as(path)
    return path


def write_rtstruct(
    path: Path, contours: dict[str, list[np.ndarray]], *, kind: str = "CLOSED_PLANAR", series: str = "", frame: str = ""
) -> Path:
    """A structure set of contours, each (n, 3) in LPS mm."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    content.SOPClassUID, content.SOPInstanceUID, content.Modality = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
        "RTSTRUCT",
    )
    content.StructureSetROISequence, content.ROIContourSequence = [], []
    if series:
        one, study, about = Dataset(), Dataset(), Dataset()
        one.SeriesInstanceUID, study.RTReferencedSeriesSequence = series, [one]
        about.FrameOfReferenceUID, about.RTReferencedStudySequence = frame, [study]
        content.ReferencedFrameOfReferenceSequence = [about]
    for number, (name, some) in enumerate(contours.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in some:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.4f}" for value in points.reshape(-1)]
            drawn.ContourSequence.append(contour)
        content.StructureSetROISequence.append(roi)
        content.ROIContourSequence.append(drawn)
    content.save_as(path, enforce_file_format=True)
    return path


def contours_of(mask: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """The contours of each slice of a mask, inner ones too, midway between pixels in and out."""
    from skimage.measure import find_contours

    found = []
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        for contour in find_contours(np.pad(mask[z], 1).astype(float), 0.5):
            found.append(grid.points(np.column_stack([np.full(len(contour), z), contour - 1])))
    return found


def assert_same(segments, masks: dict[str, np.ndarray], orientation: Orientation = AS_IT_IS, least: float = 1.0) -> None:
    for name, mask in masks.items():
        wanted = orientation.apply(mask)
        holding = [number for number, names in enumerate(segments.combinations) if name in names]
        found = np.isin(segments.voxels, holding)
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) >= least, name
    assert {name for names in segments.combinations for name in names} == set(masks)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slicer_segments_in_a_cropped_volume_of_layers_lie_where_they_were_drawn(tmp_path, scan, orientation):
    crop = (slice(2, 17), slice(10, 150), slice(20, 230))
    masks = {
        name: np.pad(mask[crop], [(s.start, n - s.stop) for s, n in zip(crop, mask.shape, strict=True)])
        for name, mask in scan.masks.items()
    }
    path = write_slicer(tmp_path / "a.seg.nrrd", masks, scan.grid, crop)
    segments = read_annotation(path, scan.grid.oriented(orientation))
    assert_same(segments, masks, orientation)
    assert ("liver", "tumour") in segments.combinations and segments.doubts == ()
    assert segments.voxels.shape == orientation.apply(masks["liver"]).shape


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_fill_the_slices_that_they_were_drawn_on_with_holes(tmp_path, scan, orientation):
    from scipy.ndimage import binary_erosion

    masks = dict(scan.masks)
    masks["liver"] = masks["liver"] & ~binary_erosion(masks["liver"], np.ones((1, 5, 5)), iterations=4)  # a rim with holes
    path = write_rtstruct(tmp_path / "a.dcm", {name: contours_of(mask, scan.grid) for name, mask in masks.items()})
    segments = read_annotation(path, scan.grid.oriented(orientation))
    assert_same(segments, masks, orientation, least=0.999)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations_without_their_empty_frames_lie_where_they_were_drawn(tmp_path, scan, kind):
    rows, columns, keep = slice(21, 150), slice(43, 186), slice(9, 13)  # 129 x 143 pixels: frames that end inside a byte
    masks = {name: mask for name, mask in scan.masks.items() if kind != "LABELMAP" or name != "tumour"}
    path = write_seg(tmp_path / "a.dcm", masks, scan, kind, rows, columns, keep)
    part = np.zeros(scan.grid.shape, bool)
    part[keep, rows, columns] = True
    masks = {name: mask & part for name, mask in masks.items()}
    for orientation in ORIENTATIONS:
        segments = read_annotation(path, scan.grid.oriented(orientation))
        assert_same(segments, {name: mask for name, mask in masks.items() if mask.any()}, orientation)


def test_segments_that_overlap_share_a_combination(tmp_path):
    grid = Grid((4, 8, 8))
    one, other = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    one[1:3, 1:5, 1:5], other[1:3, 3:7, 3:7] = True, True
    path = write_slicer(tmp_path / "a.seg.nrrd", {"b": one, "a": other}, grid, tuple(slice(0, n) for n in grid.shape))
    segments = read_annotation(path, grid)
    assert segments.combinations == ((), ("a",), ("b",), ("a", "b"))
    assert np.array_equal(segments.voxels == 3, one & other)


SQUARE = np.array([[5.0, 2.0, 2.0], [5.0, 2.0, 7.6], [5.0, 7.6, 7.6], [5.0, 7.6, 2.0]])  # z, y, x in voxels of the grid below
TEN = Grid((12, 10, 10), (2.0, 1.0, 1.0))


def rtstruct_at(path: Path, places: list[float], grid: Grid = TEN) -> Path:
    return write_rtstruct(path, {"a": [grid.points(SQUARE + [[z - 5, 0, 0]]) for z in places]})


@pytest.mark.parametrize(
    "places, slices",
    [
        ([3, 4, 5], [3, 4, 5]),  # on the slices
        ([3.2, 4.2, 5.2], [3, 4, 5]),  # beside them
        ([3, 3.5, 4, 4.5, 5], [3, 4, 5]),  # contours on finer slices than the image's
        ([2, 4, 6], [2, 3, 4, 5, 6, 7]),  # on slices twice as thick: each stands for two
        ([4], [4]),  # a single one
        ([2, 3, 9, 10], [2, 3, 9, 10]),  # two places
        ([-3, -2, 0, 1], [0, 1]),  # beyond the image
    ],
)
def test_a_contour_stands_for_the_slices_that_are_nearest_to_it(tmp_path, places, slices):
    segments = read_annotation(rtstruct_at(tmp_path / "a.dcm", places), TEN)
    assert np.flatnonzero(segments.voxels.any(axis=(1, 2))).tolist() == slices
    assert all((segments.voxels[z, 2:8, 2:8] == 1).all() and segments.voxels[z].sum() == 36 for z in slices)


def test_contours_across_the_slices_are_refused(tmp_path):
    tilted = TEN.points(SQUARE + [[0, 0, 0], [2, 0, 0], [2, 0, 0], [0, 0, 0]])
    with pytest.raises(GridError, match=r"a.dcm: its contours do not lie in slices of the image"):
        read_annotation(write_rtstruct(tmp_path / "a.dcm", {"a": [tilted + [[0, 3, 0], [0, 0, 0], [0, 5, 0], [0, 0, 0]]]}), TEN)


def test_structures_of_points_are_left_out_with_a_warning(tmp_path):
    path = write_rtstruct(tmp_path / "a.dcm", {"a": [TEN.points(SQUARE)], "isocentre": []})
    segments = read_annotation(path, TEN)
    assert segments.combinations == ((), ("a",)) and "isocentre" in segments.doubts[0].message
    with pytest.raises(LabelError, match="closed contour"):
        read_annotation(write_rtstruct(tmp_path / "b.dcm", {"a": [TEN.points(SQUARE)]}, kind="POINT"), TEN)


def test_without_pydicom_the_remedy_is_the_command_that_installs_it(tmp_path, monkeypatch):
    path = rtstruct_at(tmp_path / "a.dcm", [3, 4])
    monkeypatch.setattr(annotations, "has_pydicom", lambda: False)
    with pytest.raises(UnreadableFileError) as found:
        read_annotation(path, TEN)
    assert "pip install 'autoseg3d[dicom]'" in found.value.remedy


def test_what_lies_beside_the_image_is_refused(tmp_path):
    far = replace(TEN, origin=(0.0, 0.0, 100.0))
    mask = np.zeros(TEN.shape, bool)
    mask[2:5, 2:5, 2:5] = True
    everything = tuple(slice(0, n) for n in TEN.shape)
    for path in (rtstruct_at(tmp_path / "a.dcm", [3, 4], far), write_slicer(tmp_path / "a.seg.nrrd", {"a": mask}, far, everything)):
        with pytest.raises(GridError, match="within the image"):
            read_annotation(path, TEN)


def test_a_part_beside_the_image_is_left_out_with_a_warning(tmp_path):
    mask = np.zeros(TEN.shape, bool)
    mask[2:5] = True
    shifted = replace(TEN, origin=(0.0, 0.0, -6.0))  # three slices further down
    segments = read_annotation(write_slicer(tmp_path / "a.seg.nrrd", {"a": mask}, shifted, tuple(slice(0, n) for n in TEN.shape)), TEN)
    assert np.flatnonzero(segments.voxels.any(axis=(1, 2))).tolist() == [0, 1]
    assert "100 of its voxels lie outside" in segments.doubts[0].message


def test_voxels_beside_the_images_are_refused_or_brought_to_the_nearest(tmp_path):
    from scipy.ndimage import map_coordinates

    own = Grid((9, 14, 14), (2.5, 0.7, 0.7), (0.3, 0.2, 1.0))
    mask = np.random.default_rng(0).random(own.shape) < 0.5
    path = write_slicer(tmp_path / "a.seg.nrrd", {"a": mask}, own, tuple(slice(0, n) for n in own.shape))
    with pytest.raises(GridError, match="of another spacing") as found:
        read_annotation(path, TEN)
    assert "--regrid to-first" in found.value.remedy
    places = own.indices(TEN.points(np.argwhere(np.ones(TEN.shape)))).T
    inside = (np.abs(places.T - (np.array(own.shape) - 1) / 2) <= np.array(own.shape) / 2).all(axis=1)
    wanted = (map_coordinates(mask.astype(float), places, order=0, mode="nearest") > 0.5) & inside
    assert np.array_equal(read_annotation(path, TEN, regrid=True).voxels.reshape(-1) > 0, wanted)


def test_an_annotation_of_another_series_is_warned_of(tmp_path, scan):
    import pydicom
    from pydicom.uid import generate_uid

    image = tmp_path / "image.dcm"
    header = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    header.save_as(image)
    square = {"a": [TEN.points(SQUARE)]}
    same = write_rtstruct(tmp_path / "same.dcm", square, series=header.SeriesInstanceUID, frame=header.FrameOfReferenceUID)
    other = write_rtstruct(tmp_path / "other.dcm", square, series=generate_uid(), frame=header.FrameOfReferenceUID)
    assert read_annotation(same, TEN, image=image).doubts == ()
    assert "another series" in read_annotation(other, TEN, image=image).doubts[0].message


def test_segmentations_and_structure_sets_do_not_count_together(tmp_path, scan):
    rtstruct_at(tmp_path / "one.dcm", [3, 4])
    write_seg(tmp_path / "two.dcm", {"liver": scan.masks["liver"]}, scan, "BINARY", slice(40, 56), slice(40, 72), slice(9, 11))
    assert names_segments(tmp_path)
    with pytest.raises(DatasetError, match=r"both DICOM-SEG and RTSTRUCT lie in it \(one.dcm, two.dcm\)"):
        read_annotation(tmp_path, TEN)


def test_files_of_one_kind_in_a_folder_are_joined(tmp_path):
    rtstruct_at(tmp_path / "one.dcm", [3, 4])
    write_rtstruct(tmp_path / "two.dcm", {"b": [TEN.points(SQUARE + [[2, 0, 0]])]})
    assert read_annotation(tmp_path, TEN).combinations == ((), ("a",), ("b",))


@pytest.mark.parametrize("damage", ["empty header", "missing layer", "cut"])
def test_damaged_slicer_files_are_named(tmp_path, damage):
    mask = np.zeros(TEN.shape, bool)
    mask[2:5] = True
    path = write_slicer(tmp_path / "a.seg.nrrd", {"a": mask}, TEN, tuple(slice(0, n) for n in TEN.shape))
    content = path.read_bytes()
    if damage == "empty header":
        head, _, rest = content.partition(b"\n\n")
        content = b"\n".join(line for line in head.split(b"\n") if not line.startswith(b"Segment0")) + b"\n\n" + rest
    elif damage == "missing layer":
        content = content.replace(b"Segment0_Layer:=0", b"Segment0_Layer:=4")
    else:
        content = content[:-20]
    path.write_bytes(content)
    with pytest.raises((LabelError, UnreadableFileError), match=r"a\.seg\.nrrd: "):
        read_annotation(path, TEN)
