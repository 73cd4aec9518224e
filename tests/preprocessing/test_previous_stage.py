"""What a first stage found comes onto the second's grid voxel by voxel, and is made once for each fold and image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.data.case import LabelMap
from autoseg.data.labels import LabelSet
from autoseg.data.writing import on_stored_grid, write_labels
from autoseg.errors import PlanError
from autoseg.files import read_json
from autoseg.geometry import Grid, Orientation, whole_box
from autoseg.preprocessing.prepared import Origin, PreparedCase
from autoseg.preprocessing.previous_stage import (
    MadeBy,
    as_channels,
    has_previous,
    on_prepared_grid,
    read_made_by,
    store_found,
    write_previous,
)
from autoseg.preprocessing.store import open_case, write_case

SHAPE, INSIDE = (10, 12, 16), (6, 9, 4)
BOX, ORDER = ((1, 9), (0, 12), (3, 15)), (2, 1, 0)
MADE_BY = MadeBy("3d_lowres", 2, "weights", "prediction")


def origin(orientation: Orientation | None = None) -> Origin:
    oriented = Grid(SHAPE, (2.0, 1.0, 1.0))
    turn = orientation or Orientation()
    stored = oriented if orientation is None else oriented.oriented(turn.inverse())
    return Origin(stored, turn, oriented, BOX, ORDER, "key")


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def store(tmp_path):
    """A second stage's store of one case, whose volume was cropped and transposed."""
    image = np.zeros((1, *INSIDE), np.float32)
    write_case(tmp_path / "store", PreparedCase("p", image, None, (2.0, 1.3, 4.0), origin()), "key")
    return tmp_path / "store"


def nearest_by_hand(labels: np.ndarray) -> np.ndarray:
    """Each voxel's centre, in the cropped and transposed volume, by the voxel it lies in."""
    inside = labels[tuple(slice(*side) for side in BOX)].transpose(ORDER)
    places = [np.floor((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(INSIDE, inside.shape, strict=True)]
    return inside[np.ix_(*places)]


def test_each_voxel_takes_the_class_that_it_lies_in(labels):
    np.testing.assert_array_equal(on_prepared_grid(labels, origin(), INSIDE), nearest_by_hand(labels))
    assert on_prepared_grid(labels, origin(), INSIDE).dtype == np.uint8


def test_one_channel_a_class_or_region():
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    np.testing.assert_array_equal(as_channels(indices, ((1,), (2,), (3,))), [indices == 1, indices == 2, indices == 3])
    np.testing.assert_array_equal(as_channels(indices, ((1, 2, 3), (3,))), [indices > 0, indices == 3])
    np.testing.assert_array_equal(as_channels(indices[:1], ((1,), (300,))), [indices[:1] == 1, [[False, False]]])


@pytest.mark.parametrize("turn", [None, Orientation((2, 0, 1), (True, False, True))])
def test_a_label_map_file_becomes_the_input(store, tmp_path, labels, turn):
    """In file values and in the file's own axes, as a fold of the first stage wrote it."""
    made, values = origin(turn), LabelSet.declared({"background": 0, "a": 4, "b": 9})
    write_case(store, PreparedCase("p", np.zeros((1, *INSIDE), np.float32), None, (2.0, 1.3, 4.0), made), "key")
    write_labels(tmp_path / "p.nii.gz", LabelMap(on_stored_grid(values.decode(labels), made.orientation, made.stored), made.stored))
    store_found(store, "p", tmp_path / "p.nii.gz", values, MADE_BY)
    stored = open_case(store, "p")
    np.testing.assert_array_equal(stored.previous(), nearest_by_hand(labels))
    np.testing.assert_array_equal(stored.previous(((1, 4), (2, 9), (0, 3))), nearest_by_hand(labels)[1:4, 2:9, :3])


def test_the_record_says_which_fold_made_it(store):
    write_previous(open_case(store, "p"), np.zeros(INSIDE, np.uint8), MADE_BY)
    assert read_made_by(store, "p") == MADE_BY
    assert read_json(store / "previous_stage" / "p.json", "previous-stage")["fold"] == 2
    with pytest.raises(PlanError):
        read_made_by(store, "q")


@pytest.mark.parametrize("change", [{"weights": "others"}, {"fold": 3}, {"prediction": "others"}, {"configuration": "others"}])
def test_another_fold_or_prediction_makes_it_anew(store, change):
    stored = open_case(store, "p")
    assert not has_previous(stored, MADE_BY)
    write_previous(stored, np.zeros(INSIDE, np.uint8), MADE_BY)
    assert has_previous(stored, MADE_BY)
    assert not has_previous(stored, replace(MADE_BY, **change))


def test_another_stored_image_makes_it_anew(store):
    write_previous(open_case(store, "p"), np.zeros(INSIDE, np.uint8), MADE_BY)
    moved = replace(origin(), box=whole_box(SHAPE))
    write_case(store, PreparedCase("p", np.zeros((1, *INSIDE), np.float32), None, (2.0, 1.3, 4.0), moved), "key")
    assert not has_previous(open_case(store, "p"), MADE_BY)


def test_half_written_is_not_there(store, monkeypatch):
    """Killed between voxels and record, the case is made again; a damaged record counts as none."""
    import autoseg.preprocessing.previous_stage as room

    stored = open_case(store, "p")
    write_previous(stored, np.zeros(INSIDE, np.uint8), MADE_BY)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            write_previous(stored, np.ones(INSIDE, np.uint8), MADE_BY)
    assert not has_previous(stored, MADE_BY), "the old record went before the new voxels came"
    (store / "previous_stage" / "p.json").write_text("{")
    assert not has_previous(stored, MADE_BY)
