"""Pictures and TIFF stacks: values as they are, transparency no channel unless it is declared, spacing from where people leave it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from autoseg.data.case import CaseFiles, Volume
from autoseg.data.folders.layouts import open_dataset
from autoseg.data.formats.readers import channels_in, read_pixels
from autoseg.data.reading import read_case, read_labels
from autoseg.data.writing import write_volume
from autoseg.errors import ChannelError, GridError, LabelError, UnreadableFileError
from autoseg.geometry import Grid

GRAY = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 255, (20, 30, 3)).astype(np.uint8)
ALPHA = np.where(GRAY > 100, 255, 0).astype(np.uint8)
STACK = np.random.default_rng(2).integers(0, 900, (5, 20, 30)).astype(np.uint16)


def case_of(path: Path, channels: int):
    return read_case(CaseFiles("a", (path,)), channels, orientation="lps")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".jpg"])
@pytest.mark.parametrize("array", [GRAY, COLOUR], ids=["gray", "colour"])
def test_eight_bit_pictures(tmp_path, ending, array):
    Image.fromarray(array).save(tmp_path / f"a{ending}", **({"quality": 100, "subsampling": 0} if ending == ".jpg" else {}))
    pixels = read_pixels(tmp_path / f"a{ending}")
    expected = np.atleast_3d(array).transpose(2, 0, 1)[:, None]
    assert pixels.grid == Grid((1, 20, 30), planar=True) and pixels.values.shape == expected.shape
    assert np.abs(pixels.values.astype(int) - expected).max() <= (40 if ending == ".jpg" else 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_survive_in_gray_and_in_colour(tmp_path, channels):
    array = np.random.default_rng(3).integers(0, 65535, (20, 30, channels)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(array if channels > 1 else array[..., 0], isVector=channels > 1), str(tmp_path / "a.png"))
    assert np.array_equal(read_pixels(tmp_path / "a.png").values[:, 0], array.transpose(2, 0, 1))


@pytest.mark.parametrize("array, opaque", [(GRAY[..., None], False), (COLOUR, False), (GRAY[..., None], True)])
def test_transparency_is_a_channel_only_where_it_is_declared(tmp_path, array, opaque):
    alpha = np.full_like(ALPHA, 255) if opaque else ALPHA
    Image.fromarray(np.dstack([array, alpha])).save(tmp_path / "a.png")
    colours = array.shape[2]
    case = case_of(tmp_path / "a.png", colours)
    assert np.array_equal(case.image.voxels[:, 0], array.transpose(2, 0, 1))
    assert [n.message for n in case.notices] == ([] if opaque else ["its transparency is left out, which differs between pixels"])
    if not opaque:
        assert np.array_equal(case_of(tmp_path / "a.png", colours + 1).image.voxels[-1, 0], alpha)
    with pytest.raises(ChannelError):
        case_of(tmp_path / "a.png", colours + 2)
    assert channels_in(tmp_path / "a.png") == colours


def test_gray_of_sixteen_bits_with_transparency_is_named(tmp_path):
    Image.fromarray(np.dstack([GRAY, ALPHA])).save(tmp_path / "a.png")
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[24] = 16
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(UnreadableFileError, match="gray of 16 bits with transparency"):
        read_pixels(tmp_path / "a.png")


def test_a_palette_means_indices_in_labels_and_colours_in_images(tmp_path):
    indices = (GRAY // 64).astype(np.uint8)
    picture = Image.frombytes("P", (30, 20), indices.tobytes())
    colours = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
    picture.putpalette(colours + [0] * (768 - len(colours)))
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png", case="a").voxels[0], indices)
    assert np.array_equal(read_pixels(tmp_path / "a.png").values[:, 0], np.array(colours).reshape(4, 3)[indices].transpose(2, 0, 1))


@pytest.mark.parametrize("save", ["colour", "transparent", "bit"])
def test_gray_label_maps_saved_otherwise_are_one_channel(tmp_path, save):
    labels = (GRAY > 100).astype(np.uint8) * (1 if save == "bit" else 200)
    if save == "colour":
        picture = Image.fromarray(np.dstack([labels] * 3))
    else:
        picture = Image.fromarray(labels.astype(bool)) if save == "bit" else Image.fromarray(np.dstack([labels, ALPHA]))
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png", case="a").voxels[0], labels)


def test_a_colour_picture_is_no_label_map(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match="one channel, this has 3"):
        read_labels(tmp_path / "a.png", case="a")


def test_a_huge_picture_is_read_without_a_word(tmp_path, monkeypatch):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    for limit in (500, 100):  # Pillow warns beyond its limit, and refuses beyond twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(read_pixels(tmp_path / "a.png").values[0, 0], GRAY)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated_pictures_are_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    Image.fromarray(COLOUR).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UnreadableFileError):
        read_pixels(path)


@pytest.mark.parametrize("beside", ["a.json", "a_0000.json"])
def test_a_stack_has_the_spacing_of_the_json_beside_it(tmp_path, beside):
    tifffile.imwrite(tmp_path / "a_0000.tif", STACK)
    (tmp_path / beside).write_text('{"spacing": [3.0, 0.5, 0.7]}')
    pixels = read_pixels(tmp_path / "a_0000.tif")
    assert pixels.grid.spacing == (3.0, 0.5, 0.7) and np.array_equal(pixels.values[0], STACK) and pixels.doubts == ()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("slices", [3, 4, 5])
def test_stacks_of_every_type_keep_their_values(tmp_path, dtype, slices):
    stack = (STACK[:3].repeat(2, axis=0)[:slices] - (300 if dtype[0] != "u" else 0)).clip(max=255).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tifffile's own guess at three and four planes
        tifffile.imwrite(tmp_path / "a.tif", stack)
    (tmp_path / "a.json").write_text('{"spacing": [3, 1, 1]}')
    pixels = read_pixels(tmp_path / "a.tif")
    assert pixels.grid.shape == (slices, 20, 30) and np.array_equal(pixels.values[0], stack)


def test_without_any_spacing_a_stack_has_a_millimetre_and_a_warning(tmp_path):
    tifffile.imwrite(tmp_path / "a_0000.tif", STACK)
    pixels = read_pixels(tmp_path / "a_0000.tif")
    assert pixels.grid.spacing == (1, 1, 1)
    assert str(pixels.doubts[0]).endswith('Write {"spacing": [z, y, x]} in mm to a.json beside it')


@pytest.mark.parametrize("content", ["[1, 2, 3]", '{"spacing": [0, 1, 1]}', '{"spacing": [1]}', '{"spacing": "x"}', "{"])
def test_a_json_that_gives_no_spacing(tmp_path, content):
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    (tmp_path / "a.json").write_text(content)
    if isinstance(content, str) and content.startswith("["):
        assert read_pixels(tmp_path / "a.tif").grid.spacing == (1, 1, 1)
        return
    with pytest.raises(GridError, match="gives no spacing"):
        read_pixels(tmp_path / "a.tif")


def test_spacing_that_imagej_or_ome_wrote(tmp_path):
    about = {"spacing": 2.0, "unit": "mm", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(1 / 0.5, 1 / 0.7), metadata=about)
    assert read_pixels(tmp_path / "a.tif").grid.spacing == pytest.approx((2.0, 0.7, 0.5))
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 700, "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2000}
    two = np.stack([STACK, 2 * STACK])
    tifffile.imwrite(tmp_path / "b.ome.tif", two, metadata={"axes": "CZYX", **sizes})
    pixels = read_pixels(tmp_path / "b.ome.tif")
    assert pixels.grid.spacing == pytest.approx((2.0, 0.7, 0.5)) and np.array_equal(pixels.values, two)


def test_a_page_is_planar_and_a_stack_of_colour_is_a_volume(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb")
    assert np.array_equal(read_pixels(tmp_path / "a.tif").values[:, 0], COLOUR.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "b.tif", np.stack([COLOUR] * 4), photometric="rgb")
    assert read_pixels(tmp_path / "b.tif").values.shape == (3, 4, 20, 30)


def test_older_compressions_are_read_too(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert np.array_equal(read_pixels(tmp_path / "a.tif").values[0, 0], GRAY)


def test_times_are_no_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([STACK] * 2), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(UnreadableFileError, match="its axes are TZYX"):
        read_pixels(tmp_path / "a.tif")


def test_a_label_map_that_says_no_place_fits_an_image_of_its_shape(tmp_path):
    grid = Grid((5, 20, 30), (3.0, 0.5, 0.7), (1.0, 2.0, 3.0))
    write_volume(tmp_path / "a.nii.gz", Volume(STACK[None].astype(np.float32), grid))
    tifffile.imwrite(tmp_path / "a.tif", (STACK > 400).astype(np.uint8))
    (tmp_path / "a.json").write_text('{"spacing": [3.0, 0.5, 0.7]}')
    case = read_case(CaseFiles("a", (tmp_path / "a.nii.gz",), tmp_path / "a.tif"), 1, orientation="lps")
    assert np.array_equal(case.labels.voxels, case.image.voxels[0] > 400) and case.labels.grid == case.image.grid
    assert "joined voxel by voxel" in case.notices[0].message
    tifffile.imwrite(tmp_path / "b.tif", (STACK[:4] > 400).astype(np.uint8), photometric="minisblack")
    (tmp_path / "b.json").write_text('{"spacing": [3.0, 0.5, 0.7]}')
    with pytest.raises(GridError, match=r"its shape is \(4, 20, 30\)"):
        read_case(CaseFiles("a", (tmp_path / "a.nii.gz",), tmp_path / "b.tif"), 1, orientation="lps")


def test_channels_of_colour_pictures_are_counted_where_nobody_names_them(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(COLOUR).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray((GRAY > 99).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    assert open_dataset(tmp_path).channels == ("0", "1", "2")


def test_endings_may_differ_from_case_to_case(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}}))
    grid = Grid((5, 20, 30), (3.0, 0.5, 0.7))
    for number, (image, label) in enumerate([(".nii.gz", ".nrrd"), (".mha", ".nii"), (".nrrd", ".mha")]):
        write_volume(tmp_path / "imagesTr" / f"c{number}_0000{image}", Volume(STACK[None].astype(np.float32), grid))
        write_volume(tmp_path / "labelsTr" / f"c{number}{label}", Volume((STACK[None] > 300).astype(np.uint8), grid))
    dataset = open_dataset(tmp_path)
    assert [files.case for files in dataset.cases] == ["c0", "c1", "c2"] and dataset.problems == ()
    for files in dataset.cases:
        case = read_case(files, 1, orientation="lps")
        assert np.array_equal(case.labels.voxels, case.image.voxels[0] > 300)
