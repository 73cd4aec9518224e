"""Augmentation draws what the plan says, moves image and labels alike, and leaves nothing behind."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import PlanError
from autoseg.geometry import Grid, Orientation, box_slices, whole_box
from autoseg.planning.schema import AugmentationPlan, OversamplingPlan
from autoseg.preprocessing.prepared import Origin
from autoseg.preprocessing.store import ANNOTATED, ChannelStatistics
from autoseg.training import augmentation as augment
from autoseg.training.augmentation import Sides
from autoseg.training.augmentation import batchgenerators_backend as backend
from autoseg.training.patches import SampleSource, make_sample
from autoseg.training.sampling import CaseOrder, Ticket

P = 0.15
PAPER = [
    ("contrast", {"factor": (0.3, 3)}),
    ("brightness", {"factor": (0.5, 2)}),
    ("gamma", {"exponent": (0.7, 1.5)}),
    ("noise", {"deviation": (0, 0.05)}),
    ("elastic", {"alpha": (0, 900), "sigma": (9, 13)}),
    ("rotate", {"z": (-15, 15), "y": (-15, 15), "x": (-15, 15)}),
    ("scale", {"factor": (0.85, 1.25)}),
]
SIDES = Sides("exchange", 2, ((1, 2),))
NOBODY = Sides("blind", 2, ())


VALUES = {
    "backend": "native",
    "conventions": "batchgenerators",
    "device": "cpu",
    "plug_ins": [],
    "thick_axis": None,
    "mirror_axes": [0, 1, 2],
    "mirror_probability": 0.5,
    "mirror_sides": "exchange",
    "interpolation": (3, 0),
    "statistics": "volume",
    "previous_stage": [],
}


def plan(transforms=PAPER, probability=P, **changes) -> AugmentationPlan:
    parts = [{"do": d, "probability": probability, "channel_probability": 1, "ranges": r, "invert": False} for d, r in transforms]
    return AugmentationPlan(**{**VALUES, "transforms": parts, **changes})


@dataclass(frozen=True)
class Volume:
    """What a sample needs of a stored case, in memory; it notes what was read."""

    voxels: np.ndarray
    classes: np.ndarray
    name: str = "made"
    read: list = field(default_factory=list)
    turned: Orientation = field(default_factory=Orientation)
    annotated: tuple[str, ...] | None = None

    @property
    def shape(self):
        return self.classes.shape

    @property
    def channels(self):
        return len(self.voxels)

    @property
    def statistics(self):
        return tuple(ChannelStatistics(c.mean(), c.std(), c.min(), c.max()) for c in self.voxels)

    @property
    def origin(self):
        grid = Grid(self.shape).oriented(self.turned)
        return Origin(grid, Orientation(), grid, whole_box(self.shape), None, "key")

    @property
    def locations(self):
        found = {int(c): np.argwhere(self.classes == c) for c in np.unique(self.classes) if c}
        return {**found, ANNOTATED: np.argwhere(self.classes != 9)}

    def image(self, box=None):
        self.read.append(box)
        return self.voxels[(slice(None), *box_slices(box or whole_box(self.shape)))]

    def labels(self, box=None):
        return self.classes[box_slices(box or whole_box(self.shape))]


def volume(shape=(24, 28, 32), channels=1, seed=0) -> Volume:
    rng = np.random.default_rng(seed)
    classes = np.zeros(shape, np.uint8)
    _, y, x = (n // 2 for n in shape)
    classes[:, y - 4 : y + 4, x - 9 : x - 2] = 1
    classes[:, y - 4 : y + 4, x + 2 : x + 9] = 2
    image = rng.normal(size=(channels, *shape)) + classes
    return Volume(image.astype(np.float32), classes)


def source(augmentation, patch=(16, 16, 16), **changes) -> SampleSource:
    order = CaseOrder(("made",), "shuffled_queue", 5, 7, 2, 50)
    none_forced = OversamplingPlan(foreground=0, by="class")
    return replace(SampleSource(Path(), order, patch, none_forced, augmentation, "zero", ((1, 2),), None, None), **changes)


def only(*names, **changes):
    return plan([t for t in PAPER if t[0] in names], 1, **changes)


@pytest.fixture(params=["native", "batchgenerators"])
def each_backend(request, monkeypatch) -> str:
    """Plans of this module ask for it."""
    monkeypatch.setitem(VALUES, "backend", request.param)
    return request.param


def test_shares_of_what_is_drawn():
    rng = np.random.default_rng(0)
    drawn = [augment.draw(plan(), SIDES, 3, rng) for _ in range(8000)]
    untouched = np.mean([not d.intensity and not d.spatial for d in drawn])
    assert untouched == pytest.approx(0.85**7, abs=0.02)  # paper.md item 10: .32
    assert np.mean([bool(d.spatial) for d in drawn]) == pytest.approx(1 - 0.85**3, abs=0.02)  # R7: .386
    for axis in range(3):
        assert np.mean([axis in d.mirrored for d in drawn]) == pytest.approx(0.5, abs=0.02)
    order = ["contrast", "brightness", "gamma", "noise"]
    assert all([t.do for t in d.intensity] == sorted((t.do for t in d.intensity), key=order.index) for d in drawn)


def test_factors_lie_with_even_chance_below_and_above_one():
    rng = np.random.default_rng(0)
    factors = np.array([augment.draw_factor(0.85, 1.25, rng) for _ in range(4000)])
    assert np.mean(factors < 1) == pytest.approx(0.5, abs=0.03)
    assert factors[factors < 1].mean() == pytest.approx(0.925, abs=0.01) and factors[factors > 1].mean() == pytest.approx(1.125, abs=0.01)
    above = np.array([augment.draw_factor(1.1, 1.4, rng) for _ in range(100)])
    below = np.array([augment.draw_factor(0.5, 0.8, rng) for _ in range(100)])
    assert above.min() >= 1.1 and above.max() <= 1.4 and below.min() >= 0.5 and below.max() <= 0.8


def test_only_the_patch_is_read_unless_more_is_needed(each_backend):
    stored = volume()
    make_sample(source(only("brightness", "noise")), stored, Ticket("train", 0, 0))
    assert [high - low for low, high in stored.read[-1]] == [16, 16, 16]
    make_sample(source(only("gamma")), stored, Ticket("train", 0, 0))
    assert stored.read[-1] == whole_box(stored.shape)
    make_sample(source(only("gamma", statistics="patch")), stored, Ticket("train", 0, 0))
    assert [high - low for low, high in stored.read[-1]] == [16, 16, 16]


def test_spatial_step_equals_batchgenerators_own():
    """The same drawn parameters through its whole transform: at the volume's centre, on the whole volume, in one go."""
    from batchgenerators.augmentations.spatial_transformations import augment_spatial

    stored = volume((40, 44, 48))
    angles = {"z": (12, 12), "y": (-9, -9), "x": (5, 5)}
    drawn = [plan([("rotate", angles), ("scale", {"factor": (1.2, 1.2)})], 1).transforms][0]
    points = backend.centred_points(drawn, (24, 24, 24), np.random.default_rng(0)) + (np.array(stored.shape).reshape(3, 1, 1, 1) / 2 - 0.5)
    needed = backend.needed_box(points, stored.shape, 3)
    corner = np.array([low for low, _ in needed]).reshape(3, 1, 1, 1)
    image, (labels,) = backend.interpolate(stored.image(needed), [stored.labels(needed)], points - corner, (3, 0))
    turn = {f"angle_{a}": (np.deg2rad(d),) * 2 for a, d in (("x", 12), ("y", -9), ("z", 5))}
    theirs, their_labels = augment_spatial(
        stored.voxels[None],
        stored.classes[None, None],
        (24, 24, 24),
        do_elastic_deform=False,
        **turn,
        scale=(1.2, 1.2),
        border_mode_data="constant",
        order_data=3,
        order_seg=0,
        random_crop=False,
    )
    np.testing.assert_allclose(image, theirs[0], atol=2e-6)
    np.testing.assert_array_equal(labels, their_labels[0, 0])


@pytest.mark.parametrize("name", ["contrast", "brightness", "gamma", "noise"])
@pytest.mark.parametrize("statistics", ["volume", "patch"])
def test_intensity_transforms_keep_what_they_promise(name, statistics, each_backend):
    stored = volume(seed=3)
    quiet = {"mirror_axes": [], "statistics": statistics}
    before = make_sample(source(plan([], **quiet)), stored, Ticket("train", 0, 0))
    after = make_sample(source(only(name, **quiet)), stored, Ticket("train", 0, 0))
    np.testing.assert_array_equal(before.labels, after.labels)
    a, b = before.image, after.image
    assert not np.array_equal(a, b)
    whole = stored.voxels if statistics == "volume" else a
    if name == "contrast":
        assert b.min() >= whole.min() - 1e-5 and b.max() <= whole.max() + 1e-5
        inside = (b > whole.min() + 1e-3) & (b < whole.max() - 1e-3)
        factor = (b[inside] - whole.mean()) / (a[inside] - whole.mean())
        assert 0.3 <= np.median(factor) <= 3
        assert np.percentile(np.abs(factor - np.median(factor)), 99) < 1e-2
    elif name == "brightness":
        ratio = b / a
        assert ratio.std() < 1e-5 and 0.5 <= ratio.mean() <= 2
    elif name == "gamma":
        rank = np.argsort(a.ravel())
        assert np.all(np.diff(b.ravel()[rank]) >= -1e-6)  # monotone
        if statistics == "patch":
            assert b.mean() == pytest.approx(a.mean(), abs=1e-4) and b.std() == pytest.approx(a.std(), abs=1e-4)
    else:
        assert 0 < (b - a).std() <= 0.06  # a deviation, not a variance: sqrt(.05) would be .22


def test_whole_volume_statistics_do_not_depend_on_the_patch(each_backend):
    stored, patches = volume(), []
    for patch in ((8, 8, 8), (24, 28, 32)):
        made = source(plan([("contrast", {"factor": (2, 2)})], 1, mirror_axes=[]), patch)
        patches.append((make_sample(made, stored, Ticket("train", 0, 0)), make_sample(source(None, patch), stored, Ticket("train", 0, 0))))
    mean = stored.voxels.mean()
    for changed, plain in patches:
        expected = np.clip((plain.image - mean) * 2 + mean, stored.voxels.min(), stored.voxels.max())
        np.testing.assert_allclose(changed.image, expected, atol=1e-4)


def test_mirroring_twice_gives_everything_back():
    stored = volume()
    stored.classes[:4, :4, :4] = 2
    image, labels, exchanged = augment.mirror(stored.voxels, stored.classes, (0, 2), SIDES)
    assert exchanged and np.all(labels[-4:, :4, -4:] == 1)
    again = augment.mirror(image, labels, (0, 2), SIDES)
    np.testing.assert_array_equal(again[0], stored.voxels)
    np.testing.assert_array_equal(again[1], stored.classes)


@pytest.mark.parametrize(("rule", "anatomy_holds"), [("exchange", True), ("keep", True), ("blind", False)])
def test_left_stays_on_the_left(rule, anatomy_holds, each_backend):
    """Class 1 lies at lower x than class 2 in every sample, unless mirroring is blind to sides."""
    stored, seen = volume(), set()
    for step in range(24):
        sample = make_sample(source(plan([], mirror_sides=rule), (24, 28, 32)), stored, Ticket("train", step, 0))
        seen.add(np.argwhere(sample.labels == 1)[:, 2].mean() < np.argwhere(sample.labels == 2)[:, 2].mean())
        flipped = not np.allclose(sample.image[0, :, :, 0].mean(), stored.voxels[0, :, :, 0].mean())
        assert not (rule == "keep" and flipped)
    assert seen == ({True} if anatomy_holds else {True, False})


def test_sides_follow_the_patient_not_the_array_axis(each_backend):
    """Stored with left-right along axis 0: that axis exchanges, axis 2 doesn't; a transpose inside moves it."""
    turned = Orientation((2, 1, 0), (False, False, False))
    stored = replace(volume(), turned=turned)
    changed = plan([], mirror_probability=1, mirror_axes=[0])
    assert make_sample(source(changed), stored, Ticket("train", 0, 0)).exchanged
    assert not make_sample(source(plan([], mirror_probability=1, mirror_axes=[2])), stored, Ticket("train", 0, 0)).exchanged
    moved = source(plan([], mirror_probability=1, mirror_axes=[1]), transpose=(1, 0, 2))
    assert make_sample(moved, stored, Ticket("train", 0, 0)).exchanged


@pytest.mark.parametrize("names", [("elastic",), ("rotate",), ("scale",), ("elastic", "rotate", "scale")])
def test_image_and_label_move_alike(names, each_backend):
    """A bright ball that is its own label: after any spatial step the two have one centre, and it has moved."""
    shape = (40, 40, 40)
    z, y, x = np.indices(shape)
    ball = ((z - 22) ** 2 + (y - 17) ** 2 + (x - 24) ** 2) <= 25
    soft = np.exp(-((z - 22) ** 2 + (y - 17) ** 2 + (x - 24) ** 2) / 30).astype(np.float32)[None]
    stored = Volume(soft, ball.astype(np.uint8))
    moved = []
    for step in range(6):
        sample = make_sample(source(only(*names, mirror_sides="blind"), (40, 40, 40)), stored, Ticket("train", step, 0))
        bright = sample.image[0] * (sample.image[0] > 0.3)
        middle = np.array([(i * bright).sum() / bright.sum() for i in np.indices(shape)])
        np.testing.assert_allclose(np.argwhere(sample.labels == 1).mean(0), middle, atol=0.4)
        moved.append(middle)
    assert np.ptp(moved, axis=0).max() > 0.5


def test_scaling_above_one_shrinks_the_anatomy(each_backend):
    ball = sum((i - 20) ** 2 for i in np.indices((40, 40, 40))) <= 100
    stored = Volume(ball[None].astype(np.float32), ball.astype(np.uint8))
    changed = [plan([("scale", {"factor": (f, f)})], 1, mirror_axes=[]) for f in (1.0, 1.25)]
    sizes = [make_sample(source(c, (40, 40, 40)), stored, Ticket("train", 0, 0)).labels.sum() for c in changed]
    assert sizes[1] / sizes[0] == pytest.approx(1 / 1.25**3, rel=0.03)


def test_a_rotation_names_its_axis_as_read():
    """A turn about the array's x axis becomes a turn about the inside axis that x went to."""
    turned = augment.inside(plan([("rotate", {"x": (5, 5)})], mirror_axes=[0, 2]), (2, 0, 1).index)
    assert turned.transforms[0].ranges == {"z": (5, 5)} and turned.mirror_axes == [0, 1]  # x is axis 0, z is axis 1 inside
    assert augment.inside(plan([("rotate", {"z": (5, 5)})]), (0, 1, 2).index).transforms[0].ranges == {"z": (5, 5)}


@pytest.mark.parametrize("statistics", ["volume", "patch"])
def test_equal_tickets_equal_samples_whatever_came_between(statistics, each_backend):
    made, stored = source(plan(statistics=statistics, probability=0.5)), volume(channels=2)
    first = [make_sample(made, stored, Ticket("train", s, i)) for s in range(4) for i in range(2)]
    np.random.seed(1)
    again = [make_sample(made, stored, Ticket("train", s, i)) for s in reversed(range(4)) for i in reversed(range(2))][::-1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)
    for i, a in enumerate(first):
        assert not any(np.array_equal(a.image, b.image) for b in first[:i])
    other = make_sample(replace(made, order=replace(made.order, seed=6)), stored, Ticket("train", 0, 0))
    assert not np.array_equal(other.image, first[0].image)


def test_slices_of_a_thick_stack_are_never_mixed(each_backend):
    """Each slice has a value of its own: after any spatial step a patch's slice still has one, and the label that belongs to it."""
    stored = volume((12, 28, 32))
    stored.voxels[0] = np.arange(12, dtype=np.float32)[:, None, None]
    stored.classes[:] = np.arange(12, dtype=np.uint8)[:, None, None]
    spatial = [("rotate", {"z": (-40, 40)}), ("scale", {"factor": (0.8, 1.2)}), ("elastic", {"alpha": (0, 90), "sigma": (5, 7)})]
    made = source(plan(spatial, 1, mirror_sides="blind", thick_axis=0, interpolation=(1, 0)), (5, 16, 16))
    for step in range(8):
        sample = make_sample(made, stored, Ticket("train", step, 0))
        middle = sample.image[0, :, 6:10, 6:10]
        assert np.ptp(middle, axis=(1, 2)).max() < 1e-5 and np.all(np.abs(np.diff(middle[:, 0, 0])) > 0.99)
        np.testing.assert_allclose(sample.labels[:, 6:10, 6:10], middle, atol=1e-5)


def test_plugged_transforms_come_last_and_repeat(each_backend):
    rician = {"transform": "noise_transforms.RicianNoiseTransform", "arguments": {"noise_variance": [1, 1]}, "probability": 1}
    stored, ticket = volume(channels=2), Ticket("train", 0, 0)
    plain = make_sample(source(only("scale")), stored, ticket)
    made = source(only("scale", plug_ins=[rician]))
    first, again = make_sample(made, stored, ticket), make_sample(made, stored, ticket)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, plain.labels)
    assert 0.3 < np.abs(first.image - plain.image).mean() < 1.5
    assert make_sample(source(only("scale", plug_ins=[rician]), (16, 16)), stored, ticket).image.shape == (2, 16, 16)


def test_an_image_can_be_left_to_the_device_that_trains():
    """What is then made of it there equals what the CPU makes; labels are made already."""
    from autoseg.training.step import sample_image

    transforms = [t for t in PAPER if t[0] != "noise"]  # a device has noise of its own
    for patch in ((16, 16, 16), (16, 20)):
        for step in range(4):
            stored, ticket = volume(channels=2), Ticket("train", step, 0)
            here, there = (
                make_sample(source(plan(transforms, 0.5, device=device), patch), stored, ticket) for device in ("cpu", "training")
            )
            np.testing.assert_array_equal(here.labels, there.labels)
            assert not isinstance(there.image, np.ndarray)
            np.testing.assert_allclose(sample_image(there, "cpu").numpy(), here.image, atol=2e-4)


def test_global_generators_are_left_as_they_were(each_backend):
    made, stored = source(plan(probability=1)), volume()
    np.random.seed(4)
    random.seed(4)
    expected = np.random.random(3).tolist(), random.random()
    np.random.seed(4)
    random.seed(4)
    make_sample(made, stored, Ticket("train", 0, 0))
    assert (np.random.random(3).tolist(), random.random()) == expected


def test_slices_for_two_dimensions(each_backend):
    """A patch is one slice's; all slices come up; the slices' axis is never mirrored; the turn is within the slice."""
    stored = volume((6, 28, 32))
    stored.classes[:] = np.arange(6, dtype=np.uint8)[:, None, None]
    spatial = [("rotate", {"z": (-180, 180), "y": (40, 40)}), ("scale", {"factor": (0.8, 1.2)})]
    made = source(plan(spatial, 1, mirror_sides="blind"), (16, 20))
    slices = set()
    for step in range(40):
        sample = make_sample(made, stored, Ticket("train", step, 0))
        assert sample.image.shape == (1, 16, 20) and sample.labels.shape == (16, 20)
        values = set(np.unique(sample.labels)) - {0}
        assert len(values) <= 1  # never two slices in one patch
        slices |= values
    assert slices == {1, 2, 3, 4, 5}
    rng = np.random.default_rng(0)
    assert not any(0 in augment.draw(plan(), SIDES, 2, rng).mirrored for _ in range(50))


def test_outside_of_a_small_volume(each_backend):
    stored = volume((10, 28, 32))
    stored.voxels[:] += 5
    for padding, expected in (("zero", 0.0), ("minimum", None)):
        sample = make_sample(source(None, (16, 16, 16), padding=padding), stored, Ticket("train", 0, 0))
        assert np.all(sample.labels[:3] == 0) and np.all(sample.labels[-3:] == 0)
        lowest = sample.image[:, 3:13].min(1, keepdims=True)
        np.testing.assert_array_equal(sample.image[:, :3], np.broadcast_to(lowest if expected is None else expected, (1, 3, 16, 16)))


def test_with_an_ignore_label_every_patch_shows_what_somebody_annotated(each_backend):
    stored = volume((40, 40, 40))
    stored.classes[:] = 9
    stored.classes[35:38, 3, 20] = 0
    for ignore in (9, None):
        samples = [make_sample(source(None, (8, 8, 8), ignore=ignore), stored, Ticket("train", s, 0)) for s in range(20)]
        assert all((s.labels != 9).any() for s in samples) == (ignore == 9)


def test_peer_transforms_run_on_several_channels(each_backend):
    peer = plan(
        [
            ("rotate", {"z": (-30, 30), "y": (-30, 30), "x": (-30, 30)}),
            ("noise", {"deviation": (0, 0.1)}),
            ("blur", {"sigma": (0.5, 1)}),
            ("brightness", {"factor": (0.75, 1.25)}),
            ("contrast", {"factor": (0.75, 1.25)}),
            ("low_resolution", {"factor": (0.5, 1)}),
            ("gamma", {"exponent": (0.7, 1.5)}),
        ],
        1,
        statistics="patch",
        interpolation=(1, 1),
    )
    sample = make_sample(source(peer), volume(channels=3), Ticket("train", 0, 0))
    assert sample.image.shape == (3, 16, 16, 16) and np.isfinite(sample.image).all() and sample.image.dtype == np.float32
    assert set(np.unique(sample.labels)) <= {0, 1, 2}


def test_a_plan_without_its_ranges_is_refused_by_key():
    with pytest.raises(PlanError, match=r"transforms\.0 \(noise\)"):
        augment.check(plan([("noise", {"variance": (0, 1)})]))
    augment.check(plan())
    augment.check(plan([("rotate", {"z": (-180, 180)})]))
