"""The folder of prepared cases that training reads patches from: compressed chunks, opened lazily, written whole.

A case is CASE.image.b2nd, CASE.labels.b2nd, CASE.locations.npz and, last of all, CASE.json, whose key says what it was made of: a
case is there only if its CASE.json is. Opening imports neither torch nor SimpleITK, since every data worker does it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError, UnreadableFileError
from autoseg.files import appears_whole, read_json, write_json
from autoseg.geometry import Box, Grid, Orientation, box_slices, whole_box
from autoseg.preprocessing.intensity import mean_and_std
from autoseg.preprocessing.prepared import Origin, PreparedCase

if TYPE_CHECKING:
    import blosc2

ANNOTATED = -1
"""Key of `StoredCase.locations` for voxels of any class but ignore, where the dataset has an ignore label."""

PREVIOUS_STAGE = "previous_stage"
"""Folder, in the store of a cascade's second stage, of what the first one found; see `autoseg.preprocessing.previous_stage`."""

_KIND = "stored-case"
_ENDINGS = ("image.b2nd", "labels.b2nd", "locations.npz")
_REMEDY = "Run plan-and-preprocess again; if the file is damaged, delete it first"
_FEW, _SHARE, _SEED = 10_000, 0.01, 1234  # locations a class: at least as many, or this share (peer section 3.6)
_SLAB = 1 << 18  # voxels searched at once: one slice of CT, or the whole of a small volume
# Measured on CT at 80 % of its size: lz4 reads a patch in 1 ms where zstd takes 2 to 3; labels shrink to 2 % with zstd
_CHUNK, _BLOCK, _FLAT_CHUNK, _FLAT_BLOCK = (64, 128, 128), (16, 32, 32), (1, 512, 512), (1, 128, 128)


@dataclass(frozen=True)
class ChannelStatistics:
    """Of a channel's whole stored volume."""

    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class StoredCase:
    """A prepared case on disk; voxels are read when asked for.

    shape, spacing: voxels and mm, (z, y, x) in the order inside.
    annotated: the classes or regions that somebody annotated; None: all.
    """

    folder: Path
    name: str
    shape: tuple[int, int, int]
    channels: int
    spacing: tuple[float, float, float]
    origin: Origin
    statistics: tuple[ChannelStatistics, ...]
    has_labels: bool
    annotated: tuple[str, ...] | None = None

    def image(self, box: Box | None = None) -> np.ndarray:
        """Float32 (C, z, y, x) of a half-open box inside the volume; None: all."""
        return self._image[(slice(None), *box_slices(box or whole_box(self.shape)))]

    def labels(self, box: Box | None = None) -> np.ndarray:
        """Class indices (z, y, x) of a half-open box inside the volume; None: all.

        Raises:
            UnreadableFileError: the case was stored without.
        """
        return self._labels[box_slices(box or whole_box(self.shape))]

    def previous(self, box: Box | None = None) -> np.ndarray:
        """What a cascade's first stage found, class indices (z, y, x) of a half-open box inside the volume; None: all.

        Raises:
            UnreadableFileError: it is not there.
        """
        return self._previous[box_slices(box or whole_box(self.shape))]

    @cached_property
    def locations(self) -> dict[int, np.ndarray]:
        """Class index, or number of a region from 1, -> a sample of its voxels, (n, 3) int32; `ANNOTATED` -> of all that are not ignored.

        What is absent or not annotated: (0, 3).
        """
        if not self.has_labels:
            return {}
        with np.load(self.folder / f"{self.name}.locations.npz") as file:
            return {int(key): file[key] for key in file.files}

    @cached_property
    def _image(self) -> blosc2.NDArray:
        return _open(self.folder / f"{self.name}.image.b2nd", self.name)

    @cached_property
    def _labels(self) -> blosc2.NDArray:
        return _open(self.folder / f"{self.name}.labels.b2nd", self.name)

    @cached_property
    def _previous(self) -> blosc2.NDArray:
        return _open(self.folder / PREVIOUS_STAGE / f"{self.name}.labels.b2nd", self.name)

    def __reduce__(self):  # open files stay behind when a case is sent to another process
        return StoredCase, tuple(getattr(self, field.name) for field in dataclasses.fields(self))


def stored_cases(folder: Path) -> list[str]:
    """Names of the cases that are there whole, sorted."""
    return sorted(path.name.removesuffix(".json") for path in folder.glob("[!.]*.json"))


def has_case(folder: Path, name: str, key: str) -> bool:
    """Whether the case is there, made of what `key` stands for, with files as long as they were written."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return False
    try:
        content = read_json(path, _KIND)
        return content.get("key") == key and content["bytes"] == _lengths(folder, name)
    except (PlanError, KeyError):
        return False


def _lengths(folder: Path, name: str) -> dict[str, int]:
    """Ending of each of a case's files but its JSON -> bytes."""
    paths = {ending: folder / f"{name}.{ending}" for ending in _ENDINGS}
    return {ending: path.stat().st_size for ending, path in paths.items() if path.is_file()}


def open_case(folder: Path, name: str) -> StoredCase:
    """A stored case; only its JSON is read now.

    Raises:
        UnreadableFileError: it is not there, or damaged.
    """
    path = folder / f"{name}.json"
    try:
        content = read_json(path, _KIND)
        origin, shape = _origin(content["origin"]), tuple(content["shape"])
        statistics = tuple(ChannelStatistics(**each) for each in content["statistics"])
        annotated = None if content.get("annotated") is None else tuple(content["annotated"])
        return StoredCase(folder, name, shape, len(statistics), tuple(content["spacing"]), origin, statistics, content["labels"], annotated)
    except (PlanError, KeyError, TypeError) as error:
        raise UnreadableFileError(f"it is not in the store ({error})", case=name, file=path, remedy=_REMEDY) from error


def write_case(
    folder: Path,
    prepared: PreparedCase,
    key: str,
    *,
    labels: LabelSet | None = None,
    annotated: tuple[str, ...] | None = None,
    by_slices: bool = False,
) -> None:
    """Store a case, whole or not at all.

    Args:
        key: what it was made of; see `has_case`.
        labels: what its class indices mean, which says what `locations` holds; None: every index that occurs is a class.
        annotated: the classes or regions that somebody annotated in this case; None: all.
        by_slices: single slices will be read (2D configurations).

    Raises:
        ResourceError: the disk is full.
    """
    name, image = prepared.name, prepared.image
    note = folder / f"{name}.json"
    note.unlink(missing_ok=True)
    # After a power failure a file may be shorter than its note says, and is then made again; so only the note waits for the disk.
    write_array(folder / f"{name}.image.b2nd", image, by_slices=by_slices, durable=False)
    if prepared.labels is not None:
        write_array(folder / f"{name}.labels.b2nd", prepared.labels, by_slices=by_slices, durable=False)
        found = sample_locations(prepared.labels, labels, annotated)
        with appears_whole(folder / f"{name}.locations.npz", durable=False) as beside:
            np.savez(beside, **{str(index): voxels for index, voxels in found.items()})
    write_json(
        note,
        _KIND,
        {
            "key": key,
            "shape": list(image.shape[1:]),
            "spacing": list(prepared.spacing),
            "labels": prepared.labels is not None,
            "annotated": None if annotated is None else list(annotated),
            "origin": dataclasses.asdict(prepared.origin),
            "statistics": [dataclasses.asdict(_statistics(channel)) for channel in image],
            "bytes": _lengths(folder, name),
        },
    )


def sample_locations(indices: np.ndarray, labels: LabelSet | None = None, annotated: Sequence[str] | None = None) -> dict[int, np.ndarray]:
    """A sample of the voxels of each class or region: 10 000, or 1 % if that is more, or all if there are fewer (peer section 3.6).

    Args:
        indices: class indices (z, y, x).
        labels: what they mean; None: every index but 0 is a class.
        annotated: the classes or regions that somebody annotated; the others have no voxels here. None: all.

    Returns:
        Class index, or number of a region from 1, -> (n, 3) int32, in no order; with an ignore label also `ANNOTATED`. Voxels to ignore
        belong to no class, so that no patch is centred on them.
    """
    rng = np.random.default_rng(_SEED)
    highest = int(indices.max()) if labels is None else len(labels.file_values) - 1
    of_class = _voxels_by_class(indices, highest)
    if labels is None:
        return {c: _some(where, indices.shape, rng) for c, where in of_class.items()}
    nowhere = np.zeros(0, np.int64)
    places = {
        number: np.concatenate([of_class[c] for c in members]) if annotated is None or name in annotated else nowhere
        for number, (name, members) in enumerate(zip(labels.names, labels.region_indices, strict=True), start=1)
    }
    if labels.ignore_index is not None:
        places[ANNOTATED] = np.concatenate([start + _positions(slab != labels.ignore_index) for start, slab in _slabs(indices)])
    return {c: _some(where, indices.shape, rng) for c, where in places.items()}


def _voxels_by_class(indices: np.ndarray, highest: int) -> dict[int, np.ndarray]:
    """Flat indices, ascending, of the voxels of each class from 1 to `highest`."""
    parts: dict[int, list[np.ndarray]] = {c: [np.zeros(0, np.int32)] for c in range(1, highest + 1)}
    for start, slab in _slabs(indices):
        foreground = _positions(slab)
        classes = slab.reshape(-1)[foreground]
        order = np.argsort(classes, kind="stable")
        bounds = np.searchsorted(classes[order], np.arange(1, highest + 2))
        for c in np.flatnonzero(np.diff(bounds)) + 1:
            parts[int(c)].append(start + foreground[order[bounds[c - 1] : bounds[c]]])
    return {c: np.concatenate(found) for c, found in parts.items()}


def _slabs(indices: np.ndarray) -> Iterator[tuple[np.integer, np.ndarray]]:
    """A few planes at a time, and the flat index of their first voxel: numpy's 64-bit indices of a whole volume take twice an image."""
    kind, plane = np.int32 if indices.size < 2**31 else np.int64, indices[0].size
    height = max(1, _SLAB // plane)
    for z in range(0, len(indices), height):
        yield kind(z * plane), indices[z : z + height]


def _positions(slab: np.ndarray) -> np.ndarray:
    return np.flatnonzero(slab).astype(np.int32)


def _some(where: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    count = max(min(_FEW, len(where)), math.ceil(_SHARE * len(where)))
    chosen = where[rng.choice(len(where), count, replace=False, shuffle=False)] if count < len(where) else where
    return np.stack(np.unravel_index(chosen, shape), axis=1).astype(np.int32)


def write_array(path: Path, array: np.ndarray, *, by_slices: bool, durable: bool = True) -> None:
    """Compressed chunks of an image (C, z, y, x) or label map (z, y, x), whole or not at all.

    Args:
        by_slices: single slices will be read.
        durable: see `appears_whole`.

    Raises:
        ResourceError: the disk is full.
    """
    import blosc2

    chunk, block = (_FLAT_CHUNK, _FLAT_BLOCK) if by_slices else (_CHUNK, _BLOCK)
    lead = (1,) * (array.ndim - 3)
    chunks = tuple(min(n, c) for n, c in zip(array.shape, (*lead, *chunk), strict=True))
    blocks = tuple(min(n, b) for n, b in zip(chunks, (*lead, *block), strict=True))
    image = array.dtype.kind == "f"
    settings = {"codec": blosc2.Codec.LZ4 if image else blosc2.Codec.ZSTD, "clevel": 5 if image else 1, "nthreads": 1}
    array = np.ascontiguousarray(array)
    with appears_whole(path, durable=durable) as beside:
        try:
            blosc2.asarray(array, urlpath=str(beside), chunks=chunks, blocks=blocks, mode="w", cparams=settings)
        except RuntimeError:
            beside.write_bytes(array.data)  # blosc2 does not say why; where there is no room, the system does
            raise


def _open(path: Path, case: str) -> blosc2.NDArray:
    import blosc2

    try:
        return blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
    except (OSError, RuntimeError, ValueError) as error:
        raise UnreadableFileError(f"it cannot be opened ({error})", case=case, file=path, remedy=_REMEDY) from error


def _statistics(channel: np.ndarray) -> ChannelStatistics:
    return ChannelStatistics(*mean_and_std(channel), float(channel.min()), float(channel.max()))


def _origin(content: dict[str, Any]) -> Origin:
    orientation = Orientation(tuple(content["orientation"]["axes"]), tuple(content["orientation"]["flips"]))
    box = tuple(tuple(side) for side in content["box"])
    transpose = None if content["transpose"] is None else tuple(content["transpose"])
    return Origin(_grid(content["stored"]), orientation, _grid(content["oriented"]), box, transpose, content["content_key"])


def _grid(content: dict[str, Any]) -> Grid:
    return Grid(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
