"""`plan-and-preprocess` beside nnU-Net's command: whole processes in turn, wall time and peak memory of the process tree.

    python tests/benchmarks/bench_preprocess.py DATASET --peer /path/to/peer/environment [--runs 3]

DATASET is in nnU-Net's raw layout. Ours uses the number of processes that it chooses by itself, the peer two; each run starts from
nothing, after one run of each that measures memory and also leaves the bytecode that an installed command has. Only 3d_fullres is
preprocessed, on both sides.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from process_tree import peak_gb_of, seconds_of

WORKERS = "2"  # of the peer
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": ""}


def ours(measure: Callable[..., float], dataset: Path, folder: Path) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "autoseg.cli.main"] if shutil.which("autoseg") is None else ["autoseg"]
    return measure([*command, "plan-and-preprocess", dataset, folder, "--quiet"], ENVIRONMENT)


def theirs(measure: Callable[..., float], dataset: Path, folder: Path, peer: Path) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folders = {f"nnUNet_{name}": folder / name for name in ("raw", "preprocessed", "results")}
    for path in folders.values():
        path.mkdir(parents=True)
    shutil.copytree(dataset, folders["nnUNet_raw"] / "Dataset001_x")
    command = [peer / "bin" / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", WORKERS, "-npfp", WORKERS]
    return measure(command, ENVIRONMENT | {name: str(path) for name, path in folders.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--peer", type=Path, help="folder of a virtual environment with nnunetv2")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        here, there = (options.dataset, Path(scratch) / "ours"), (options.dataset, Path(scratch) / "peer", options.peer)
        peak, other_peak = ours(peak_gb_of, *here), theirs(peak_gb_of, *there) if options.peer else 0.0
        a, b = [], []
        for _ in range(options.runs):
            b += [theirs(seconds_of, *there)] if options.peer else []
            a += [ours(seconds_of, *here)]
    seconds = statistics.median(a)
    line = f"plan-and-preprocess {options.dataset.name}: ours {seconds:.1f} s, {peak:.2f} GiB"
    if b:
        other = statistics.median(b)
        line += f" | peer {other:.1f} s, {other_peak:.2f} GiB | {other / seconds:.1f} times as fast, {peak / other_peak:.2f} of the memory"
    print(line)


if __name__ == "__main__":
    main()
