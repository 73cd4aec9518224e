"""TIFF in and out through tifffile: one page, or a stack of pages that is a volume, with its spacing where people leave it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.formats.pixels import Pixels
from autoseg.data.formats.placing import place
from autoseg.data.names import split_channel, split_ending
from autoseg.errors import AutosegError, GridError, UnreadableFileError
from autoseg.geometry import Grid

_MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "\\u00b5m": 1e-3, "micron": 1e-3, "nm": 1e-6}
_CHANNELS, _SLICES = "CS", "ZIQ"  # tifffile's letters: channels and samples; slices, pages of an image sequence, and what is not said


def read_tiff(path: Path) -> Pixels:
    """A page (planar), or a stack of them as slices, with channels where the file names such an axis.

    Spacing of a stack: `{"spacing": [z, y, x]}` in a .json of the file's or the case's name (the peer's form), else what ImageJ or OME
    wrote into the file, else 1 mm with a warning. A page has 1 mm unless there is a .json: dots per inch are no anatomy.

    Raises:
        UnreadableFileError: damaged, truncated, a compression that needs imagecodecs, or axes that are neither space nor channels.
        GridError: a spacing that cannot be right.
    """
    beside = _json_beside(path)
    spacing = _spacing_of(beside) if beside else None
    values, axes, own = _content(path)
    if values.ndim == 3 and axes in ("SYX", "CYX") and spacing and len(spacing) == 3:
        axes = "ZYX"  # writers take three or four slices for colours; who gives a distance of slices has slices
    axes, values = _without_ones(axes, values)
    slices = "".join(a for a in axes if a in _SLICES)
    channels = "".join(a for a in axes if a in _CHANNELS)
    if len(slices) > 1 or len(channels) > 1 or set(axes) - set("YX" + slices + channels) or "Y" not in axes or "X" not in axes:
        raise UnreadableFileError(
            f"its axes are {axes} of {values.shape}, not slices and channels", file=path, remedy="Store one volume a file, slice by slice"
        )
    values = values.transpose([axes.index(a) for a in channels + slices + "YX"])
    values = values.reshape((values.shape[0] if channels else 1, values.shape[len(channels)] if slices else 1, *values.shape[-2:]))
    doubts: tuple[AutosegError, ...] = ()
    if not spacing and slices:
        spacing = own
        if not spacing:
            doubts = (
                GridError(
                    "its slices are taken to be 1 mm apart, and its pixels 1 mm wide: nothing says their spacing",
                    file=path,
                    remedy=f'Write {{"spacing": [z, y, x]}} in mm to {spacing_files(path)[-1].name} beside it',
                ),
            )
    spacing = (1.0, *spacing)[-3:] if spacing else (1.0, 1.0, 1.0)
    grid, sheared = place(np.diag(spacing[::-1]), np.zeros(3), values.shape[1:], planar=not slices, file=path)
    return Pixels(values, grid, (*doubts, *sheared), placed=False, alpha="S" in channels and len(values) in (2, 4))


def write_tiff(path: Path, values: np.ndarray) -> None:
    """A stack (z, y, x), compressed; its spacing goes to a .json beside it (`spacing_text`)."""
    import tifffile

    tifffile.imwrite(path, values, compression="zlib", photometric="minisblack", metadata={"axes": "ZYX"})


def spacing_text(grid: Grid) -> str:
    """The .json of a stack: the peer's form, which programs that know it read."""
    return json.dumps({"spacing": list(grid.spacing)}) + "\n"


def _content(path: Path) -> tuple[np.ndarray, str, tuple[float, ...] | None]:
    """The first image series: its array, tifffile's letters of its axes, and the spacing (z, y, x) that it brings."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            own = _imagej_spacing(file) or _ome_spacing(file)
            short = any(
                o + n > file.filehandle.size for page in file.pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)
            )
            if short:
                raise ValueError("its pixels end too early")
            try:
                return series.asarray(), series.axes, own
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                pages, axes = _through_pillow(path), series.axes
                return pages.reshape(series.shape), axes, own
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, TypeError) as error:
        hint = "Run pip install imagecodecs, or save it uncompressed" if "imagecodecs" in str(error) else "Copy or export it again"
        raise UnreadableFileError(f"it cannot be read as TIFF ({error})", file=path, remedy=hint) from error


def _through_pillow(path: Path) -> np.ndarray:
    """All pages; Pillow knows the older compressions that tifffile leaves to imagecodecs."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        return np.stack([np.array(page) for page in ImageSequence.Iterator(image)])


def _without_ones(axes: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """Without axes of length 1 beside Y and X."""
    kept = [i for i, letter in enumerate(axes) if letter in "YX" or values.shape[i] > 1]
    return "".join(axes[i] for i in kept), values.reshape([values.shape[i] for i in kept])


def spacing_files(path: Path) -> list[Path]:
    """Where a stack's spacing may stand beside it: in a .json of the file's name, or of its case's."""
    stem = split_ending(path.name)[0]
    channel = split_channel(stem)
    return [path.with_name(f"{name}.json") for name in (stem, *((channel[0],) if channel else ()))]


def _json_beside(path: Path) -> Path | None:
    return next((file for file in spacing_files(path) if file.is_file()), None)


def _spacing_of(file: Path) -> tuple[float, ...] | None:
    """`spacing` of a .json, (z, y, x) or (y, x); None if it has no such key.

    Raises:
        GridError: it is no JSON, or the spacing has another form.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict) or "spacing" not in content:
            return None
        spacing = tuple(float(value) for value in content["spacing"])
        if len(spacing) not in (2, 3) or not all(0 < value < float("inf") for value in spacing):
            raise ValueError(f"spacing {content['spacing']}")
    except (OSError, TypeError, ValueError) as error:
        raise GridError(f"it gives no spacing ({error})", file=file, remedy='Write {"spacing": [z, y, x]} in mm') from error
    return spacing


def _imagej_spacing(file) -> tuple[float, float, float] | None:
    """What ImageJ wrote: the distance of slices in its description, pixels in the resolution tags; None without a unit of length."""
    about = file.imagej_metadata or {}
    unit = _MILLIMETRES.get(str(about.get("unit", "")))
    tags = file.pages[0].tags
    if unit is None or "spacing" not in about or "XResolution" not in tags or "YResolution" not in tags:
        return None
    across, down = (tags[name].value for name in ("XResolution", "YResolution"))
    sizes = (float(about["spacing"]), down[1] / down[0] if down[0] else 0.0, across[1] / across[0] if across[0] else 0.0)
    return tuple(size * unit for size in sizes) if all(size > 0 for size in sizes) else None


def _ome_spacing(file) -> tuple[float, float, float] | None:
    """PhysicalSizeZ, Y and X of an OME description; micrometres unless it says otherwise."""
    import tifffile

    if not file.is_ome:
        return None
    try:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
        return tuple(float(pixels[f"PhysicalSize{a}"]) * _MILLIMETRES[str(pixels.get(f"PhysicalSize{a}Unit", "um"))] for a in "ZYX")
    except (KeyError, TypeError, ValueError):
        return None
