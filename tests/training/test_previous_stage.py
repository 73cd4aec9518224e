"""What a cascade's first stage found goes into samples as it lies in the image, is spoilt as planned, and nothing else happens to it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.errors import UnreadableFileError
from autoseg.planning.schema import Plan, PreviousStageChange
from autoseg.preprocessing.previous_stage import MadeBy, write_previous
from autoseg.preprocessing.store import open_case
from autoseg.training.patches import make_sample
from autoseg.training.previous_stage import PreviousStage, closed, dilated, eroded, nearest, opened, remove_component, spoil
from autoseg.training.sampling import Ticket
from autoseg.training.setting import fresh_state, make_setting


def change(do: str, **ranges) -> PreviousStageChange:
    return PreviousStageChange(do=do, probability=1, channel_probability=1, ranges=ranges)


def boxes(*corners, shape=(20, 24, 28)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for low, high in corners:
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.fixture
def second_stage(make_fold):
    """The setting of a second stage whose first found every label as it is, with some augmentation of every kind."""

    def make(regions: bool = False, changes: tuple = (), probability: float = 0.5):
        made = make_fold(channels=2, regions=regions)
        content = made.content
        content["configurations"] |= {
            "low": content["configurations"]["net"],
            "net": content["configurations"]["net"] | {"previous_stage": "low"},
        }
        augmentation = content["training"]["augmentation"]
        augmentation["previous_stage"] = list(changes)
        for transform in augmentation["transforms"]:
            transform["probability"] = probability
        for number in range(6):
            stored = open_case(made.store, f"case_{number}")
            write_previous(stored, stored.labels(), MadeBy("low", 0, "weights", "prediction"))
        return make_setting(Plan.model_validate(content), "net", made.fold, made.store, "cpu")

    return make


def samples(setting, stream: str, count: int):
    source = setting.sources[stream]
    for step in range(count):
        yield make_sample(
            source, open_case(source.store, source.order.cases[step % len(source.order.cases)]), Ticket(stream, step, step % 2)
        )


@pytest.mark.parametrize("stream", ["train", "held_out"])
def test_channels_lie_on_the_image_and_change_sides_with_the_labels(second_stage, stream):
    """The first stage found the truth: through crop, padding, elastic, rotation, scale and mirror its channels stay the labels'."""
    setting, exchanged = second_stage(), 0
    for sample in samples(setting, stream, 24):
        assert sample.image.shape[0] == 4 and sample.image.dtype == np.float32
        for channel, index in ((2, 1), (3, 2)):
            agree = (sample.image[channel] == (sample.labels == index)).mean()
            assert agree > 0.999, "nearest voxels may differ where a point lies half-way"
        exchanged += sample.exchanged
    assert exchanged > 4 if stream == "train" else not exchanged


def test_regions_change_sides_too(second_stage):
    """Side pairs of regions have no class indices to swap: their channels change places."""
    exchanged = [sample for sample in samples(second_stage(regions=True), "train", 16) if sample.exchanged]
    assert len(exchanged) > 3
    for sample in exchanged:
        whole, left, right = sample.image[2:]
        assert (whole == (sample.labels > 0)).mean() > 0.999
        assert (left == (sample.labels == 2)).mean() > 0.999 and (right == (sample.labels == 1)).mean() > 0.999, (
            "labels of regions swap later"
        )


def test_the_image_is_as_without_a_first_stage(second_stage, make_fold):
    """Intensity changes and the draws behind them know nothing of the further channels."""
    plain = second_stage()
    alone = {**plain.sources, "train": plain.sources["train"].__class__(**{**vars(plain.sources["train"]), "previous_stage": None})}
    for with_it, without in zip(
        samples(plain, "train", 8), samples(type(plain)(**{**vars(plain), "sources": alone}), "train", 8), strict=True
    ):
        np.testing.assert_array_equal(with_it.image[:2], without.image)


def test_only_training_samples_are_spoilt(second_stage):
    changes = ({"do": "morphology", "probability": 1, "channel_probability": 1, "ranges": {"radius": [3, 3]}},)
    setting = second_stage(changes=changes, probability=0)

    def spoilt(stream: str) -> int:
        return sum((s.image[2] != (s.labels == 1)).any() or (s.image[3] != (s.labels == 2)).any() for s in samples(setting, stream, 8))

    assert spoilt("held_out") == 0
    assert spoilt("train") > 4


def test_the_network_takes_the_channels(second_stage):
    first = next(p for p in fresh_state(second_stage()).network.parameters() if p.ndim == 5)
    assert first.shape[1] == 2 + 2
    first = next(p for p in fresh_state(second_stage(regions=True)).network.parameters() if p.ndim == 5)
    assert first.shape[1] == 2 + 3


def test_nearest_gives_background_outside():
    points = np.array([[0.4, 0.6, -0.6, 1.4, 1.6]])
    np.testing.assert_array_equal(nearest(np.array([3, 7], np.uint8), points), [3, 7, 0, 7, 0])


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.0])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(dilated, ndimage.binary_dilation), (eroded, ndimage.binary_erosion), (closed, None), (opened, None)]
)
def test_balls_equal_scipys(ours, theirs, radius):
    """Against scipy with a ball of that radius; beyond the patch nothing is known: it neither feeds a dilation nor an erosion."""
    mask = boxes(((4, 4, 4), (12, 14, 13)), ((3, 16, 20), (17, 24, 28)), ((9, 9, 14), (11, 11, 17)))
    mask &= np.random.default_rng(0).random(mask.shape) > 0.02
    reach = int(radius)
    grid = np.mgrid[tuple(slice(-reach, reach + 1) for _ in range(3))]
    ball = (grid**2).sum(0) <= radius**2

    def dilate(m):
        return ndimage.binary_dilation(m, ball)

    def erode(m):
        return ndimage.binary_erosion(m, ball, border_value=1)

    expected = {dilated: dilate, eroded: erode, closed: lambda m: erode(dilate(m)), opened: lambda m: dilate(erode(m))}[ours](mask)
    np.testing.assert_array_equal(ours(mask, radius), expected)
    assert (expected != mask).any()


@pytest.mark.parametrize("seed", range(6))
def test_morphology_works_on_a_part_as_on_the_whole(seed):
    """A small mask in a large patch: the spoilt one is one of the four operations on the whole patch."""
    mask = boxes(((4, 4, 4), (9, 10, 9)), ((6, 11, 5), (8, 13, 8)), shape=(30, 40, 50))
    masks = mask[None].copy()
    spoil(masks, change("morphology", radius=(2.0, 2.0)), True, np.random.default_rng(seed))
    assert any((masks[0] == act(mask, 2.0)).all() for act in (dilated, eroded, closed, opened))


def test_what_an_exclusive_class_gains_the_others_lose():
    left, right = boxes(((4, 4, 4), (12, 14, 10))), boxes(((4, 4, 10), (12, 14, 16)))
    grown = 0
    for seed in range(12):
        masks = np.stack([left, right])
        spoil(masks, change("morphology", radius=(1, 3)), True, np.random.default_rng(seed))
        assert not masks.all(0).any()
        overlapping = np.stack([left, right])
        spoil(overlapping, change("morphology", radius=(1, 3)), False, np.random.default_rng(seed))
        grown += overlapping.all(0).any()
    assert grown > 0, "regions may overlap, and some dilation was drawn"


def test_one_small_component_is_removed():
    small, large = ((1, 1, 1), (4, 4, 4)), ((6, 6, 6), (18, 20, 24))
    share = 27 / (20 * 24 * 28)
    removed = set()
    for seed in range(8):
        mask = boxes(small, ((16, 1, 1), (19, 4, 4)), large)
        remove_component(mask, 0, 0.05, np.random.default_rng(seed))
        gone = boxes(small, ((16, 1, 1), (19, 4, 4)), large) & ~mask
        assert gone.sum() == 27 and mask[10, 10, 10]
        removed.add(tuple(np.argwhere(gone)[0]))
    assert len(removed) == 2, "each small one has its chance"
    untouched = boxes(small)
    remove_component(untouched, 0, share * 0.9, np.random.default_rng(0))
    assert untouched.any(), "larger than the plan allows"


def test_components_touch_by_corners():
    mask = boxes(((1, 1, 1), (3, 3, 3)), ((3, 3, 3), (5, 5, 5)))
    remove_component(mask, 0, 1, np.random.default_rng(0))
    assert not mask.any(), "two boxes that share a corner are one component"


def test_shares_of_what_is_spoilt():
    """Probability of the change, then of each channel; 1000 samples of two one-voxel-thick plates that any erosion removes."""
    rng, hits, both = np.random.default_rng(0), 0, 0
    some = PreviousStageChange(do="remove_component", probability=0.4, channel_probability=0.5, ranges={"share": (0, 1)})
    stage = PreviousStage(((1,), (2,)), True, None, (some,))
    indices = np.zeros((4, 6, 6), np.uint8)
    indices[1, 1:4, 1:4], indices[3, 1:4, 1:4] = 1, 2
    for _ in range(1000):
        gone = ~stage.channels(indices, False, rng).astype(bool).any((1, 2, 3))
        hits, both = hits + gone[0], both + gone.all()
    assert abs(hits / 1000 - 0.2) < 0.04 and abs(both / 1000 - 0.1) < 0.03


@pytest.mark.parametrize(
    ("do", "ranges"), [("morphology", {"share": (0, 1)}), ("remove_component", {}), ("morphology", {"radius": (1, 2), "share": (0, 1)})]
)
def test_a_change_without_its_range_is_refused(do, ranges):
    with pytest.raises(ValueError, match="draws from the range"):
        change(do, **ranges)


def test_an_input_that_is_not_there_is_named(second_stage):
    setting = second_stage()
    source = setting.sources["train"]
    (source.store / "previous_stage" / "case_0.labels.b2nd").unlink()
    with pytest.raises(UnreadableFileError, match="case_0"):
        make_sample(source, open_case(source.store, "case_0"), Ticket("train", 0, 0))
