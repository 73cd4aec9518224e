"""Files to a checked case: everything that can be wrong with one case is found here and named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.data.case import Case, CaseFiles, LabelMap, Volume
from autoseg.data.formats import read_pixels
from autoseg.data.labels import smallest_unsigned
from autoseg.data.pixels import Pixels
from autoseg.data.placing import match, orientation_for
from autoseg.data.shearing import straight_image, straight_labels
from autoseg.errors import AutosegError, ChannelError, GridError, IntensityError, LabelError, Problem
from autoseg.geometry import Grid, Orientation

INTEGER_TOLERANCE = 1e-3


def read_case(files: CaseFiles, channels: int, *, orientation: Literal["lps", "as_stored"]) -> Case:
    """One case, checked, in the dataset's orientation; labels in file values.

    Args:
        files: where it lies: one file a channel, or one file or folder with all channels.
        channels: how many channels it must have.
        orientation: `lps` brings the axes to LPS, `as_stored` leaves them as the first image file has them.

    Raises:
        UnreadableFileError, GridError, ChannelError, LabelError, IntensityError, DatasetError: each names case, file, cause, remedy.
    """
    try:
        return _read_case(files, channels, orientation)
    except AutosegError as error:
        raise _named(error, files) from error


def read_labels(path: Path, *, case: str) -> LabelMap:
    """A label map in its stored orientation, in the smallest unsigned type.

    Raises:
        UnreadableFileError, GridError: as for images.
        LabelError: negative or non-integer values, or several channels.
    """
    try:
        return _label_map(path)[0]
    except AutosegError as error:
        raise error.in_case(case) from error


def content_key(voxels_lps: np.ndarray) -> str:
    """A key of the image itself: equal for the same voxels in any file format and any stored axis order.

    Args:
        voxels_lps: (channel, z, y, x) in LPS axis order; hashed as float32 in C order, with the shape.
    """
    hasher = hashlib.blake2b(repr(tuple(int(n) for n in voxels_lps.shape)).encode(), digest_size=16)
    for channel in voxels_lps:
        for row in channel:
            hasher.update(np.ascontiguousarray(row, dtype="<f4"))
    return hasher.hexdigest()


def as_read(image: np.ndarray, stored: Grid, orientation: Orientation) -> np.ndarray:
    """An array (..., z, y, x) of intensities as a file stores it, straight and in the dataset's orientation; a view where it can be."""
    return orientation.apply(straight_image(image, stored) if stored.sheared else image)


def case_of_array(name: str, image: np.ndarray, stored: Grid, *, orientation: Literal["lps", "as_stored"]) -> Case:
    """A case without label map from an array (channel, z, y, x) in memory, as `read_case` would give it from a file."""
    change = orientation_for(stored.straight(), orientation)
    voxels = np.ascontiguousarray(as_read(image, stored, change), dtype=np.float32)
    key = content_key(orientation_for(stored, "lps").apply(image))
    return Case(name, Volume(voxels, stored.straight().oriented(change)), None, stored, change, key)


def _read_case(files: CaseFiles, channels: int, wanted: str) -> Case:
    # one file at a time: a channel's raw values are let go before the next file is read
    pixels = read_pixels(files.images[0], files.choice(0))
    stored, first_placed = pixels.grid, pixels.placed
    change = orientation_for(stored.straight(), wanted)
    grid = stored.straight().oriented(change)
    voxels = np.empty((channels, *grid.shape), np.float32)
    slanted: list[np.ndarray] = []
    notices: list[AutosegError] = []
    for number, path in enumerate(files.images):
        if number:
            pixels = read_pixels(path, files.choice(number))
        values, said = _channels_wanted(pixels, channels, files.images, number)
        onto_first = Orientation()
        if number:
            onto_first, near = _fit(stored, first_placed, pixels, what=files.images[0].name, file=path)
            said += near
        notices += [*pixels.doubts, *said]
        slanted += _fill(voxels[number : number + len(values)], onto_first.apply(values), stored, change, path)
        del pixels, values
    labels = None
    if files.label is not None:
        found, placed, doubts = _label_map(files.label)
        itself = Pixels(found.voxels[None], found.grid, placed=placed)
        onto_image, near = _fit(stored, first_placed, itself, what="the image", file=files.label)
        upright = onto_image.apply(found.voxels)
        labels = LabelMap(np.ascontiguousarray(change.apply(straight_labels(upright, stored) if stored.sheared else upright)), grid)
        notices += [*doubts, *near]
    shown, lying = (np.stack(slanted), stored) if stored.sheared else (voxels, grid)
    key = content_key(orientation_for(lying, "lps").apply(shown))
    said = tuple(Problem.of(_named(notice, files), "warning") for notice in notices)
    return Case(files.case, Volume(voxels, grid), labels, stored, change, key, said)


def _named(error: AutosegError, files: CaseFiles) -> AutosegError:
    """The error, named for its case; without its file where names of files may tell who the patient is."""
    named = error.in_case(files.case)
    return type(named)(named.message, case=named.case, remedy=named.remedy) if files.private else named


def _channels_wanted(pixels: Pixels, channels: int, paths: Sequence[Path], number: int) -> tuple[np.ndarray, list[AutosegError]]:
    """The channels of a file that the case is to have; transparency is one only where it makes up the number (as in the peer)."""
    values, path, expected = pixels.values, paths[number], channels if len(paths) == 1 else 1
    said: list[AutosegError] = []
    if pixels.alpha and len(values) == expected + 1:
        if values[-1].min() != values[-1].max():
            said.append(
                ChannelError(
                    "its transparency is left out, which differs between pixels",
                    file=path,
                    remedy=f"Declare {expected + 1} channels if it holds image information",
                )
            )
        values = values[:-1]
    if len(paths) == 1 and len(values) != expected:
        raise ChannelError(
            f"it has {_count(len(values))}, {expected} expected",
            file=path,
            remedy="Give one file a channel (CASE_0000, CASE_0001, ...) or one file with all channels",
        )
    if len(paths) > 1 and len(paths) != channels:
        raise ChannelError(f"it has {len(paths)} channel files, {channels} expected", remedy="Add or remove channel files")
    if len(values) != expected:
        raise ChannelError(f"a channel file has {_count(len(values))}, 1 expected", file=path, remedy="Give one image a file")
    return values, said


def _count(channels: int) -> str:
    return f"{channels} channel" + ("" if channels == 1 else "s")


def _fit(stored: Grid, placed: bool, pixels: Pixels, *, what: str, file: Path) -> tuple[Orientation, list[AutosegError]]:
    """How a channel's or label map's array comes to lie on the first image's grid; what says no place fits any grid of its shape."""
    if placed and pixels.placed:
        change, near = match(stored, pixels.grid, what=what, file=file)
        return change, list(near)
    if pixels.grid.shape != stored.shape:
        raise GridError(
            f"its shape is {pixels.grid.shape} (z, y, x), that of {what} is {stored.shape}", file=file, remedy="Pair the right files"
        )
    if placed == pixels.placed:
        return Orientation(), []
    message = f"only one of it and {what} says where it lies in the patient: they are joined voxel by voxel as stored"
    return Orientation(), [GridError(message, file=file, remedy="Look at one case in a viewer")]


def _fill(out: np.ndarray, values: np.ndarray, stored: Grid, change: Orientation, path: Path) -> list[np.ndarray]:
    """Writes a file's channels as float32, straight and oriented, once each has shown itself to be an image.

    Returns:
        The channels as stored, where they are sheared: their content key cannot come from `out`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if not stored.sheared:
            out[...] = change.apply(values)
            _require_image(out, path)
            return []
        kept = np.array(values, np.float32)
    _require_image(kept, path)
    out[...] = as_read(kept, stored, change)
    return list(kept)


def _require_image(channels: np.ndarray, path: Path) -> None:
    """Raises IntensityError for a channel with NaN or infinity, or without contrast; minimum and maximum are enough to find either."""
    for number, channel in enumerate(channels):
        low, high = channel.min(), channel.max()
        where = f"channel {number}: " if len(channels) > 1 else ""
        if not np.isfinite(low) or not np.isfinite(high):
            nan, infinite = int(np.isnan(channel).sum()), int(np.isinf(channel).sum())
            raise IntensityError(
                f"{where}{nan} NaN and {infinite} infinite values among {channel.size} voxels",
                file=path,
                remedy="Replace them by a value that means background, or leave the case out",
            )
        if low == high:
            raise IntensityError(
                f"{where}every voxel is {low:g}", file=path, remedy="Check the export; leave the case out if it holds no image"
            )


def _label_map(path: Path) -> tuple[LabelMap, bool, tuple[AutosegError, ...]]:
    """The label map, whether the file says where it lies, and what the user should know."""
    pixels = _one_plane(read_pixels(path, labels=True))
    if len(pixels.values) != 1:
        raise LabelError(
            f"a label map has one channel, this has {len(pixels.values)}",
            file=path,
            remedy="Store one integer a voxel, not one channel a label",
        )
    values = pixels.values[0]
    doubts = list(pixels.doubts)
    if values.dtype.kind == "f":
        values = _integers(values, path)
        stored_as = pixels.values.dtype.name
        doubts.append(LabelError(f"its labels are stored as {stored_as}; rounded to integers", file=path, remedy="Nothing need be done"))
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise LabelError(
            f"{int((values < 0).sum())} voxels have negative labels, down to {low}",
            file=path,
            remedy="Use 0 for background and positive labels",
        )
    return LabelMap(values.astype(smallest_unsigned(high)), pixels.grid), pixels.placed, tuple(doubts)


def _one_plane(pixels: Pixels) -> Pixels:
    """A label map saved in gray as a colour picture, or with transparency, as the one channel that it is."""
    values = pixels.values[:-1] if pixels.alpha else pixels.values
    gray = len(values) == 3 and not pixels.placed and np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2])
    return replace(pixels, values=values[:1] if gray else values, alpha=False)


def _integers(values: np.ndarray, path: Path) -> np.ndarray:
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(values - rounded) <= INTEGER_TOLERANCE)  # true for NaN and infinity too
    if wrong.any():
        some = ", ".join(f"{v:.6g}" for v in np.unique(values[wrong])[:4])
        raise LabelError(
            f"{int(wrong.sum())} voxels have labels that are no integers ({some})",
            file=path,
            remedy="Store integers; resample label maps with nearest neighbour",
        )
    return rounded.astype(np.int64)
