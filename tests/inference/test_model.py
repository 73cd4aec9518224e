"""A model on arrays and files: right place whatever the axes, folds joined or refused, failures by name, nothing half there."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

import autoseg
from autoseg.data.case import LabelMap, Volume
from autoseg.data.reading import read_labels
from autoseg.data.writing import write_volume
from autoseg.errors import ChannelError, GridError, IntensityError, ModelError, ResourceError
from autoseg.files import Work
from autoseg.geometry import Grid, Orientation
from autoseg.inference.model import load_model

GRID = Grid((9, 14, 17), (2.5, 1.2, 1.0), (-30.0, 12.0, 5.0))
FLIPS = list(itertools.product((False, True), repeat=3))
ORIENTATIONS = [Orientation(axes, flips) for axes in itertools.permutations(range(3)) for flips in FLIPS]


@pytest.fixture
def image() -> np.ndarray:
    """Two blobs of different brightness in noise: no symmetry that could hide an error."""
    array = np.random.default_rng(5).normal(size=GRID.shape)
    array[2:6, 3:9, 2:8] += 4
    array[5:8, 8:13, 10:15] -= 3
    return array.astype(np.float32)


def test_load_model_is_a_name_of_the_package(make_work):
    assert autoseg.load_model(make_work(), device="cpu").folds == (0, 1, 2, 3, 4)


def test_importing_autoseg_imports_no_torch():
    code = "import sys, autoseg; print(sorted({'torch', 'SimpleITK', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_all_48_axis_orders_and_flips_give_the_same_label_map_moved_likewise(make_work, image):
    model = load_model(make_work(folds=(0,)), device="cpu")
    expected = model.predict_array(image, GRID)
    assert len(np.unique(expected.labels.voxels)) > 1
    assert set(np.unique(expected.labels.voxels)) <= {0, 2, 5, 9}
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS:
        grid = GRID.oriented(orientation)
        found = model.predict_array(orientation.apply(image), grid)
        assert found.labels.grid == grid
        assert found.content_key == expected.content_key
        np.testing.assert_array_equal(found.labels.voxels, orientation.apply(expected.labels.voxels))


@pytest.mark.parametrize(
    "changes",
    [
        {"3d_fullres.transpose": [2, 0, 1], "3d_fullres.spacing": [2.0, 1.5, 1.3], "3d_fullres.patch_size": [4, 8, 6]},
        {
            "prediction.resize": "labels",
            "prediction.tiles": "regular",
            "prediction.weighting": "uniform",
            "prediction.average": "probabilities",
            "3d_fullres.padding.predict": "minimum",
        },
        {"3d_fullres.crop": "nonzero", "prediction.test_time_mirrors": [0, 1, 2]},
    ],
    ids=["transposed", "as the paper", "cropped and mirrored"],
)
def test_files_of_any_axis_order_give_the_same_label_map(changes, make_work, image, tmp_path):
    model = load_model(make_work(folds=(0,), changes=changes), device="cpu")
    image[:, :2] = 0
    expected = model.predict_array(image, GRID).labels
    assert len(np.unique(expected.voxels)) > 1
    for number in (0, 5, 19, 30, 47):
        grid = GRID.oriented(ORIENTATIONS[number])
        write_volume(tmp_path / "in" / f"turned{number}.nii.gz", Volume(ORIENTATIONS[number].apply(image)[None], grid))
    results = model.predict_files(tmp_path / "in", tmp_path / "out")
    assert [result.error for result in results] == [None] * 5
    for number in (0, 5, 19, 30, 47):
        written = sitk.ReadImage(str(tmp_path / "out" / f"turned{number}.nii.gz"))
        given = sitk.ReadImage(str(tmp_path / "in" / f"turned{number}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), ORIENTATIONS[number].apply(expected.voxels))
        for place in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(written, place)(), getattr(given, place)(), atol=1e-5)
        assert written.GetPixelID() == sitk.sitkUInt8


def test_folds_are_averaged_before_the_argmax(make_work, image):
    """The ensemble's probabilities (of averaged probabilities) are the mean of the single folds'."""
    work = make_work(folds=(0, 1, 2), changes={"prediction.average": "probabilities", "folds.count": 3})
    together = load_model(work, device="cpu").predict_array(image, GRID, probabilities=True)
    single = [load_model(work, device="cpu", folds=[k]).predict_array(image, GRID, probabilities=True).probabilities for k in range(3)]
    np.testing.assert_allclose(together.probabilities, np.mean(single, axis=0), atol=1e-5)
    values = np.array([0, 2, 5, 9])[together.probabilities.argmax(0)]
    assert (values == together.labels.voxels).mean() > 0.999


def test_the_written_probabilities_lie_on_the_images_grid(make_work, image, tmp_path):
    write_volume(tmp_path / "a.nii.gz", Volume(image[None], GRID))
    model = load_model(make_work(folds=(0,)), device="cpu")
    model.predict_files(tmp_path / "a.nii.gz", tmp_path / "out", probabilities=True)
    expected = model.predict_array(image, GRID, probabilities=True).probabilities
    written = sitk.ReadImage(str(tmp_path / "out" / "a_probabilities.nii.gz"))
    values = sitk.GetArrayFromImage(written)
    values = np.moveaxis(values, -1, 0) if written.GetNumberOfComponentsPerPixel() > 1 else values
    np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(written.GetSpacing()[:3], GRID.spacing[::-1], atol=1e-5)


@pytest.mark.parametrize("orientation", ["lps", "as_stored"])
@pytest.mark.parametrize("stored", [Orientation(), Orientation((2, 0, 1), (True, False, False))])
def test_mirrored_sides_are_exchanged_in_test_time_mirroring(orientation, stored, make_work):
    """A mirrored patient gets the mirrored label map with left and right in each other's place, whichever array axis is left-right."""
    side = stored.axes.index(2)
    changes = {
        "prediction.test_time_mirrors": [2 if orientation == "lps" else side],
        "dataset.orientation": orientation,
        "3d_fullres.spacing": [1.0, 1.0, 1.0],
    }
    model = load_model(make_work(folds=(0,), changes=changes), device="cpu")
    image = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    grid = Grid((8, 8, 8)).oriented(stored)
    one = model.predict_array(image, grid).labels.voxels
    other = np.flip(model.predict_array(np.flip(image, side), grid).labels.voxels, side)
    exchanged = np.zeros_like(one)
    for value, partner in {2: 5, 5: 2, 9: 9}.items():
        exchanged[one == value] = partner
    assert {2, 5} <= set(np.unique(one))
    assert (exchanged == other).mean() > 0.99  # rounding may turn a tie


@pytest.mark.parametrize("stored", [Orientation(), Orientation((2, 0, 1), (True, False, False))])
def test_sides_that_are_kept_are_not_mirrored_at_test_time(stored, make_work):
    """Whatever axes the plan names: the patient's left-right axis stays out, another axis does not."""
    image = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    grid, side = Grid((8, 8, 8)).oriented(stored), stored.axes.index(2)
    found = {}
    for mirrors in ([], [side], [(side + 1) % 3]):
        changes = {
            "prediction.test_time_mirrors": mirrors,
            "training.augmentation.mirror_sides": "keep",
            "dataset.orientation": "as_stored",
            "3d_fullres.spacing": [1.0, 1.0, 1.0],
        }
        model = load_model(make_work(folds=(0,), changes=changes), device="cpu")
        found[tuple(mirrors)] = model.predict_array(image, grid, probabilities=True).probabilities
    np.testing.assert_array_equal(found[(side,)], found[()])
    assert np.abs(found[((side + 1) % 3,)] - found[()]).max() > 1e-3


def test_blind_mirrors_leave_left_and_right_as_they_are_at_test_time(make_work):
    changes = {"prediction.test_time_mirrors": [2], "training.augmentation.mirror_sides": "blind", "3d_fullres.spacing": [1.0, 1.0, 1.0]}
    model = load_model(make_work(folds=(0,), changes=changes), device="cpu")
    image, grid = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32), Grid((8, 8, 8))
    one, other = (model.predict_array(np.flip(image, axis), grid, probabilities=True).probabilities for axis in ((), 2))
    np.testing.assert_allclose(np.flip(other, 3), one, atol=1e-5)


def test_two_dimensional_configurations_predict_slice_by_slice(make_work, image):
    flat = {
        "3d_fullres.network.dimension": 2,
        "3d_fullres.network.strides": [[1, 1], [2, 2]],
        "3d_fullres.network.kernels": [[3, 3], [3, 3]],
        "3d_fullres.patch_size": [8, 8],
        "3d_fullres.spacing": [1.2, 1.0],
        "3d_fullres.median_shape": [14, 17],
        "intensity.MR.arbitrary.before_resampling": [{"do": "none"}],
    }
    model = load_model(make_work(folds=(0, 1), changes=flat), device="cpu")
    whole = model.predict_array(image, GRID).labels.voxels
    part = model.predict_array(image[3:5], Grid((2, 14, 17), GRID.spacing)).labels.voxels
    np.testing.assert_array_equal(whole[3:5], part)


def test_folds_that_are_not_trained_are_named_and_left_out(make_work):
    model = load_model(make_work(folds=(0, 2)), device="cpu")
    assert model.folds == (0, 2)
    assert model.notices == ("3d_fullres: fold 1, 3, 4 of 5 not trained yet and left out",)


def test_full_is_taken_only_if_asked_for(make_work):
    work = make_work(folds=(0, "full"))
    assert load_model(work, device="cpu").folds == (0,)
    assert load_model(work, device="cpu", folds=["full"]).folds == ("full",)


def test_a_fold_that_was_asked_for_must_be_there(make_work, tmp_path):
    work = make_work(folds=("full",))
    with pytest.raises(ModelError, match=r"fold 0, 1, 2, 3, 4 \(trained: full\).*--fold full"):
        load_model(work, device="cpu")
    with pytest.raises(ModelError, match="no trained fold 3"):
        load_model(make_work(folds=(0,), name="other"), device="cpu", folds=[3])
    with pytest.raises(ModelError, match=r"no plan\.json"):
        load_model(tmp_path / "nothing", device="cpu")
    with pytest.raises(ModelError, match="no configuration '3d_lowres'"):
        load_model(work, device="cpu", configurations=["3d_lowres"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"3d_fullres.spacing": [2.0, 1.5, 1.4]}, "configurations.3d_fullres.spacing"),
        ({"3d_fullres.network.features": [4, 6]}, "configurations.3d_fullres.network.features"),
        ({"intensity.MR.arbitrary.after_resampling": []}, "intensity.MR.arbitrary.after_resampling"),
        ({"dataset.orientation": "as_stored"}, "dataset.orientation"),
    ],
)
def test_folds_of_different_plans_are_not_joined(change, key, make_work):
    with pytest.raises(ModelError, match=f"fold 2 .*than fold 0: {key} differs"):
        load_model(make_work(folds=(0, 1, 2), fold_changes={2: change}), device="cpu")


def test_folds_that_differ_in_what_prediction_ignores_are_joined(make_work):
    """Budget, batch and seed of a fold don't concern its predictions."""
    changes = {1: {"training.seed": 7, "training.epochs": 3, "3d_fullres.batch_size": 4, "3d_fullres.padding.train": "minimum"}}
    assert load_model(make_work(folds=(0, 1), fold_changes=changes), device="cpu").folds == (0, 1)


def test_prediction_obeys_the_plan_of_the_work_folder(make_work, image):
    """Overlap and postprocessing may be changed after training; the folds' own plans say the rest."""
    path = make_work(folds=(0,))
    plan = json.loads(Work(path).plan.read_text())
    plan["postprocessing"] = [{"do": "largest_component", "labels": ["left", "right", "spot"]}]
    plan["prediction"]["overlap"] = 0.25
    Work(path).plan.write_text(json.dumps(plan))
    model = load_model(path, device="cpu")
    assert model.plan.prediction.overlap == 0.25
    from scipy.ndimage import label

    found = model.predict_array(image, GRID).labels.voxels
    assert label(found > 0, np.ones((3, 3, 3)))[1] == 1


def test_weights_of_another_network_are_refused(make_work):
    path = make_work(folds=(0,))
    other = make_work(folds=(0,), changes={"3d_fullres.network.features": [4, 6]}, name="other")
    Work(other).fold("3d_fullres", 0).weights.replace(Work(path).fold("3d_fullres", 0).weights)
    with pytest.raises(ModelError, match="do not fit the network"):
        load_model(path, device="cpu")


def test_code_outside_autoseg_runs_only_if_trusted(make_work, tmp_path, monkeypatch):
    (tmp_path / "foreign_network.py").write_text(
        "from autoseg.network.build import build\n"
        "def make(plan, channels, outputs):\n    return build(plan.model_copy(update={'factory': None}), channels, outputs)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    work = make_work(folds=(0,), changes={"3d_fullres.network.factory": "foreign_network:make", "training.deep_supervision": False})
    sys.modules.pop("foreign_network", None)
    with pytest.raises(ModelError, match=r"foreign_network:make.*--trust-code"):
        load_model(work, device="cpu")
    assert "foreign_network" not in sys.modules
    assert load_model(work, device="cpu", trust_code=True).folds == (0,)


def test_an_image_that_the_model_was_trained_on_is_predicted_with_a_warning(make_work, image, tmp_path):
    key = load_model(make_work(folds=(0,)), device="cpu").predict_array(image, GRID).content_key
    work = make_work(folds=(0, 1, 2), trained_on={0: {"case_1": key}, 1: {"case_2": "other"}, 2: {"case_1": key}}, name="second")
    write_volume(tmp_path / "renamed.mha", Volume(image[None], GRID))
    (result,) = load_model(work, device="cpu").predict_files(tmp_path / "renamed.mha", tmp_path / "out")
    assert result.error is None
    assert result.trained_on == (0, 2)
    assert "trained on this image (fold 0, 2)" in result.warnings[-1].message
    assert result.output == tmp_path / "out" / "renamed.mha"
    assert result.output.is_file()


def test_cases_that_fail_are_named_and_the_others_go_on(make_work, image, tmp_path):
    write_volume(tmp_path / "in" / "good.nii.gz", Volume(image[None], GRID))
    write_volume(tmp_path / "in" / "two_channels.nii.gz", Volume(np.stack([image, image]), GRID))
    write_volume(tmp_path / "in" / "flat.nii.gz", Volume(image[None, :1], Grid((1, 14, 17), planar=True)))
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"nothing of the kind")
    nan = image.copy()
    nan[0, 0, 0] = np.nan
    write_volume(tmp_path / "in" / "nan.nrrd", Volume(nan[None], GRID))
    seen = []
    model = load_model(make_work(folds=(0,)), device="cpu")
    results = {r.case: r for r in model.predict_files(tmp_path / "in", tmp_path / "out", on_case=seen.append)}
    assert set(results) == {"good", "two_channels", "flat", "broken", "nan"} == {r.case for r in seen}
    assert results["good"].output.is_file()
    assert {case: r.error.kind for case, r in results.items() if r.error} == {
        "two_channels": "ChannelError",
        "flat": "ModelError",
        "broken": "UnreadableFileError",
        "nan": "IntensityError",
    }
    assert all(r.error.case == case for case, r in results.items() if r.error)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.nii.gz"]


def test_a_label_map_never_overwrites_its_image(make_work, image, tmp_path):
    write_volume(tmp_path / "in" / "a.nii.gz", Volume(image[None], GRID))
    before = (tmp_path / "in" / "a.nii.gz").read_bytes()
    (result,) = load_model(make_work(folds=(0,)), device="cpu").predict_files(tmp_path / "in", tmp_path / "in")
    assert result.error.kind == "ModelError"
    assert (tmp_path / "in" / "a.nii.gz").read_bytes() == before


def test_two_images_of_one_name_do_not_share_a_label_map(make_work, image, tmp_path):
    for folder in ("one", "two"):
        write_volume(tmp_path / folder / "a.nii.gz", Volume(image[None], GRID))
    results = load_model(make_work(folds=(0,)), device="cpu").predict_files([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    first, second = sorted(results, key=lambda result: result.error is not None)
    assert first.error is None
    assert second.error.kind == "ModelError"


def test_progress_names_the_case_and_counts_its_tiles(make_work, image, tmp_path):
    write_volume(tmp_path / "a_0000.nii.gz", Volume(image[None], GRID))
    seen = []
    model = load_model(make_work(folds=(0, 1)), device="cpu")
    model.predict_files(tmp_path / "a_0000.nii.gz", tmp_path / "out", progress=lambda *told: seen.append(told))
    assert {case for case, _, _ in seen} == {"a"}
    assert seen[-1][1] == seen[-1][2]


def test_arrays_that_do_not_fit_are_refused(make_work, image):
    model = load_model(make_work(folds=(0,)), device="cpu")
    with pytest.raises(GridError, match="does not lie on a grid"):
        model.predict_array(image[:-1], GRID)
    with pytest.raises(ChannelError, match="2 channel"):
        model.predict_array(np.stack([image, image]), GRID)
    with pytest.raises(IntensityError):
        model.predict_array(np.full(GRID.shape, np.nan), GRID)
    with pytest.raises(ModelError, match="two-dimensional"):
        model.predict_array(image[:1], Grid((1, 14, 17), planar=True))


def test_memory_that_does_not_suffice_is_a_problem_of_the_case(make_work, image, tmp_path, monkeypatch):
    write_volume(tmp_path / "a.nii.gz", Volume(image[None], GRID))
    model = load_model(make_work(folds=(0,)), device="cpu")

    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(type(model.predictor), "predict", full)
    (result,) = model.predict_files(tmp_path / "a.nii.gz", tmp_path / "out")
    assert result.error.kind == "ResourceError"
    assert not (tmp_path / "out" / "a.nii.gz").exists()


def test_a_device_that_is_not_there_is_an_error(make_work):
    import torch

    with pytest.raises(ResourceError, match="no device 'tpu'"):
        load_model(make_work(folds=(0,)), device="tpu")
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ResourceError, match="this machine has"):
        load_model(make_work(folds=(0,), name="again"), device=absent)


def test_predicted_files_read_back_as_the_array_says(make_work, image, tmp_path):
    write_volume(tmp_path / "a.nrrd", Volume(image[None], GRID))
    model = load_model(make_work(folds=(0,)), device="cpu")
    (result,) = model.predict_files([str(tmp_path / "a.nrrd")], tmp_path / "out")
    read: LabelMap = read_labels(result.output, case="a")
    np.testing.assert_array_equal(read.voxels, model.predict_array(image, GRID).labels.voxels)
