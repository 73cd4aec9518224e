"""Tiles are averaged as one would by hand over the whole volume, folds before the argmax, in bounded memory."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.errors import ModelError
from autoseg.inference.sliding_window import View, Window, mirrored_views, predict_slabs, slab_axis
from autoseg.inference.tiles import axis_weight, tile_starts


def whole(image, networks, window: Window, axis: int = 0) -> np.ndarray:
    """All slabs joined, (output, z, y, x)."""
    slabs = list(predict_slabs(image, networks, window, axis=axis))
    assert [s.start for s in slabs] == list(np.cumsum([0, *(s.values.shape[1] for s in slabs)])[:-1])
    return np.moveaxis(np.concatenate([s.values.numpy() for s in slabs], axis=1), 1, 1 + axis)


def by_hand(image, networks, patch, plan, *, probabilities=None):
    """The weighted mean of all tiles with whole-volume accumulators, tile by tile, network by network (3D, no padding)."""
    weight = functools.reduce(np.multiply.outer, [axis_weight(n, plan.weighting).astype(np.float64) for n in patch])
    total, weights = 0.0, np.zeros(image.shape[1:])
    starts = [tile_starts(s, p, plan.overlap, plan.tiles) for s, p in zip(image.shape[1:], patch, strict=True)]
    for place in itertools.product(*starts):
        part = tuple(slice(a, a + p) for a, p in zip(place, patch, strict=True))
        outputs = []
        for network in networks:
            with torch.no_grad():
                output = network(torch.from_numpy(image[(slice(None), *part)])[None])[0]
            outputs.append((probabilities(output) if probabilities else output).numpy())
        if isinstance(total, float):
            total = np.zeros((outputs[0].shape[0], *image.shape[1:]))
        total[(slice(None), *part)] += np.mean(outputs, axis=0) * weight
        weights[part] += weight
    return total / weights


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("tiles", "weighting"), [("even", "gaussian"), ("regular", "uniform")])
def test_equals_whole_volume_accumulation_along_any_axis(axis, tiles, weighting, prediction_plan, made_network, ensemble, noise):
    image, patch = noise(2, 19, 23, 14), (8, 8, 6)
    plan = prediction_plan(tiles=tiles, weighting=weighting, batch_tiles=3)
    network = made_network(2, 3)
    result = whole(image, ensemble(network, outputs=3), Window(patch, "zero", plan), axis)
    np.testing.assert_allclose(result, by_hand(image, [network], patch, plan), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_five_folds_equal_the_mean_of_the_five_single_folds(average, prediction_plan, made_network, ensemble, noise):
    image = noise(1, 14, 12, 10)
    window = Window((8, 8, 8), "zero", prediction_plan(average=average))
    networks = [made_network(1, 3, seed=seed) for seed in range(5)]
    together = whole(image, ensemble(*networks, outputs=3), window)
    single = [whole(image, ensemble(network, outputs=3), window) for network in networks]
    np.testing.assert_allclose(together, np.mean(single, axis=0), rtol=1e-4, atol=1e-5)


def test_the_mean_of_folds_is_no_majority_vote(prediction_plan, pointwise, ensemble):
    """Three folds prefer class 0 a little, two prefer class 1 a lot: the vote says 0, the mean says 1."""
    image = np.zeros((1, 8, 8, 8), np.float32)
    folds = [pointwise([0.0, 1.0], factor=0.1)] * 3 + [pointwise([1.0, 0.0], factor=3.0)] * 2
    window = Window((8, 8, 8), "zero", prediction_plan())
    single = [whole(image, ensemble(f, outputs=2), window).argmax(0) for f in folds]
    majority = (np.mean(single, axis=0) > 0.5).astype(int)
    mean = whole(image, ensemble(*folds, outputs=2), window).argmax(0)
    assert (majority == 0).all()
    assert (mean == 1).all()


@pytest.mark.parametrize("regions", [False, True])
def test_probabilities_are_averaged_after_softmax_or_sigmoid(regions, prediction_plan, made_network, ensemble, noise):
    image, plan = noise(1, 12, 9, 8), prediction_plan(average="probabilities", weighting="uniform", tiles="regular")
    networks = [made_network(1, 3, seed=seed) for seed in range(2)]
    window = Window((8, 8, 8), "zero", plan)
    result = whole(image, ensemble(*networks, outputs=3, regions=regions), window)
    function = torch.sigmoid if regions else lambda output: torch.softmax(output, 0)
    np.testing.assert_allclose(result, by_hand(image, networks, (8, 8, 8), plan, probabilities=function), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 20, 9), (3, 4, 5), (20, 6, 8)])
def test_small_volumes_are_padded_and_cut_back(shape, prediction_plan, pointwise, ensemble, noise):
    image = noise(1, *shape)
    for axis in range(3):
        window = Window((8, 8, 8), "minimum", prediction_plan())
        result = whole(image, ensemble(pointwise([0.0, 1.0]), outputs=2), window, axis)
        assert result.shape == (2, *shape)
        np.testing.assert_allclose(result, np.stack([-(image[0] ** 2), -((image[0] - 1) ** 2)]), rtol=1e-4, atol=1e-5)


def test_what_stands_around_a_small_volume_is_the_plans(prediction_plan, made_network, ensemble, noise):
    image, network = noise(1, 5, 8, 8) + 10, made_network(1, 2)
    zero, minimum = (whole(image, ensemble(network, outputs=2), Window((8, 8, 8), fill, prediction_plan())) for fill in ("zero", "minimum"))
    padded = np.pad(image, [(0, 0), (1, 2), (0, 0), (0, 0)], mode="minimum")
    with torch.no_grad():
        expected = network(torch.from_numpy(padded)[None])[0].numpy()[:, 1:6]
    np.testing.assert_allclose(minimum, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(zero, minimum)


@pytest.mark.parametrize("batch_tiles", [1, 4, 50])
def test_slices_are_predicted_by_themselves(batch_tiles, prediction_plan, made_network, ensemble, noise):
    image, network = noise(1, 7, 8, 8), made_network(1, 3, dimension=2)
    result = whole(image, ensemble(network, outputs=3), Window((8, 8), "zero", prediction_plan(batch_tiles=batch_tiles)))
    with torch.no_grad():
        expected = network(torch.from_numpy(image[0][:, None])).numpy().swapaxes(0, 1)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_slices_larger_than_a_tile(prediction_plan, pointwise, ensemble, noise):
    image = noise(1, 5, 30, 21)
    result = whole(image, ensemble(pointwise([0.0, 2.0]), outputs=2), Window((8, 12), "zero", prediction_plan(batch_tiles=3)))
    np.testing.assert_allclose(result, np.stack([-(image[0] ** 2), -((image[0] - 2) ** 2)]), rtol=1e-4, atol=1e-5)


def test_mirrors_are_all_subsets_and_sides_change_places():
    views = mirrored_views([0, 2], side_axis=2, exchange=(0, 2, 1))
    assert views == (View(), View((0,)), View((2,), (0, 2, 1)), View((0, 2), (0, 2, 1)))
    assert mirrored_views([], None, None) == (View(),)


def test_mirrored_views_are_averaged_back_in_place(prediction_plan, made_network, ensemble, noise):
    image, network = noise(1, 8, 8, 8), made_network(1, 3)
    views = mirrored_views([0, 2], side_axis=2, exchange=(0, 2, 1))
    result = whole(image, ensemble(network, outputs=3), Window((8, 8, 8), "zero", prediction_plan(), views))
    expected = []
    for axes in ([], [0], [2], [0, 2]):
        turned = np.flip(image, [1 + a for a in axes]).copy()
        with torch.no_grad():
            output = np.flip(network(torch.from_numpy(turned)[None])[0].numpy(), [1 + a for a in axes])
        expected.append(output[[0, 2, 1]] if 2 in axes else output)
    np.testing.assert_allclose(result, np.mean(expected, axis=0), rtol=1e-4, atol=1e-5)


def test_progress_counts_tiles(prediction_plan, pointwise, ensemble, noise):
    seen = []
    window = Window((8, 8, 8), "zero", prediction_plan(tiles="regular", batch_tiles=5))
    networks = ensemble(pointwise([0.0]), outputs=1)
    list(predict_slabs(noise(1, 24, 20, 8), networks, window, axis=0, progress=lambda *told: seen.append(told)))
    assert seen[-1] == (20, 20)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_values_that_are_not_finite_are_an_error(prediction_plan, pointwise, ensemble):
    image = np.full((1, 8, 8, 8), 1e30, np.float32)
    with pytest.raises(ModelError, match="not finite"):
        list(predict_slabs(image, ensemble(pointwise([0.0]), outputs=1), Window((8, 8, 8), "zero", prediction_plan()), axis=0))


class Largest(TorchDispatchMode):
    """Remembers the number of values of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


@pytest.mark.parametrize("axis", [0, 2])
def test_accumulators_hold_no_more_than_the_rows_that_tiles_reach(axis, prediction_plan, pointwise, ensemble, noise):
    """Ten times as long a volume needs no larger tensors."""
    shape = [12, 12, 12]
    shape[axis] = 160
    window, outputs = Window((8, 8, 8), "zero", prediction_plan()), 5
    with Largest() as largest:
        for slab in predict_slabs(noise(1, *shape), ensemble(pointwise([0.0] * outputs), outputs=outputs), window, axis=axis):
            assert slab.values.shape[1] <= 4
    assert largest.values <= outputs * 8 * 12 * 12


def test_slabs_are_cut_along_the_longest_axis_and_slices_along_the_first():
    assert slab_axis((10, 30, 20), (8, 8, 8)) == 1
    assert slab_axis((10, 30, 20), (8, 8)) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_cuda_gives_what_the_processor_gives(precision, prediction_plan, made_network, ensemble, noise):
    from dataclasses import replace

    image, window = noise(1, 20, 12, 9), Window((8, 8, 8), "zero", prediction_plan())
    here = ensemble(made_network(1, 3), outputs=3)
    expected = whole(image, here, window)
    there = replace(here, networks=(made_network(1, 3).cuda().eval(),), device="cuda", precision=precision, memory_layout="channels_last")
    found = np.concatenate([slab.values.cpu().numpy() for slab in predict_slabs(image, there, window, axis=0)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=3e-2, atol=5e-2)
