"""A cascade's second stage sees what the first found of the same voxels, in every tile and every mirrored view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.data.case import Case, Volume
from autoseg.errors import ModelError
from autoseg.files import Work
from autoseg.geometry import Grid, Orientation, whole_box
from autoseg.inference.first_stage import first_stage_change, note_first_stage, weights_key
from autoseg.inference.model import load_model
from autoseg.inference.predictor import make_predictor
from autoseg.inference.sliding_window import FirstStage, Window, mirrored_views, predict_slabs
from autoseg.network.build import build
from autoseg.network.weights import save_weights
from autoseg.planning.plan_file import write_plan
from autoseg.preprocessing.prepare import prepare_case
from autoseg.preprocessing.prepared import Origin
from autoseg.preprocessing.previous_stage import on_prepared_grid


class Repeat(nn.Module):
    """Outputs that are the channels of the first stage: background where none of them is."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = image[:, self.images :]
        return torch.cat([0.5 + 0 * found[:, :1], found], 1)


MEMBERS = ((1,), (2,), (3,))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(20, 12, 24), (5, 30, 7)])
def test_tiles_show_it_where_the_image_is(prediction_plan, ensemble, noise, shape, axis):
    """A network that repeats its input of the first stage gives it back, also where the volume is smaller than a tile."""
    indices = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    window = Window((8, 8, 8), "minimum", prediction_plan())
    slabs = predict_slabs(noise(2, *shape), ensemble(Repeat(2), outputs=4), window, axis=axis, first_stage=FirstStage(indices, MEMBERS))
    axes = (axis, *(a for a in range(3) if a != axis))
    found = torch.cat([slab.values for slab in slabs], 1).argmax(0).numpy()
    np.testing.assert_array_equal(found, indices.transpose(axes))


@pytest.mark.parametrize("exchange_inputs", [True, False])
def test_a_mirrored_view_shows_left_as_right(prediction_plan, ensemble, noise, exchange_inputs):
    """Mirrored left to right, what the first stage called left is shown as right, and the answer is exchanged back."""
    shape = (10, 12, 14)
    indices = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
    views = mirrored_views([0, 2], side_axis=2, exchange=(0, 2, 1, 3), inputs=(0, 2, 1, 3) if exchange_inputs else None)
    window = Window((8, 8, 8), "zero", prediction_plan(), views)
    slabs = predict_slabs(noise(1, *shape), ensemble(Repeat(1), outputs=4), window, axis=0, first_stage=FirstStage(indices, MEMBERS))
    outputs = torch.cat([slab.values for slab in slabs], 1).numpy()
    pure = np.isclose(outputs[1], indices == 1, atol=1e-5).all() and np.isclose(outputs[2], indices == 2, atol=1e-5).all()
    assert pure == exchange_inputs


def cascade_plan(make_plan, **changes):
    """The fixture's plan with a coarser first stage of the fixture's only configuration."""
    plan = make_plan(changes)
    second = plan.configurations["3d_fullres"].model_copy(update={"previous_stage": "3d_lowres"})
    first = plan.configurations["3d_fullres"].model_copy(update={"spacing": [4.0, 3.0, 3.0], "next_stage": "3d_cascade_fullres"})
    configurations = {"3d_lowres": first, "3d_cascade_fullres": second}
    return plan.model_copy(update={"configurations": configurations, "default_configurations": ["3d_cascade_fullres"]})


@pytest.fixture
def make_cascade(tmp_path, make_plan):
    """A WORK with random weights for the folds of both stages."""

    def make(folds=(0, 1), seed: int = 0, **changes):
        work, plan = Work(tmp_path / "work"), cascade_plan(make_plan, **changes)
        write_plan(work.plan, plan)
        for stage in plan.configurations:
            for fold in folds:
                add_fold(work, plan, stage, fold, seed)
        return work, plan

    return make


def add_fold(work, plan, stage, fold, seed):
    torch.manual_seed(10 * len(stage) + fold + seed)
    labels = plan.dataset.label_set()
    network = build(plan.configurations[stage].inside().network, plan.input_channels(stage), labels.outputs, deep_supervision=True)
    write_plan(work.fold(stage, fold).plan, plan)
    save_weights(work.fold(stage, fold).weights, network.state_dict(), {"trained_on": {f"case_{stage}_{fold}": f"key_{stage}_{fold}"}})


def test_the_predictor_exchanges_both_ends(make_plan, ensemble, noise):
    """By the plan's side pairs and the patient's left-right axis, with an image of one channel before the first stage's three."""
    plan = cascade_plan(make_plan, **{"prediction.test_time_mirrors": [0, 1, 2]})
    predictor = make_predictor(plan, "3d_cascade_fullres", [Repeat(1)], device="cpu")
    grid = Grid((8, 11, 11), (2.0, 1.5, 1.5))
    origin = Origin(grid, Orientation(), grid, whole_box(grid.shape), None, "key")
    sided = [view for view in predictor._views(origin, 1) if 2 in view.axes]
    assert len(sided) == 4 and all(v.outputs == (0, 2, 1, 3) and v.inputs == (0, 2, 1, 3) for v in sided)
    assert all(v.outputs is None and v.inputs is None for v in predictor._views(origin, 1) if 2 not in v.axes)
    indices = np.random.default_rng(2).integers(0, 4, grid.shape).astype(np.uint8)
    found = predictor.predict(noise(1, *grid.shape), grid.spacing, origin, previous=indices)
    np.testing.assert_array_equal(found.voxels, np.array([0, 2, 5, 9])[indices])


def test_a_cascade_is_loaded_with_the_same_folds_of_both_stages(make_cascade):
    work, _ = make_cascade()
    model = load_model(work.path)
    assert model.stages == ("3d_lowres", "3d_cascade_fullres")
    assert model.folds == model.first_stage.folds == (0, 1)
    assert model.trained_on[1] == {"key_3d_lowres_1", "key_3d_cascade_fullres_1"}, "seen by either stage is seen"
    assert load_model(work.path, folds=[1]).first_stage.folds == (1,)
    assert load_model(work.path, configurations=["3d_lowres"]).first_stage is None


def test_the_second_stage_without_the_first_is_refused(make_cascade):
    work, _ = make_cascade()
    work.fold("3d_lowres", 1).weights.unlink()
    assert load_model(work.path, folds=[0]).folds == (0,)
    with pytest.raises(ModelError, match="3d_lowres has no trained fold 1"):
        load_model(work.path)


def test_stages_of_different_plans_are_refused(make_cascade):
    work, plan = make_cascade()
    low = plan.configurations["3d_lowres"].model_copy(update={"spacing": [5.0, 3.0, 3.0]})
    for fold in (0, 1):
        write_plan(work.fold("3d_lowres", fold).plan, plan.model_copy(update={"configurations": plan.configurations | {"3d_lowres": low}}))
    with pytest.raises(ModelError, match=r"3d_lowres.spacing differs"):
        load_model(work.path)


def test_a_first_stage_that_was_trained_anew_is_told(make_cascade):
    work, plan = make_cascade()
    weights = {fold: weights_key(work, "3d_lowres", fold) for fold in (0, 1)}
    note_first_stage(work.fold("3d_cascade_fullres", 0), "3d_lowres", weights)
    assert first_stage_change(work, "3d_cascade_fullres", 0) is None
    assert not load_model(work.path).notices or "3d_cascade_fullres: fold 2" in load_model(work.path).notices[0]
    add_fold(work, plan, "3d_lowres", 1, seed=5)
    assert "3d_lowres had found before its fold(s) 1" in first_stage_change(work, "3d_cascade_fullres", 0)
    assert any("trained anew" in notice for notice in load_model(work.path).notices)
    assert not any("trained anew" in notice for notice in load_model(work.path, folds=[1]).notices), "that fold's note says nothing"


def test_what_the_first_stage_finds_reaches_the_second(make_cascade, noise):
    """The cascade's label map is that of its second stage given the first's, which another first stage changes."""
    work, plan = make_cascade(folds=(0,))
    model = load_model(work.path, folds=[0])
    grid = Grid((16, 18, 20), (1.0, 1.0, 1.0))
    image = noise(*grid.shape, seed=3)
    found = model.predict_array(image, grid).labels.voxels

    first = load_model(work.path, folds=[0], configurations=["3d_lowres"]).predict_array(image, grid).labels.voxels
    assert len(np.unique(first)) > 1, "the random first stage finds something"
    case = Case("array", Volume(image[None], grid), None, grid, Orientation(), "key")
    prepared = prepare_case(case, plan.configurations["3d_cascade_fullres"], plan.intensity, ["MR"], ["arbitrary"], None)
    indices = plan.dataset.label_set().encode(first)
    previous = on_prepared_grid(indices, prepared.origin, prepared.image.shape[1:])
    by_hand = model.predictor.predict(prepared.image, prepared.spacing, prepared.origin, previous=previous).voxels
    np.testing.assert_array_equal(found, by_hand)
    without = model.predictor.predict(prepared.image, prepared.spacing, prepared.origin, previous=np.zeros_like(previous)).voxels
    assert (without != found).any()
