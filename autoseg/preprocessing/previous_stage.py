"""What a cascade's first stage found, as an input of the second: on its grid, stored with a record of which fold made it.

A case's input is previous_stage/CASE.labels.b2nd in the second stage's store and, last of all, previous_stage/CASE.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.files import digest, read_json, write_json
from autoseg.geometry import box_slices
from autoseg.preprocessing.prepared import Origin
from autoseg.preprocessing.resampling import resample_labels
from autoseg.preprocessing.store import PREVIOUS_STAGE, StoredCase, open_case, write_array

_KIND = "previous-stage"


@dataclass(frozen=True)
class MadeBy:
    """Who found what the second stage gets of one case.

    configuration: the first stage.
    fold: the one that held the case out.
    weights: key of that fold's weights; trained anew, it has another.
    prediction: key of the label map that it gave.
    """

    configuration: str
    fold: int | str
    weights: str
    prediction: str


def on_prepared_grid(found: np.ndarray, origin: Origin, shape: Sequence[int]) -> np.ndarray:
    """What was found, at the voxels that another stage sees: the nearest voxel's class.

    Args:
        found: class indices (z, y, x) on the oriented grid.
        origin: of the case as the other stage prepared it.
        shape: of that, in the order inside.

    Returns:
        Class indices (z, y, x) of `shape`.
    """
    inside = found[box_slices(origin.box)].transpose(origin.transpose or (0, 1, 2))
    return resample_labels(np.ascontiguousarray(inside), shape, order=0)


def store_found(store: Path, case: str, label_map: Path, labels: LabelSet, made_by: MadeBy) -> None:
    """Read the label map that the first stage gave for a case, and store it as the second stage's input.

    Args:
        store: of the second stage, which holds the case.
        labels: what the values of the label map mean.

    Raises:
        UnreadableFileError: the case or the label map cannot be read.
        ResourceError: the disk is full.
    """
    from autoseg.data.reading import read_labels
    from autoseg.data.shearing import straight_labels

    stored = open_case(store, case)
    found, grid = read_labels(label_map, case=case).voxels, stored.origin.stored
    found = stored.origin.orientation.apply(straight_labels(found, grid) if grid.sheared else found)
    write_previous(stored, on_prepared_grid(labels.encode(found), stored.origin, stored.shape), made_by)


def as_channels(indices: np.ndarray, members: Sequence[Sequence[int]]) -> np.ndarray:
    """One mask for each class or region: bool (channel, *shape).

    Args:
        indices: class indices, of any shape.
        members: the class indices that each channel stands for, as `LabelSet.region_indices`.
    """
    highest = max(int(indices.max(initial=0)), *(max(classes) for classes in members))
    table = np.zeros((len(members), highest + 1), bool)
    for channel, classes in enumerate(members):
        table[channel, list(classes)] = True
    return table[:, indices]


def write_previous(stored: StoredCase, indices: np.ndarray, made_by: MadeBy) -> None:
    """Store what the first stage found of a case beside the second stage's image of it, whole or not at all.

    Args:
        indices: class indices (z, y, x) on the second stage's grid.

    Raises:
        ResourceError: the disk is full.
    """
    note = _note(stored.folder, stored.name)
    note.unlink(missing_ok=True)
    write_array(note.with_name(f"{stored.name}.labels.b2nd"), indices, by_slices=False)
    write_json(note, _KIND, {**asdict(made_by), "key": _key(stored, made_by)})


def has_previous(stored: StoredCase, made_by: MadeBy) -> bool:
    """Whether a case has its input of the first stage, made by this fold as it is now, for the image as it is stored now."""
    note = _note(stored.folder, stored.name)
    try:
        return note.is_file() and read_json(note, _KIND).get("key") == _key(stored, made_by)
    except PlanError:
        return False


def read_made_by(store: Path, case: str) -> MadeBy:
    """Which fold of the first stage found what the second stage's store holds of a case.

    Raises:
        PlanError: the store holds none.
    """
    content = read_json(_note(store, case), _KIND)
    return MadeBy(**{key: content[key] for key in MadeBy.__dataclass_fields__})


def _note(store: Path, case: str) -> Path:
    return store / PREVIOUS_STAGE / f"{case}.json"


def _key(stored: StoredCase, made_by: MadeBy) -> str:
    return digest(asdict(made_by), asdict(stored.origin), list(stored.shape))
