"""Files to a checked case: everything that can be wrong with one case is found here and named."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg.data.annotations.reading import names_segments, read_annotation
from autoseg.data.annotations.segments import Names, as_values, overlap_doubts, some
from autoseg.data.case import Case, CaseFiles, LabelMap, Volume
from autoseg.data.formats.pixels import Pixels
from autoseg.data.formats.placing import match, orientation_for
from autoseg.data.formats.readers import read_pixels
from autoseg.data.labels import LabelSet, smallest_unsigned
from autoseg.data.regridding import regridded_image, regridded_labels
from autoseg.data.shearing import straight_image, straight_labels
from autoseg.errors import AutosegError, ChannelError, GridError, IntensityError, LabelError, Problem
from autoseg.geometry import Grid, Orientation

INTEGER_TOLERANCE = 1e-3


def read_case(
    files: CaseFiles,
    channels: int,
    *,
    orientation: Literal["lps", "as_stored"],
    regrid: Literal["none", "to_first"] = "none",
    labels: LabelSet | None = None,
) -> Case:
    """One case, checked, in the dataset's orientation; labels in file values.

    Args:
        files: where it lies: one file a channel, or one file or folder with all channels.
        channels: how many channels it must have.
        orientation: `lps` brings the axes to LPS, `as_stored` leaves them as the first image file has them.
        regrid: `to_first` resamples channels and labels that lie on another grid onto the first image's; `none` refuses them.
        labels: what becomes of an annotation that names its segments; None numbers the combinations of names that occur in it.

    Raises:
        UnreadableFileError, GridError, ChannelError, LabelError, IntensityError, DatasetError: each names case, file, cause, remedy.
    """
    try:
        return _read_case(files, channels, orientation, regrid == "to_first", labels)
    except AutosegError as error:
        raise _named(error, files) from error


def read_labels(path: Path, *, case: str, onto: Grid | None = None, labels: LabelSet | None = None) -> LabelMap:
    """A label map in its stored orientation, in the smallest unsigned type.

    Args:
        onto: the grid that an annotation of named segments is laid on, which has none of its own.
        labels: what these segments become.

    Raises:
        UnreadableFileError, GridError: as for images.
        LabelError: negative or non-integer values, or several channels; named segments without grid or labels.
    """
    try:
        if not names_segments(path):
            return _label_map(path)[0]
        if onto is None or labels is None:
            message = "its segments have names, which nothing here says the values of"
            raise LabelError(message, file=path, remedy="Declare the names under `labels` of a dataset.json (evaluate --labels)")
        return LabelMap(_named_segments(path, None, onto, False, labels)[0], onto)
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


def _read_case(files: CaseFiles, channels: int, wanted: str, regrid: bool, meant: LabelSet | None) -> Case:
    # one file at a time: a channel's raw values are let go before the next file is read
    pixels = read_pixels(files.images[0], files.choice(0))
    first = replace(pixels, values=pixels.values[:0])
    stored = first.grid
    change = orientation_for(stored.straight(), wanted)
    grid = stored.straight().oriented(change)
    voxels = np.empty((channels, *grid.shape), np.float32)
    slanted: list[np.ndarray] = []
    resampled: dict[int, str] = {}
    notices: list[AutosegError] = []
    for number, path in enumerate(files.images):
        if number:
            pixels = read_pixels(path, files.choice(number))
        values, said = _channels_wanted(pixels, channels, files.images, number)
        if number:
            fitted = _onto_first(first, replace(pixels, values=values), regrid, what=files.images[0].name, file=path)
            values, said = fitted.values, [*said, *fitted.notices]
            resampled |= {number: fitted.key} if fitted.key else {}
        notices += [*pixels.doubts, *said]
        slanted += _fill(voxels[number : number + len(values)], values, stored, change, path)
        del pixels, values
    labels, combinations = None, None
    if files.label is not None:
        found, combinations, doubts = _labels_of(files, first, regrid, meant)
        labels = LabelMap(np.ascontiguousarray(change.apply(straight_labels(found, stored) if stored.sheared else found)), grid)
        notices += doubts
    shown, lying = (np.stack(slanted), stored) if stored.sheared else (voxels, grid)
    kept = shown if not resampled else shown[[number for number in range(channels) if number not in resampled]]
    key = _joint_key(content_key(orientation_for(lying, "lps").apply(kept)), resampled)
    said = tuple(Problem.of(_named(notice, files), "warning") for notice in notices)
    return Case(files.case, Volume(voxels, grid), labels, stored, change, key, said, combinations)


def _named(error: AutosegError, files: CaseFiles) -> AutosegError:
    """The error, named for its case; without any file's name where these may tell who the patient is."""
    named = error.in_case(files.case)
    if not files.private:
        return named
    names = {path.name for path in files.files() if len(path.name) > 3}  # shorter ones tell nothing, and may well be a number
    written = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names)) or '(?!)'})(?!\w)")
    return type(named)(written.sub("a file", named.message), case=named.case, remedy=written.sub("a file", named.remedy))


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


@dataclass(frozen=True)
class _Fitted:
    """A file's channels on the first image's stored grid.

    key: of what was resampled, as it was before, and of how it lay; empty where nothing was.
    """

    values: np.ndarray
    notices: tuple[AutosegError, ...]
    key: str = ""


def _onto_first(first: Pixels, pixels: Pixels, regrid: bool, *, what: str, file: Path, background: int | None = None) -> _Fitted:
    """A channel's or label map's array on the first image's grid: the same lattice, or resampled where that is wanted.

    Args:
        first: the first image; only its grid and whether it is placed matter.
        background: what a label map has outside of its field of view; None: it is an image.

    Raises:
        GridError: another grid, and `regrid` is not wanted or nothing in common.
    """
    if not (first.placed and pixels.placed):
        return _Fitted(pixels.values, _unplaced(first, pixels, what, file))
    try:
        change, near = match(first.grid, pixels.grid, what=what, file=file)
        return _Fitted(change.apply(pixels.values), tuple(near))
    except GridError:
        if not regrid:
            raise
    if background is not None:
        voxels, notices = regridded_labels(pixels.values[0], pixels.grid, first.grid, background=background, file=file)
    else:
        _require_image(np.asarray(pixels.values, np.float32), file)
        voxels, notices = regridded_image(pixels.values[0], pixels.grid, first.grid, file=file)
    upright, own = orientation_for(first.grid, "lps"), orientation_for(pixels.grid, "lps")
    corners = pixels.grid.oriented(own).indices(first.grid.oriented(upright).corners())
    how = np.round(corners * 10 * np.pi).astype(int)  # in steps that no spacing is a multiple of: headers' rounding must not decide
    return _Fitted(voxels[None], tuple(notices), content_key(own.apply(pixels.values)) + repr(how.tolist()))


def _joint_key(key: str, resampled: Mapping[int, str]) -> str:
    """The content key of a case of which some channels were resampled: of what they were before, since splines round by machine."""
    if not resampled:
        return key
    return hashlib.blake2b(repr((key, sorted(resampled.items()))).encode(), digest_size=16).hexdigest()


def _unplaced(first: Pixels, pixels: Pixels, what: str, file: Path) -> tuple[AutosegError, ...]:
    """What is to be said where a file does not tell its place in the patient: it fits any grid of its shape."""
    if pixels.grid.shape != first.grid.shape:
        raise GridError(
            f"its shape is {pixels.grid.shape} (z, y, x), that of {what} is {first.grid.shape}", file=file, remedy="Pair the right files"
        )
    if first.placed == pixels.placed:
        return ()
    message = f"only one of it and {what} says where it lies in the patient: they are joined voxel by voxel as stored"
    return (GridError(message, file=file, remedy="Look at one case in a viewer"),)


def _labels_of(
    files: CaseFiles, first: Pixels, regrid: bool, meant: LabelSet | None
) -> tuple[np.ndarray, tuple[Names, ...] | None, list[AutosegError]]:
    """A case's labels on the first image's stored grid; what the values mean, if the file names it and `meant` does not say; warnings."""
    if names_segments(files.label):
        return _named_segments(files.label, _first_file(files), first.grid, regrid, meant)
    found, placed, doubts = _label_map(files.label)
    background = int(found.voxels.min()) if meant is None else meant.background  # `measure` takes the smallest value for it too
    itself = Pixels(found.voxels[None], found.grid, placed=placed)
    fitted = _onto_first(first, itself, regrid, what="the image", file=files.label, background=background)
    return fitted.values[0], None, [*doubts, *fitted.notices]


def _named_segments(
    path: Path, image: Path | None, grid: Grid, regrid: bool, meant: LabelSet | None
) -> tuple[np.ndarray, tuple[Names, ...] | None, list[AutosegError]]:
    """Named segments on `grid`: in the file values of `meant`, or as the numbers of the combinations of names that occur."""
    segments = read_annotation(path, grid, image=image, regrid=regrid)
    if meant is None:
        return segments.voxels, segments.combinations, list(segments.doubts)
    values, unknown = as_values(segments.combinations, meant)
    names = sorted({name for names in segments.combinations for name in names})
    if names and len(unknown) == len(names):
        raise LabelError(
            f"none of its segments is a label: it has {some(names)}, the labels are {some(meant.names)}",
            file=path,
            remedy="Name the labels in dataset.json as the segments are named",
        )
    doubts = [*segments.doubts, *overlap_doubts(segments, meant, path)]
    if unknown:
        message = f"segments that are no labels are left out: {some(unknown)}"
        doubts.append(LabelError(message, file=path, remedy="Declare those that are meant under `labels` in dataset.json"))
    return values[segments.voxels], None, doubts


def _first_file(files: CaseFiles) -> Path | None:
    """A file of the first image, whose identifiers an annotation may refer to; None where it is not known which of a folder's it is."""
    choice = files.choice(0)
    return choice.planes[0][0] if choice.planes else None if choice.pattern else files.images[0]


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
    """Whole numbers of values that are nearly whole, in the smallest type that holds them, made plane by plane."""
    strange, count = [], 0
    for plane in values:
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(plane - np.rint(plane)) <= INTEGER_TOLERANCE)  # true for NaN and infinity too
        if wrong.any():
            count += int(wrong.sum())
            strange.append(np.unique(plane[wrong])[:4])
    if count:
        some = ", ".join(f"{v:.6g}" for v in np.unique(np.concatenate(strange))[:4])
        raise LabelError(
            f"{count} voxels have labels that are no integers ({some})",
            file=path,
            remedy="Store integers; resample label maps with nearest neighbour",
        )
    low, high = round(float(values.min())), round(float(values.max()))
    whole = np.empty(values.shape, smallest_unsigned(high) if low >= 0 and high < 2**63 else np.int64)
    for plane, found in zip(whole, values, strict=True):
        plane[...] = np.rint(found)
    return whole
