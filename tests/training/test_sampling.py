"""All chance of a sample comes from (seed, fold, step, index), and the draws are those of the paper and the peer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from autoseg.planning.schema import OversamplingPlan
from autoseg.preprocessing.store import ANNOTATED
from autoseg.training import sampling
from autoseg.training.sampling import CaseOrder, Ticket

CASES = tuple(f"case_{i:02d}" for i in range(16))


def order(**changes) -> CaseOrder:
    return replace(CaseOrder(CASES, "shuffled_queue", seed=3, fold_key=11, batch_size=2, steps_per_epoch=150), **changes)


def epoch_cases(of: CaseOrder, epoch: int) -> list[str]:
    first = epoch * of.steps_per_epoch
    return [sampling.draw_case(of, Ticket("train", first + s, i)) for s in range(of.steps_per_epoch) for i in range(of.batch_size)]


def test_queue_takes_from_the_head_and_puts_back_at_the_end():
    cases = epoch_cases(order(), 0)
    queue = cases[:16]  # the first round shows the shuffled queue
    assert sorted(queue) == sorted(CASES)
    for batch in range(150):
        taken, queue = queue[:2], queue[2:] + queue[:2]
        assert cases[2 * batch : 2 * batch + 2] == taken


def test_queue_of_paper_shows_each_case_18_or_19_times_and_never_twice_in_a_batch():
    cases = epoch_cases(order(), 4)
    assert set(Counter(cases).values()) == {18, 19}  # 300 patches of 16 cases: 18.75 (paper.md item 8)
    assert all(a != b for a, b in zip(cases[::2], cases[1::2], strict=True))


def test_queue_is_reshuffled_each_epoch_seed_and_fold():
    first = epoch_cases(order(), 0)[:16]
    assert first != epoch_cases(order(), 1)[:16]
    assert first != epoch_cases(order(seed=4), 0)[:16]
    assert first != epoch_cases(order(fold_key=12), 0)[:16]
    assert first == epoch_cases(order(), 0)[:16]


def test_with_replacement_is_uniform_and_repeats_in_batches():
    cases = [c for e in range(20) for c in epoch_cases(order(rule="with_replacement"), e)]
    counts = np.array([Counter(cases)[c] for c in CASES])
    expected = len(cases) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # chi-square, 15 degrees, p .001
    twice = np.mean([a == b for a, b in zip(cases[::2], cases[1::2], strict=True)])
    assert twice == pytest.approx(1 / 16, abs=0.02)


def test_fold_key_tells_folds_and_configurations_apart():
    keys = {sampling.fold_key(c, f) for c in ("2d", "3d_fullres") for f in (0, 1, 2, 3, 4, "full")}
    assert len(keys) == 12
    assert sampling.fold_key("2d", 0) == sampling.fold_key("2d", 0)


@pytest.mark.parametrize(("share", "batch", "forced"), [(0.33, 2, [1]), (0.33, 12, [8, 9, 10, 11]), (0.0, 4, []), (1.0, 3, [0, 1, 2])])
def test_forced_elements_are_those_of_the_peer(share, batch, forced):
    plan = OversamplingPlan(foreground=share, by="class")
    assert [j for j in range(batch) if sampling.is_forced(plan, j, batch)] == forced


def draw_classes(by: str, class_cases=None) -> Counter:
    locations = {1: np.full((3000, 3), 1), 2: np.full((1000, 3), 2), 3: np.zeros((0, 3), int), 4: np.full((500, 3), 4)}
    rng = np.random.default_rng(0)
    return Counter(sampling.draw_voxel(locations, by, class_cases or {}, rng)[0] for _ in range(4000))


def test_forced_voxel_by_class_voxel_and_rarity():
    even = draw_classes("class")
    assert set(even) == {1, 2, 4}
    assert all(n / 4000 == pytest.approx(1 / 3, abs=0.03) for n in even.values())
    voxels = draw_classes("voxel")
    assert voxels[1] / 4000 == pytest.approx(3000 / 4500, abs=0.03)
    rare = draw_classes("rarity", {1: 10, 2: 10, 4: 1})
    assert rare[4] / 4000 == pytest.approx(1 / (1 + 0.1 + 0.1), abs=0.03)


def test_a_case_without_foreground_gives_none_though_it_has_annotated_voxels():
    empty = {1: np.zeros((0, 3), int), ANNOTATED: np.full((7, 3), 5)}
    assert sampling.draw_voxel(empty, "class", {}, np.random.default_rng(0)) is None


def test_free_starts_are_uniform_over_every_whole_voxel_position():
    rng = np.random.default_rng(0)
    starts = Counter(sampling.draw_place((10, 9, 8), (4, 8, 8), None, rng).start for _ in range(7000))
    assert set(starts) == {(z, y, 0) for z in range(7) for y in range(2)}
    assert max(starts.values()) < 1.3 * min(starts.values())


def test_free_centres_are_uniform_between_half_a_patch_from_either_edge():
    rng = np.random.default_rng(0)
    places = [sampling.draw_place((30, 30, 30), (10, 11, 30), None, rng) for _ in range(4000)]
    centres = np.array([p.centre for p in places]) + 0.5  # from the edge, not from the first voxel's centre
    assert centres[:, 0].min() >= 5 and centres[:, 0].max() <= 25
    assert centres[:, 0].mean() == pytest.approx(15, abs=0.3) and centres[:, 0].std() == pytest.approx(20 / 12**0.5, abs=0.2)
    assert np.all(centres[:, 2] == 15)


def test_a_forced_patch_shows_its_voxel_and_stays_inside():
    rng = np.random.default_rng(0)
    for voxel in [(0, 0, 0), (19, 29, 39), (10, 15, 20)]:
        box = sampling.draw_place((20, 30, 40), (8, 8, 8), voxel, rng).box
        assert all(low <= v < high for v, (low, high) in zip(voxel, box, strict=True))
        assert all(low >= 0 and high <= n for (low, high), n in zip(box, (20, 30, 40), strict=True))
    assert sampling.draw_place((20, 30, 40), (8, 8, 8), (10, 15, 20), rng).start == (6, 11, 16)


def test_a_volume_smaller_than_the_patch_stands_in_its_middle():
    place = sampling.draw_place((5, 30, 8), (8, 8, 8), (2, 15, 3), np.random.default_rng(0))
    assert place.start == (-2, 11, 0)
    assert place.box[0] == (-2, 6)


def test_tickets_follow_the_epochs_from_wherever_a_run_goes_on():
    whole = list(sampling.tickets(0, 0, 3, 2, 2, 1))
    assert [t.stream for t in whole] == (["train"] * 6 + ["held_out"] * 2) * 2
    assert [t.step for t in whole if t.stream == "train"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert list(sampling.tickets(1, 1, 3, 2, 2, 1)) == whole[10:]
    assert list(sampling.tickets(0, 3, 3, 2, 2, 1)) == whole[6:]  # only the held-out batches of epoch 0 are missing
    assert len(list(islice(sampling.tickets(0, 0, 3, None, 2, 0), 1000))) == 1000
