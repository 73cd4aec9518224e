"""The store: what goes in comes out, box by box; nothing is half there; keys decide."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.labels import LabelSet
from autoseg.errors import ResourceError, UnreadableFileError
from autoseg.geometry import Grid, Orientation
from autoseg.preprocessing.prepared import Origin, PreparedCase
from autoseg.preprocessing.store import ANNOTATED, has_case, open_case, sample_locations, stored_cases, write_case

SHAPE = (20, 70, 45)
ONE_TO_FOUR = LabelSet.declared({"background": 0, "a": 1, "b": 2, "c": 3, "d": 4})


def made_case(name: str = "p.01", labels: bool = True) -> PreparedCase:
    rng = np.random.default_rng(0)
    grid = Grid((10, 35, 45), (2.0, 2.0, 1.0), (1.5, -2.0, 0.25), planar=False)
    origin = Origin(grid, Orientation((1, 0, 2), (True, False, False)), grid, ((0, 10), (1, 35), (0, 45)), (0, 2, 1), "voxels")
    image = rng.normal(2, 3, (2, *SHAPE)).astype(np.float32)
    return PreparedCase(name, image, rng.integers(0, 4, SHAPE).astype(np.uint8) if labels else None, (1.0, 1.0, 1.0), origin)


@pytest.mark.parametrize("by_slices", [False, True])
def test_what_is_written_is_read(tmp_path, by_slices):
    case = made_case()
    write_case(tmp_path, case, "k", labels=ONE_TO_FOUR, by_slices=by_slices)
    stored = open_case(tmp_path, "p.01")
    assert (stored.name, stored.shape, stored.channels, stored.spacing) == ("p.01", SHAPE, 2, (1.0, 1.0, 1.0))
    assert stored.origin == case.origin
    np.testing.assert_array_equal(stored.image(), case.image)
    np.testing.assert_array_equal(stored.labels(), case.labels)
    assert stored.image().dtype == np.float32
    box = ((3, 9), (0, 70), (40, 45))
    np.testing.assert_array_equal(stored.image(box), case.image[:, 3:9, :, 40:])
    np.testing.assert_array_equal(stored.labels(box), case.labels[3:9, :, 40:])
    for channel, found in zip(case.image, stored.statistics, strict=True):
        np.testing.assert_allclose(
            (found.mean, found.std, found.minimum, found.maximum), (channel.mean(), channel.std(), channel.min(), channel.max()), rtol=1e-4
        )


@pytest.mark.parametrize("ending", ["image.b2nd", "labels.b2nd", "locations.npz"])
def test_a_case_of_which_a_power_failure_kept_a_part_is_not_there(tmp_path, ending):
    write_case(tmp_path, made_case(), "k")
    assert has_case(tmp_path, "p.01", "k")
    path = tmp_path / f"p.01.{ending}"
    path.write_bytes(path.read_bytes()[:-1])
    assert not has_case(tmp_path, "p.01", "k")
    path.unlink()
    assert not has_case(tmp_path, "p.01", "k")


def test_an_opened_case_travels_to_another_process(tmp_path):
    write_case(tmp_path, made_case(), "k")
    stored = open_case(tmp_path, "p.01")
    stored.image(((0, 1), (0, 1), (0, 1)))
    again = pickle.loads(pickle.dumps(stored))
    np.testing.assert_array_equal(again.labels(), stored.labels())


def test_locations_are_voxels_of_their_class():
    """As many as the peer keeps (section 3.6): 10 000, at least 1 %, all if there are fewer; the same in every run."""
    labels = np.zeros((110, 120, 120), np.uint8)
    labels[:90] = 1  # 1 296 000 voxels: 1 % is 12 960
    labels[90:93] = 2  # 43 200
    labels[95, 5, 7] = 4
    labels[100:] = 5
    declared = LabelSet.declared({"background": 0, "a": 1, "b": 2, "c": 3, "d": 4, "ignore": 5})
    found = sample_locations(labels, declared)
    assert {c: len(v) for c, v in found.items()} == {1: 12_960, 2: 10_000, 3: 0, 4: 1, ANNOTATED: 14_400}
    for index, voxels in found.items():
        assert voxels.shape[1:] == (3,)
        assert voxels.dtype == np.int32
        assert len(np.unique(voxels, axis=0)) == len(voxels)
        values = labels[tuple(voxels.T)]
        assert (values != 5).all() if index == ANNOTATED else (values == index).all()
    assert found[4].tolist() == [[95, 5, 7]]
    assert 40 < found[1][:, 0].mean() < 49  # spread over the class
    again = sample_locations(labels, declared)
    assert all((found[c] == again[c]).all() for c in found)


def test_locations_of_regions_are_those_of_all_their_values_and_none_is_of_a_voxel_to_ignore():
    """As the peer keeps them (3.6): by region, each value in its share; here the ignore index is the third region's number."""
    regions = LabelSet.declared({"background": 0, "whole": [1, 2], "core": [2], "rim": [1], "ignore": 7}, [1, 2, 1])
    assert regions.ignore_index == 3
    indices = np.zeros((40, 40, 40), np.uint8)
    indices[:30], indices[30:32], indices[32:36] = 1, 2, 3
    found = sample_locations(indices, regions)
    assert {number: len(voxels) for number, voxels in found.items()} == {1: 10_000, 2: 3200, 3: 10_000, ANNOTATED: 10_000}
    values = {number: indices[tuple(voxels.T)] for number, voxels in found.items()}
    assert set(values[1]) == {1, 2} and set(values[2]) == {2} and set(values[3]) == {1} and set(values[ANNOTATED]) == {0, 1, 2}
    assert (values[1] == 2).mean() == pytest.approx(2 / 32, abs=0.01)


@pytest.mark.parametrize("regions", [False, True])
def test_what_nobody_annotated_in_a_case_has_no_locations(tmp_path, regions):
    """A region that is not annotated has none either where its values occur as part of another."""
    values = {"whole": [1, 2], "core": [2]} if regions else {"whole": 1, "core": 2}
    labels = LabelSet.declared({"background": 0, **values}, [1, 2] if regions else None)
    case = made_case()
    if not regions:
        case.labels[case.labels == 2] = 0
    write_case(tmp_path, case, "k", labels=labels, annotated=("whole",))
    stored = open_case(tmp_path, case.name)
    assert stored.annotated == ("whole",) and pickle.loads(pickle.dumps(stored)).annotated == ("whole",)
    assert len(stored.locations[1]) == np.isin(case.labels, (1, 2) if regions else (1,)).sum().clip(max=10_000)
    assert stored.locations[2].shape == (0, 3)


def test_locations_are_kept_with_the_case(tmp_path):
    case = made_case()
    write_case(tmp_path, case, "k", labels=ONE_TO_FOUR)
    locations = open_case(tmp_path, "p.01").locations
    assert sorted(locations) == [1, 2, 3, 4]
    assert len(locations[4]) == 0
    assert (case.labels[tuple(locations[2].T)] == 2).all()


def test_keys_decide_and_names_are_listed(tmp_path):
    assert stored_cases(tmp_path) == []
    assert not has_case(tmp_path, "p.01", "k")
    write_case(tmp_path, made_case(), "k")
    write_case(tmp_path, made_case("b", labels=False), "k")
    assert has_case(tmp_path, "p.01", "k")
    assert not has_case(tmp_path, "p.01", "other")
    assert stored_cases(tmp_path) == ["b", "p.01"]
    assert open_case(tmp_path, "b").locations == {}
    with pytest.raises(UnreadableFileError, match="case b"):
        open_case(tmp_path, "b").labels()


def test_a_case_that_was_cut_off_is_not_there(tmp_path, monkeypatch):
    """Whatever is killed, and wherever: a rewritten case has no key until all of it lies there, and no temporary file stays."""
    write_case(tmp_path, made_case(), "old")
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ResourceError, match=r"p\.01\.locations\.npz"):
        write_case(tmp_path, made_case(), "new")
    assert not has_case(tmp_path, "p.01", "old")
    assert not has_case(tmp_path, "p.01", "new")
    assert stored_cases(tmp_path) == []
    assert not list(tmp_path.glob(".*"))


def test_a_missing_or_damaged_case_is_named(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"case gone, gone\.json.*plan-and-preprocess"):
        open_case(tmp_path, "gone")
    write_case(tmp_path, made_case(), "k")
    image = tmp_path / "p.01.image.b2nd"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(UnreadableFileError, match=r"case p\.01"):
        open_case(tmp_path, "p.01").image()
    (tmp_path / "p.01.json").write_text("{")
    assert not has_case(tmp_path, "p.01", "k")
    with pytest.raises(UnreadableFileError, match=r"case p\.01"):
        open_case(tmp_path, "p.01")


def test_opening_a_case_stays_light(tmp_path):
    """Every data worker opens cases: no torch, no SimpleITK."""
    write_case(tmp_path, made_case(), "k")
    code = (
        "import sys; from pathlib import Path; from autoseg.preprocessing.store import open_case;"
        f"case = open_case(Path({str(tmp_path)!r}), 'p.01'); case.image(); case.labels(); case.locations;"
        "sys.exit(len({'torch', 'SimpleITK', 'skimage', 'sklearn', 'numba', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, env=_environment()).returncode == 0


def _environment() -> dict[str, str]:
    import os

    import autoseg

    return {**os.environ, "PYTHONPATH": str(Path(autoseg.__file__).parents[1])}
