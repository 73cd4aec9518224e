"""What a NIfTI header may say, and what of it holds."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from autoseg.data.formats.nifti import read_nifti
from autoseg.data.formats.readers import read_pixels
from autoseg.errors import GridError, UnreadableFileError

SHAPE = (4, 5, 6)  # x, y, z


def nifti(path, values=None, affine=None, *, sform=1, qform=1, **header):
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if values is None else values
    affine = np.diag([0.5, 0.7, 2.0, 1.0]) if affine is None else affine
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, sform)
    if qform:
        image.set_qform(affine, qform)
    else:
        image.header["qform_code"] = 0
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)
    return path


def test_values_and_points_agree_with_nibabel(tmp_path):
    turn = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [0.5, -0.7, 2.0], [10, -20, 30]
    path = nifti(tmp_path / "a.nii.gz", affine=affine)
    pixels = read_nifti(path)
    image = nibabel.load(path)
    for index in np.ndindex(SHAPE):
        assert pixels.values[0][index[::-1]] == image.dataobj[index]
    ijk = np.array(list(np.ndindex(SHAPE)))
    ras = nibabel.affines.apply_affine(image.affine, ijk)
    assert np.allclose(pixels.grid.points(ijk[:, ::-1]), ras * [-1, -1, 1], atol=1e-4)
    assert pixels.doubts == ()


def test_without_codes_pixdim_runs_right_front_head_and_says_so(tmp_path):
    pixels = read_nifti(nifti(tmp_path / "a.nii", sform=0, qform=0))
    assert pixels.grid.direction == (-1, 0, 0, 0, -1, 0, 0, 0, 1) and pixels.grid.spacing == pytest.approx((2.0, 0.7, 0.5))
    assert "no orientation" in pixels.doubts[0].message


def test_sform_of_unit_scale_yields_to_pixdim(tmp_path):
    path = nifti(tmp_path / "a.nii", affine=np.diag([-1.0, -1.0, 1.0, 1.0]), qform=0, pixdim=[1, 1.5, 1.5, 10, 1, 1, 1, 1])
    pixels = read_nifti(path)
    assert pixels.grid.spacing == (10.0, 1.5, 1.5) and "pixdim holds" in pixels.doubts[0].message


def test_pixdim_never_filled_in_yields_to_sform(tmp_path):
    pixels = read_nifti(nifti(tmp_path / "a.nii", qform=0, pixdim=[1, 1, 1, 1, 1, 1, 1, 1]))
    assert pixels.grid.spacing == pytest.approx((2.0, 0.7, 0.5)) and "the sform holds" in pixels.doubts[0].message


@pytest.mark.parametrize("degrees, outcome", [(0.001, "silent"), (0.9, "warned"), (1.8, "sheared"), (50, "refused")])
def test_shear_is_mended_where_that_moves_no_corner_by_half_a_voxel(tmp_path, degrees, outcome):
    affine = np.eye(4)
    affine[0, 1] = np.tan(np.radians(degrees))
    path = nifti(tmp_path / "a.nii", np.zeros((40, 40, 4), np.uint8), affine, qform=0)
    if outcome == "refused":
        with pytest.raises(GridError, match=r"50\.0 degrees from perpendicular; more than 45"):
            read_nifti(path)
        return
    pixels = read_nifti(path)
    direction = np.array(pixels.grid.direction).reshape(3, 3)
    moved = np.linalg.norm(pixels.grid.corners() - _corners(affine, pixels.grid.shape), axis=1).max()
    assert pixels.grid.sheared == (outcome == "sheared") and moved < (1e-5 if outcome == "sheared" else 0.5)
    if outcome != "sheared":
        assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-4)
    assert len(pixels.doubts) == (outcome != "silent")


def _corners(affine, shape):
    """LPS points of the corner voxels, by the header's own matrix."""
    indices = np.array([[x, y, z] for z in (0, shape[0] - 1) for y in (0, shape[1] - 1) for x in (0, shape[2] - 1)], float)
    return (indices @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1)


@pytest.mark.parametrize("pixdim", [[1, 0.5, 0, 2], [1, 0.5, -0.7, 2], [1, 0.5, np.nan, 2]])
def test_impossible_spacing_is_refused(tmp_path, pixdim):
    with pytest.raises(GridError, match="spacing"):
        read_nifti(nifti(tmp_path / "a.nii", pixdim=[*pixdim, 1, 1, 1, 1]))


def test_scale_slope_is_applied(tmp_path):
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    path = nifti(tmp_path / "a.nii", values)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.25, -100], "<f4").tobytes()
    path.write_bytes(raw)
    pixels = read_nifti(path)
    assert pixels.values.dtype == np.float32 and np.array_equal(pixels.values[0], values.T * 0.25 - 100)


def test_metres_become_millimetres(tmp_path):
    pixels = read_nifti(nifti(tmp_path / "a.nii", affine=np.diag([5e-4, 7e-4, 2e-3, 1.0]), xyzt_units=1))
    assert pixels.grid.spacing == pytest.approx((2.0, 0.7, 0.5))


@pytest.mark.parametrize(
    "shape, expected, planar",
    [
        ((4, 5), (1, 1, 5, 4), True),
        ((4, 5, 1), (1, 1, 5, 4), False),
        ((4, 5, 6, 1), (1, 6, 5, 4), False),
        ((4, 5, 6, 3), (3, 6, 5, 4), False),
        ((4, 5, 6, 1, 3), (3, 6, 5, 4), False),
    ],
)
def test_axes_beyond_space_are_channels(tmp_path, shape, expected, planar):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    pixels = read_nifti(nifti(tmp_path / "a.nii.gz", values))
    assert pixels.values.shape == expected and pixels.grid.planar == planar
    flat = values.reshape((*(*shape, 1, 1)[:3], -1)) if len(shape) > 2 else values[..., None, None]
    assert np.array_equal(pixels.values, flat.T)


def test_two_axes_of_channels_are_refused(tmp_path):
    with pytest.raises(UnreadableFileError, match="more axes"):
        read_nifti(nifti(tmp_path / "a.nii", np.zeros((2, 2, 2, 3, 3), np.uint8)))


def test_big_endian_and_nifti_2_are_read(tmp_path):
    values = np.arange(np.prod(SHAPE), dtype=">i4").reshape(SHAPE)
    big = nibabel.Nifti1Image(values, np.eye(4), nibabel.Nifti1Header(endianness=">"))
    big.to_filename(tmp_path / "big.nii")
    nibabel.Nifti2Image(values.astype("<i4"), np.eye(4)).to_filename(tmp_path / "two.nii")
    for name in ("big.nii", "two.nii"):
        assert np.array_equal(read_nifti(tmp_path / name).values[0], values.T)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named_wherever_it_ends(tmp_path, keep):
    rng = np.random.default_rng(0)
    for name in ("a.nii", "a.nii.gz"):
        path = nifti(tmp_path / name, rng.integers(0, 99, (20, 20, 20)).astype(np.int16))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(UnreadableFileError, match=r"truncated"):
            read_pixels(path)


def test_a_flipped_bit_in_compressed_data_is_named(tmp_path):
    path = nifti(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # the checksum at the end
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match="damaged"):
        read_pixels(path)


def test_the_content_decides_about_compression_not_the_ending(tmp_path):
    plain = nifti(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        assert np.array_equal(read_pixels(tmp_path / name).values, read_pixels(plain).values)


def test_complex_and_colour_voxels_are_refused(tmp_path):
    with pytest.raises(UnreadableFileError, match="complex64"):
        read_nifti(nifti(tmp_path / "c.nii", np.zeros(SHAPE, np.complex64)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"gone.nii: there is no such file"):
        read_pixels(tmp_path / "gone.nii")
