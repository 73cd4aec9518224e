"""Resampling beside nnU-Net's: the same inputs, the same cores, in turn, each in its own process.

    python tests/benchmarks/bench_resampling.py --peer /path/to/peer/bin/python [--runs 3] [--only image labels_25]

The peer's Python must have `nnunetv2` (2.8.1 is what the tables speak of). Without --peer only our own times are shown. A process
loads its input, warms up on a small part of it, and times each run alone; peaks are of the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPE, NEW = (200, 512, 512), (111, 243, 243)
CASES = {
    # name: (shape, new shape, spacing, new spacing, classes or 0 for an image, axis of thick slices, floor, goal)
    "image": (SHAPE, NEW, (1.5, 0.75, 0.75), (2.7, 1.58, 1.58), 0, None, 12, 25),
    "labels_4": (SHAPE, NEW, (1.5, 0.75, 0.75), (2.7, 1.58, 1.58), 4, None, 8, 15),
    "labels_25": (SHAPE, NEW, (1.5, 0.75, 0.75), (2.7, 1.58, 1.58), 25, None, 25, 50),
    "image_thick": ((100, 512, 512), (90, 243, 243), (5.0, 0.75, 0.75), (5.55, 1.58, 1.58), 0, 0, 8, 20),
}

PEER = """
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
def work(array, new):
    return resample_data_or_seg_to_shape(
        array[None], new, case["spacing"], case["new_spacing"], is_seg=bool(case["classes"]), order=1 if case["classes"] else 3,
        order_z=0, force_separate_z=None)[0]
"""
OURS = """
from autoseg.preprocessing import resample_image, resample_labels
def work(array, new):
    if case["classes"]:
        return resample_labels(array, new, across=case["across"])
    return resample_image(array[None], new, across=case["across"])[0]
"""
TIMED = """
import json, sys, time
from pathlib import Path
import numpy as np
case = json.loads(sys.argv[1])
{code}
array = np.load(case["input"])
work(np.ascontiguousarray(array[:20, :40, :40]), [12, 19, 19])
seconds = []
for _ in range(case["runs"]):
    start = time.perf_counter()
    result = work(array, case["new"])
    seconds.append(time.perf_counter() - start)
np.save(case["output"], result)
status = Path("/proc/self/status")  # Linux; elsewhere the peak is not shown
lines = status.read_text().splitlines() if status.exists() else []
peak = next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), float("nan"))
print(json.dumps({{"seconds": seconds, "peak_gb": peak}}))
"""


def make_input(shape: tuple[int, ...], classes: int) -> np.ndarray:
    """A z-scored image with structure and noise, or blobs of labels that touch."""
    from scipy import ndimage

    rng = np.random.default_rng(classes)

    def smooth() -> np.ndarray:
        coarse = ndimage.gaussian_filter(rng.normal(size=[n // 8 + 1 for n in shape]), 3)
        return ndimage.zoom(coarse, 8, order=1)[tuple(slice(0, n) for n in shape)]

    if classes == 0:
        image = smooth() * 40 + rng.normal(0, 0.3, shape)
        return ((image - image.mean()) / image.std()).astype(np.float32)
    best, labels = np.full(shape, 0.005), np.zeros(shape, np.uint8)  # what stays below is background
    for label in range(1, classes):
        field = smooth()
        labels[field > best] = label
        np.maximum(best, field, out=best)
    return labels


def timed(python: str, code: str, case: dict) -> dict:
    run = subprocess.run([python, "-c", TIMED.format(code=code), json.dumps(case)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{python} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def compare(name: str, peer: str | None, runs: int, rounds: int, folder: Path) -> str:
    shape, new, spacing, new_spacing, classes, across, floor, goal = CASES[name]
    array = make_input(shape, classes)
    np.save(folder / "input.npy", array if classes == 0 else array.astype(np.uint8))
    del array
    case = {"input": str(folder / "input.npy"), "new": new, "spacing": spacing, "new_spacing": new_spacing}
    case |= {"classes": classes, "across": across}
    ours, theirs, peaks = [], [], [0.0, 0.0]
    for _ in range(rounds):
        if peer:
            found = timed(peer, PEER, {**case, "runs": 1, "output": str(folder / "peer.npy")})
            theirs += found["seconds"]
            peaks[1] = max(peaks[1], found["peak_gb"])
        found = timed(sys.executable, OURS, {**case, "runs": runs, "output": str(folder / "ours.npy")})
        ours += found["seconds"]
        peaks[0] = max(peaks[0], found["peak_gb"])
    line = f"{name:<12} ours {statistics.median(ours):6.3f} s {peaks[0]:5.2f} GiB"
    if not peer:
        return line
    a, b = np.load(folder / "ours.npy"), np.load(folder / "peer.npy")
    difference = f"{(a != b).mean():.1e} of voxels differ" if classes else f"largest difference {np.abs(a - b).max():.1e}"
    ratio = statistics.median(theirs) / statistics.median(ours)
    peers = f"peer {statistics.median(theirs):6.2f} s {peaks[1]:5.2f} GiB"
    return f"{line} | {peers} | {ratio:5.1f} times (floor {floor}, goal {goal}) | {difference}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="python of an environment with nnunetv2")
    parser.add_argument("--runs", type=int, default=3, help="our runs in each round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with one run of the peer's")
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            print(compare(name, options.peer, options.runs, options.rounds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
