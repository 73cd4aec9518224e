"""`plan-and-preprocess` beside nnU-Net's command: whole processes in turn, wall time and peak memory of the process tree.

    python tests/benchmarks/bench_preprocess.py DATASET --peer /path/to/peer/environment [--runs 3]

DATASET is in nnU-Net's raw layout. Ours uses the number of processes that it chooses by itself, the peer two; each run starts from
nothing, after one warm-up run of each, which also leaves the bytecode that an installed command has. Only 3d_fullres is preprocessed,
on both sides.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from process_tree import Measured, measured

WORKERS = "2"  # of the peer
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": ""}


def ours(dataset: Path, folder: Path) -> Measured:
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "autoseg.cli.main"] if shutil.which("autoseg") is None else ["autoseg"]
    return measured([*command, "plan-and-preprocess", dataset, folder, "--quiet"], environment=ENVIRONMENT)


def theirs(peer: Path, dataset: Path, folder: Path) -> Measured:
    shutil.rmtree(folder, ignore_errors=True)
    folders = {f"nnUNet_{name}": folder / name for name in ("raw", "preprocessed", "results")}
    for path in folders.values():
        path.mkdir(parents=True)
    shutil.copytree(dataset, folders["nnUNet_raw"] / "Dataset001_x")
    command = [peer / "bin" / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", WORKERS, "-npfp", WORKERS]
    return measured(command, environment=ENVIRONMENT | {name: str(path) for name, path in folders.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--peer", type=Path, help="folder of a virtual environment with nnunetv2")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    a, b = [], []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs + 1):
            if options.peer:
                found = theirs(options.peer, options.dataset, Path(folder) / "peer")
                b += [found] if run else []
            found = ours(options.dataset, Path(folder) / "ours")
            a += [found] if run else []
    seconds, peak = statistics.median(m.seconds for m in a), max(m.peak_gb for m in a)
    line = f"plan-and-preprocess {options.dataset.name}: ours {seconds:.1f} s, {peak:.2f} GiB"
    if b:
        other, other_peak = statistics.median(m.seconds for m in b), max(m.peak_gb for m in b)
        line += f" | peer {other:.1f} s, {other_peak:.2f} GiB | {other / seconds:.1f} times as fast, {peak / other_peak:.2f} of the memory"
    print(line)


if __name__ == "__main__":
    main()
