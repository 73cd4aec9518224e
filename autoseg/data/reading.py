"""Files to a checked case: everything that can be wrong with one case is found here and named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.data.case import Case, CaseFiles, LabelMap, Volume
from autoseg.data.formats import read_pixels
from autoseg.data.labels import smallest_unsigned
from autoseg.data.pixels import Pixels
from autoseg.data.placing import match, orientation_for
from autoseg.errors import AutosegError, ChannelError, IntensityError, LabelError, Problem
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
        raise error.in_case(files.case) from error


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


def _read_case(files: CaseFiles, channels: int, wanted: str) -> Case:
    # one file at a time: a channel's raw values are let go before the next file is read
    first = read_pixels(files.images[0])
    stored = first.grid
    change = orientation_for(stored, wanted)
    grid = stored.oriented(change)
    _require_channels(files.images, len(first.values), channels)
    voxels = np.empty((channels, *grid.shape), np.float32)
    notices = list(first.doubts)
    if len(files.images) == 1:
        _fill(voxels, first.values, change, files.images)
    else:
        _fill(voxels[:1], first.values, change, files.images[:1])
        del first
        for number, path in enumerate(files.images[1:], start=1):
            notices += _add_channel(voxels[number : number + 1], path, stored, change, files.images[0].name)
    labels = None
    if files.label is not None:
        found, doubts = _label_map(files.label)
        onto_image, near = match(stored, found.grid, what="the image", file=files.label)
        labels = LabelMap(np.ascontiguousarray(change.apply(onto_image.apply(found.voxels))), grid)
        notices += [*doubts, *near]
    key = content_key(orientation_for(grid, "lps").apply(voxels))
    return Case(
        files.case,
        Volume(voxels, grid),
        labels,
        stored,
        change,
        key,
        tuple(Problem.of(notice.in_case(files.case), "warning") for notice in notices),
    )


def _require_channels(paths: Sequence[Path], in_first: int, channels: int) -> None:
    if len(paths) == 1 and in_first != channels:
        raise ChannelError(
            f"it has {_count(in_first)}, {channels} expected",
            file=paths[0],
            remedy="Give one file a channel (CASE_0000, CASE_0001, ...) or one file with all channels",
        )
    if len(paths) > 1 and len(paths) != channels:
        raise ChannelError(f"it has {len(paths)} channel files, {channels} expected", remedy="Add or remove channel files")
    if len(paths) > 1 and in_first != 1:
        raise ChannelError(f"a channel file has {_count(in_first)}, 1 expected", file=paths[0], remedy="Give one image a file")


def _count(channels: int) -> str:
    return f"{channels} channel" + ("" if channels == 1 else "s")


def _add_channel(out: np.ndarray, path: Path, stored: Grid, change: Orientation, first_name: str) -> tuple[AutosegError, ...]:
    """Reads one more channel onto the first one's grid; returns warnings."""
    pixels = read_pixels(path)
    if len(pixels.values) != 1:
        raise ChannelError(f"a channel file has {_count(len(pixels.values))}, 1 expected", file=path, remedy="Give one image a file")
    onto_first, near = match(stored, pixels.grid, what=first_name, file=path)
    _fill(out, onto_first.apply(pixels.values), change, [path])
    return (*pixels.doubts, *near)


def _fill(out: np.ndarray, values: np.ndarray, change: Orientation, paths: Sequence[Path]) -> None:
    """Writes oriented values as float32 and checks each channel's range; minimum and maximum are enough to find NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = change.apply(values)
    for number, channel in enumerate(out):
        low, high = channel.min(), channel.max()
        where = f"channel {number}: " if len(out) > 1 else ""
        if not np.isfinite(low) or not np.isfinite(high):
            nan, infinite = int(np.isnan(channel).sum()), int(np.isinf(channel).sum())
            raise IntensityError(
                f"{where}{nan} NaN and {infinite} infinite values among {channel.size} voxels",
                file=paths[0],
                remedy="Replace them by a value that means background, or leave the case out",
            )
        if low == high:
            raise IntensityError(
                f"{where}every voxel is {low:g}", file=paths[0], remedy="Check the export; leave the case out if it holds no image"
            )


def _label_map(path: Path) -> tuple[LabelMap, tuple[AutosegError, ...]]:
    pixels: Pixels = read_pixels(path)
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
    return LabelMap(values.astype(smallest_unsigned(high)), pixels.grid), tuple(doubts)


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
