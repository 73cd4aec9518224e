"""Augmented samples beside batchgenerators' and nnU-Net's: the same policy, the same draws of what happens, one thread each, in turn.

    python tests/benchmarks/bench_augmentation.py [--peer /path/to/peer/bin/python] [--samples 50] [--alone]

`paper` is the policy of the recipe covid19-ct at spline order 3 on a volume of 160 x 160 x 160, beside batchgenerators' transforms;
`peer` is nnU-Net's, in the recipe nnunet's form on a volume of 205 x 205 x 205, beside batchgeneratorsv2's (the peer's Python must have
`nnunetv2`). A sample is 128 x 128 x 128 with one channel and two labels. For each sample it is drawn once which transforms happen, and
both sides do these, each with numbers of its own; the sides are processes that take turns, so that a busy machine is as busy for both.
Times are means over the samples: of the process's CPU time, and of the clock. --alone times each transform by itself instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

PATCH = (128, 128, 128)
VOLUME = {"paper": 160, "peer": 205}
RECIPE = {"paper": "covid19-ct", "peer": "nnunet"}
WARM_UPS = 8
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "BLOSC")}


def make_volume(length: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (1, z, y, x) with structure and noise, and labels (z, y, x) of two blobs; without scipy, which a side may lack."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, length, length, length)).astype(np.float32)
    z, y, x = (np.arange(length).reshape(shape) / length for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    image += np.float32(2) * (np.sin(9 * z) * np.cos(7 * y) + np.sin(11 * x)).astype(np.float32)
    labels = ((z - 0.4) ** 2 + (y - 0.5) ** 2 + (x - 0.45) ** 2 < 0.05).astype(np.uint8)
    labels[(z - 0.6) ** 2 + (y - 0.5) ** 2 + (x - 0.6) ** 2 < 0.02] = 2
    return image, labels


def ours(policy: str):
    """A function of what happens, (transforms by number, mirrored axes), that makes a sample."""
    from types import SimpleNamespace

    from autoseg.planning.recipes import load_recipe
    from autoseg.preprocessing.store import ChannelStatistics
    from autoseg.training import augmentation as augment
    from autoseg.training.augmentation.material import patch, read
    from autoseg.training.sampling import draw_place

    image, labels = make_volume(VOLUME[policy])
    plan = load_recipe(RECIPE[policy]).values.training.augmentation
    known = (ChannelStatistics(float(image.mean()), float(image.std()), float(image.min()), float(image.max())),)
    cut = lambda array, box: np.array(array[(..., *(slice(*side) for side in box))])  # noqa: E731 - a store gives arrays of its own
    stored = SimpleNamespace(
        shape=labels.shape, channels=1, statistics=known, image=lambda box: cut(image, box), labels=lambda box: cut(labels, box)
    )
    rng = np.random.default_rng(1)

    def make(fires: list[int], mirrored: list[int]) -> np.ndarray:
        happen = [plan.transforms[n] for n in fires]
        drawn = augment.Drawn(
            intensity=tuple(t for t in happen if t.do not in augment.SPATIAL),
            spatial=tuple(t for t in happen if t.do in augment.SPATIAL),
            mirrored=tuple(mirrored),
        )
        place = draw_place(labels.shape, PATCH, None, rng)
        return patch(*read(augment.Wanted(plan, drawn, place, 3, "zero", False), stored, rng))[0]

    return make


def batchgenerators(policy: str):
    """The paper's transforms as batchgenerators has them, in the paper's order; each happens always, if it is asked for."""
    from batchgenerators.transforms import color_transforms as color
    from batchgenerators.transforms.noise_transforms import GaussianNoiseTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

    image, labels = make_volume(VOLUME[policy])
    turn, mirror = np.deg2rad([-15, 15]), MirrorTransform((0, 1, 2))  # each axis by its own chance, as ours
    steps = [
        color.ContrastAugmentationTransform((0.3, 3), preserve_range=True, per_channel=True, p_per_sample=1),
        color.BrightnessMultiplicativeTransform((0.5, 2), per_channel=True, p_per_sample=1),
        color.GammaTransform((0.7, 1.5), invert_image=False, per_channel=True, retain_stats=True, p_per_sample=1),
        GaussianNoiseTransform((0, 0.05), p_per_sample=1),
    ]

    def make(fires: list[int], _mirrored: list[int]) -> np.ndarray:
        data = {"data": image[None].copy(), "seg": labels[None, None].astype(np.float32)}
        data = mirror(**data)
        for number in fires:
            if number < 4:
                data = steps[number](**data)
        spatial = SpatialTransform(
            PATCH,
            [length // 2 for length in PATCH],
            do_elastic_deform=4 in fires,
            alpha=(0, 900),
            sigma=(9, 13),
            do_rotation=5 in fires,
            angle_x=turn,
            angle_y=turn,
            angle_z=turn,
            do_scale=6 in fires,
            scale=(0.85, 1.25),
            border_mode_data="constant",
            border_cval_data=0,
            order_data=3,
            order_seg=0,
            random_crop=True,
            p_el_per_sample=1,
            p_rot_per_sample=1,
            p_scale_per_sample=1,
        )
        return spatial(**data)["data"][0]

    return make


def batchgeneratorsv2(policy: str):
    """nnU-Net's own training transforms; each happens always, if it is asked for."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    image, labels = make_volume(VOLUME[policy])
    image, labels = torch.from_numpy(image), torch.from_numpy(labels[None].astype(np.int16))
    turn = np.deg2rad(30)
    composed = nnUNetTrainer.get_training_transforms(np.array(PATCH), (-turn, turn), None, (0, 1, 2), False)
    spatial, randoms = composed.transforms[0], composed.transforms[1:8]

    def make(fires: list[int], _mirrored: list[int]) -> np.ndarray:
        spatial.p_rotation, spatial.p_scaling = float(0 in fires), float(1 in fires)
        for number, transform in enumerate(randoms, start=2):
            transform.apply_probability = 1.1 if number in fires else -1
        return composed(image=image.clone(), segmentation=labels.clone())["image"].numpy()[0]

    return make


SIDES = {"ours": ours, "batchgenerators": batchgenerators, "batchgeneratorsv2": batchgeneratorsv2}


def serve(side: str, policy: str) -> None:
    """A side's process: a line of what happens comes, a line of seconds goes."""
    make = SIDES[side](policy)
    for line in sys.stdin:
        fires, mirrored = json.loads(line)
        cpu, clock = time.process_time(), time.perf_counter()
        shape = make(fires, mirrored).shape
        seconds = time.process_time() - cpu, time.perf_counter() - clock
        assert shape[-3:] == PATCH
        print(json.dumps(seconds), flush=True)


class Side:
    """A process that makes samples when asked."""

    def __init__(self, python: str, side: str, policy: str) -> None:
        command = [python, __file__, "--serve", side, policy]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD})

    def sample(self, fires: list[int], mirrored: list[int]) -> tuple[float, float]:
        """Seconds of CPU and of the clock."""
        self.process.stdin.write(json.dumps([fires, mirrored]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        while line and not line.startswith("["):  # what a library has to say
            line = self.process.stdout.readline()
        return tuple(json.loads(line))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(policy: str, python: str, other: str, samples: int, alone: bool) -> None:
    """Print a table of both sides."""
    from autoseg.planning.recipes import load_recipe

    plan = load_recipe(RECIPE[policy]).values.training.augmentation
    names = [t.do + (" inverted" if t.invert else "") for t in plan.transforms]
    sides = {"ours": Side(sys.executable, "ours", policy), other: Side(python, other, policy)}
    for side in sides.values():
        for _ in range(WARM_UPS):
            side.sample(list(range(len(names))), [0, 1, 2])
    rng = np.random.default_rng(12)
    if alone:
        rows = [(name, [[n]] * samples) for n, name in enumerate(names)] + [("mirror", [[]] * samples)]
    else:
        rows = [("policy", [[n for n, t in enumerate(plan.transforms) if rng.random() < t.probability] for _ in range(samples)])]
    print(f"{policy}: {samples} samples a row, volume {VOLUME[policy]}, patch {PATCH}, spline orders {list(plan.interpolation)}")
    for name, patterns in rows:
        mirrors = [[axis for axis in range(3) if name == "mirror" or rng.random() < 0.5] for _ in patterns]
        times = np.array([[side.sample(*what) for side in sides.values()] for what in zip(patterns, mirrors, strict=True)])
        mean = times.mean(0)  # (side, kind)
        spatial = np.mean([any(plan.transforms[n].do in ("elastic", "rotate", "scale") for n in p) for p in patterns])
        text = ", ".join(
            f"{kind}: ours {mean[0, k]:.4f} s, {other} {mean[1, k]:.4f} s, {mean[1, k] / mean[0, k]:.1f} times"
            for k, kind in enumerate(("CPU", "clock"))
        )
        print(f"  {name:22s} {text}; resampled {spatial:.0%}", flush=True)
    for side in sides.values():
        side.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has nnunetv2")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--alone", action="store_true", help="each transform by itself")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    compare("paper", sys.executable, "batchgenerators", options.samples, options.alone)
    if options.peer:
        compare("peer", options.peer, "batchgeneratorsv2", options.samples, options.alone)


if __name__ == "__main__":
    main()
