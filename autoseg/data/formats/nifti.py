"""NIfTI files in and out.

Written against the header that nibabel decodes, with our own judgement of it: readers that succeed are not trusted here, since
SimpleITK reads a truncated .nii.gz without an error, turns NaN into 0, and leaves half a file on a full disk.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from autoseg.data.formats.pixels import Pixels
from autoseg.data.formats.placing import NEAR_VOXELS, millimetres, place
from autoseg.errors import AutosegError, GridError, UnreadableFileError
from autoseg.geometry import Grid, Triple

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
SAME_SCALE = 1e-4  # sform and pixdim that agree so well differ by rounding: pixdim is the rounder number
CONTRADICTING_SCALE = 1e-2
MILLIMETRES_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
COPY_AGAIN = "Copy or export it again"


def read_nifti(path: Path) -> Pixels:
    """A .nii or .nii.gz file, 2D to 4D; the one axis beyond the third is channels.

    Raises:
        UnreadableFileError: not NIfTI, truncated, damaged, or of a data type that is no intensity or label.
        GridError: zero or negative pixdim, a geometry that is none.
    """
    raw = _content(path)
    header = _header(raw, path)
    sizes = _sizes(header, path)
    dtype = _data_type(header, path)
    start, needed = int(header["vox_offset"]), int(np.prod(sizes)) * dtype.itemsize
    if not header.sizeof_hdr <= start <= len(raw) - needed:
        raise UnreadableFileError(
            f"it is truncated: {max(len(raw) - start, 0)} of {needed} bytes of voxels are there", file=path, remedy=COPY_AGAIN
        )
    planar = len(sizes) == 2
    four = (*sizes, 1, 1)[:4] if len(sizes) < 4 else (*sizes[:3], int(np.prod(sizes[3:])))
    values = np.ndarray(four, dtype, buffer=raw, offset=start, order="F").T
    grid, doubts = _grid(header, values.shape[1:], planar, path)
    return Pixels(_rescaled(values, header), grid, doubts)


def voxels_in_header(path: Path) -> int | None:
    """How many values a .nii or .nii.gz file says it holds, all channels; only its beginning is read. None where it does not tell."""
    try:
        with path.open("rb") as handle:
            raw = handle.read(1 << 14)
        if raw.startswith(b"\x1f\x8b"):
            raw = zlib.decompressobj(wbits=31).decompress(raw, 540)
        return int(np.prod(_sizes(_header(raw, path), path)))
    except (OSError, zlib.error, UnreadableFileError):  # whoever reads it whole says what is wrong
        return None


def write_nifti(path: Path, values: np.ndarray, grid: Grid) -> None:
    """A NIfTI file of (z, y, x) or (channel, z, y, x) values, two-dimensional where the grid is planar; OSError on a full disk."""
    nibabel = lean_nibabel()
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ grid.axes[:, ::-1]
    affine[:3, 3] = RAS_TO_LPS @ np.array(grid.origin)
    image = nibabel.Nifti1Image(values[0].T if grid.planar and values.ndim == 3 else values.T, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(None if grid.sheared else affine, code=0 if grid.sheared else 1)  # a qform knows no shear
    image.to_filename(path)


def lean_nibabel() -> ModuleType:
    """The module, imported as if pydicom were not installed: it would load that for header extensions which nobody here reads, and so
    take three times as long."""
    if "nibabel" not in sys.modules and "pydicom" not in sys.modules:
        sys.modules["pydicom"] = None
        try:
            import nibabel
        finally:
            del sys.modules["pydicom"]
    import nibabel

    return nibabel


def _content(path: Path) -> bytes | bytearray:
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    parts = []
    while data.startswith(b"\x1f\x8b"):  # a gzip file may consist of several members
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data))
        except zlib.error as error:
            raise UnreadableFileError(f"its compressed data are damaged ({error})", file=path, remedy=COPY_AGAIN) from error
        if not member.eof:
            raise UnreadableFileError("it is truncated: the compressed data end too early", file=path, remedy=COPY_AGAIN)
        data = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _header(raw: bytes, path: Path):
    nibabel, sizes = lean_nibabel(), {int.from_bytes(raw[:4], order) for order in ("little", "big")}
    for size, kind, magic in ((348, nibabel.Nifti1Header, b"n+1\0"), (540, nibabel.Nifti2Header, b"n+2\0")):
        place = slice(344, 348) if size == 348 else slice(4, 8)
        if size in sizes and len(raw) >= size and raw[place] == magic:
            return kind(raw[:size], check=False)
    text = raw[:200].isascii() and raw[:200].decode("ascii").replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()
    about = "it holds plain text" if text else "no NIfTI header is in it"
    raise UnreadableFileError(f"it is not a NIfTI file ({about})", file=path, remedy="Give it the ending of its format, or export it again")


def _sizes(header, path: Path) -> tuple[int, ...]:
    """Sizes in x, y(, z(, channels)), trailing axes of length 1 left out."""
    count = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : count + 1]]
    if not 2 <= count <= 7 or min(sizes) < 1:
        raise UnreadableFileError(f"its header gives it the size {sizes}", file=path, remedy=COPY_AGAIN)
    if sum(n > 1 for n in sizes[3:]) > 1:
        raise UnreadableFileError(f"it has more axes than space and channels: {sizes}", file=path, remedy="Store one image a file")
    return tuple(sizes[:3]) + tuple(n for n in sizes[3:] if n > 1)


def _data_type(header, path: Path) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except lean_nibabel().spatialimages.HeaderDataError as error:
        raise UnreadableFileError(f"its data type is unknown ({error})", file=path, remedy="Export it as integers or floats") from error
    if dtype.kind not in "uif":
        raise UnreadableFileError(
            f"its voxels are {dtype}, neither integers nor floats", file=path, remedy="Export it as integers or floats"
        )
    return dtype


def _rescaled(values: np.ndarray, header) -> np.ndarray:
    slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite([slope, shift]).all() or slope == 0 or (slope, shift) == (1, 0):
        return values
    out = np.empty(values.shape, np.float32)
    for index in np.ndindex(values.shape[:2]):  # a slice at a time: exact in double precision, without a double volume
        out[index] = values[index].astype(np.float64) * slope + shift
    return out


def _grid(header, shape: Triple, planar: bool, path: Path) -> tuple[Grid, tuple[AutosegError, ...]]:
    """The sform holds where its code says so, then the qform, then pixdim; with `_sform_steps` for contradictions."""
    scale = MILLIMETRES_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    spacing = header["pixdim"][1:4].astype(float)
    if planar and not spacing[2] > 0:
        header["pixdim"][3] = spacing[2] = 1.0
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GridError(f"its spacing (z, y, x) is {millimetres(spacing[::-1])}", file=path, remedy="Correct pixdim in the header")
    sform, qform = header.get_sform(coded=True)[0], _qform(header, path)
    doubts: list[AutosegError] = []
    if sform is not None:
        steps, doubts = _sform_steps(sform[:3, :3].copy(), spacing, qform is None, planar, path)
        origin = sform[:3, 3]
    elif qform is not None:
        steps, origin = qform[:3, :3], qform[:3, 3]
    else:
        steps, origin = np.diag(spacing), np.zeros(3)
        doubts.append(
            GridError(
                "its header gives no orientation (sform and qform code 0): its axes are taken to run to the right, front and head",
                file=path,
                remedy="Check left and right in a viewer",
            )
        )
    grid, sheared = place(RAS_TO_LPS @ steps * scale, RAS_TO_LPS @ origin * scale, shape, planar=planar, file=path)
    if sform is not None and qform is not None:
        other, _ = place(RAS_TO_LPS @ qform[:3, :3] * scale, RAS_TO_LPS @ qform[:3, 3] * scale, shape, planar=planar, file=path)
        apart = grid.distance(other)
        if apart > NEAR_VOXELS:
            doubts.append(
                GridError(
                    f"its sform and qform place it {apart:.1f} voxels apart; the sform holds",
                    file=path,
                    remedy="Check that other programs used with these files read it alike",
                )
            )
    return grid, (*doubts, *sheared)


def _qform(header, path: Path) -> np.ndarray | None:
    if int(header["qform_code"]) <= 0:
        return None
    if header["pixdim"][0] not in (-1, 1):  # the standard: anything else counts as 1
        header["pixdim"][0] = 1
    try:
        return header.get_qform()
    except ValueError as error:
        raise GridError(f"its qform is no rotation ({error})", file=path, remedy="Correct the header") from error


def _sform_steps(steps: np.ndarray, spacing: np.ndarray, alone: bool, planar: bool, path: Path) -> tuple[np.ndarray, list[AutosegError]]:
    """The sform's voxel steps (columns x, y, z), brought to pixdim's length where the two contradict and no qform decides.

    A unit-length sform beside a real pixdim is a direction without its spacing (seen in ACDC); a pixdim of ones beside a
    real sform is a header never filled in.
    """
    if planar and not steps[:, 2].any():
        across = np.cross(steps[:, 0], steps[:, 1])
        steps[:, 2] = across / max(float(np.linalg.norm(across)), 1e-12) * spacing[2]
    norms = np.linalg.norm(steps, axis=0)
    if not (norms > 0).all():
        raise GridError("its sform has an axis of length 0", file=path, remedy="Correct the header")
    off = float(np.abs(norms / spacing - 1).max())
    if off <= SAME_SCALE:
        return steps / norms * spacing, []
    if off <= CONTRADICTING_SCALE or not alone:
        return steps, []
    filled_in = not np.allclose(spacing, 1)
    winner = "pixdim" if filled_in else "the sform"
    doubt = GridError(
        f"its sform says {millimetres(norms[::-1])} (z, y, x), its pixdim {millimetres(spacing[::-1])}; {winner} holds",
        file=path,
        remedy="Correct the header if that is wrong",
    )
    return (steps / norms * spacing if filled_in else steps), [doubt]
