"""DICOM files whose values are a function of the point in the patient, so that reading them right can be seen at every voxel."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


def shown(points: np.ndarray) -> np.ndarray:
    """What the scanner sees at LPS points (n, 3): whole numbers, different at neighbouring voxels."""
    return np.rint(1000 + 7 * points[:, 0] + 11 * points[:, 1] - 5 * points[:, 2])


def turned(seed: int = 1, degrees: float = 20) -> np.ndarray:
    """A rotation, columns x, y, z, near the patient's axes."""
    axis = np.random.default_rng(seed).normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def header(uid: str, kind: str):
    """A data set with what every image has."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = kind, uid, ExplicitVRLittleEndian
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = kind, uid
    return file


def fill(file, pixels: np.ndarray) -> None:
    """Pixels, uint16 or int16, and what describes them."""
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape[-2:]
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = np.ascontiguousarray(pixels).tobytes()


def write_series(
    folder: Path,
    *,
    slices: int = 5,
    size: tuple[int, int] = (12, 10),
    spacing: tuple[float, float, float] = (2.0, 0.8, 0.7),
    origin: tuple[float, float, float] = (-20.0, 10.0, 30.0),
    direction: np.ndarray | None = None,
    tilt: float = 0.0,
    series: str = "1.2.3.1",
    study: str = "1.2.3",
    patient: str = "MEIER^ANNA 4711",
    number: int = 1,
    description: str = "portal venous",
    modality: str = "MR",
    add: float = 0.0,
    rescale: Callable[[int], tuple[float, float]] | None = None,
    change: Callable[[int, object], None] | None = None,
    names: str = "{0:08X}",
) -> list[Path]:
    """Write one image as single files, and return them from the foot up."""
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.eye(3) if direction is None else direction
    step = direction[:, 2] * spacing[0] + direction[:, 1] * spacing[0] * np.tan(np.radians(tilt))
    rng = np.random.default_rng(zlib.crc32(f"{series}/{number}".encode()))
    written = []
    for index in range(slices):
        y, x = np.indices(size).reshape(2, -1)
        place = np.array(origin) + index * step
        points = place + x[:, None] * direction[:, 0] * spacing[2] + y[:, None] * direction[:, 1] * spacing[1]
        slope, shift = rescale(index) if rescale else (1.0, 0.0)
        pixels = np.rint((shown(points) + add - shift) / slope).astype(np.int16).reshape(size)
        file = header(f"{series}.{number}.{index + 1}", CT if modality == "CT" else MR)
        fill(file, pixels)
        file.PatientID, file.PatientName, file.StudyInstanceUID, file.SeriesInstanceUID = patient, patient, study, series
        file.SeriesNumber, file.SeriesDescription, file.Modality, file.InstanceNumber = number, description, modality, index + 1
        file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        file.PixelSpacing, file.SliceThickness = [spacing[1], spacing[2]], 9.0
        file.ImagePositionPatient = [f"{v:.8g}"[:16] for v in place]
        file.ImageOrientationPatient = [f"{v:.8f}"[:16] for v in (*direction[:, 0], *direction[:, 1])]
        if rescale or modality == "CT":
            file.RescaleSlope, file.RescaleIntercept = f"{slope:.10g}", f"{shift:.10g}"
        if change:
            change(index, file)
        path = folder / names.format(int(rng.integers(2**31)), index)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def write_enhanced(
    path: Path, *, slices: int = 4, echoes: tuple[float, ...] = (4.6, 9.2), size: tuple[int, int] = (12, 10), rescale=True
) -> Path:
    """Write one multi-frame file: `slices` planes an echo, frames in a scrambled order, each with its own rescale."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def one(**values) -> Sequence:
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return Sequence([item])

    direction, spacing, origin = turned(), (2.0, 0.8, 0.7), np.array([-20.0, 10.0, 30.0])
    frames, pixels = [], []
    for echo_number, echo in enumerate(echoes):
        for index in range(slices):
            y, x = np.indices(size).reshape(2, -1)
            place = origin + index * direction[:, 2] * spacing[0]
            points = place + x[:, None] * direction[:, 0] * spacing[2] + y[:, None] * direction[:, 1] * spacing[1]
            slope, shift = (0.5, 10.0 * index) if rescale else (1.0, 0.0)
            pixels.append(np.rint((shown(points) + 100 * echo_number - shift) / slope).astype(np.uint16).reshape(size))
            frame = Dataset()
            frame.PlanePositionSequence = one(ImagePositionPatient=[f"{v:.8g}"[:16] for v in place])
            frame.PixelValueTransformationSequence = one(RescaleSlope=str(slope), RescaleIntercept=str(shift), RescaleType="US")
            frame.MREchoSequence = one(EffectiveEchoTime=echo)
            frames.append(frame)
    order = np.random.default_rng(0).permutation(len(frames))
    file = header("1.2.9.1", ENHANCED_MR)
    fill(file, np.stack([pixels[i] for i in order]))
    file.NumberOfFrames = len(frames)
    file.PatientID, file.StudyInstanceUID, file.SeriesInstanceUID, file.Modality = "P", "1.2.9", "1.2.9.9", "MR"
    file.SeriesNumber, file.SeriesDescription = 7, "dixon"
    shared = Dataset()
    shared.PlaneOrientationSequence = one(ImageOrientationPatient=[f"{v:.8f}"[:16] for v in (*direction[:, 0], *direction[:, 1])])
    shared.PixelMeasuresSequence = one(PixelSpacing=[spacing[1], spacing[2]], SliceThickness=9.0)
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    file.PerFrameFunctionalGroupsSequence = Sequence([frames[i] for i in order])
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def write_report(path: Path) -> None:
    """Write a DICOM file without image, as exports hold them."""
    file = header("1.2.8", REPORT)
    file.PatientID, file.StudyInstanceUID, file.SeriesInstanceUID, file.Modality = "P", "1.2.3", "1.2.3.88", "SR"
    file.save_as(path, enforce_file_format=True)
