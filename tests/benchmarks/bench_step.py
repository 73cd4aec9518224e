"""A training step beside nnU-Net's: the same network, patch and batch, data included, in turn; and that both steps are the same step.

    python tests/benchmarks/bench_step.py DATASET --peer /path/to/peer/environment [--steps 20] [--rounds 3] [--set KEY=VALUE ...]

DATASET is in nnU-Net's raw layout. Our side plans by the recipe `nnunet` with the same batch. Each process warms up for three steps and
gives the median of the others. First the peer's weights and some of its batches are taken through our step: losses may differ by the
constant 1 (our Dice term counts what is missing), weights after some steps by rounding alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP, EQUAL_STEPS = 3, 4

PEER = """
import json, os, resource, sys, time
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
what, batch, steps, warm, equal, out = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
folder = os.environ["nnUNet_preprocessed"] + "/Dataset001_x"
plans = json.load(open(folder + "/nnUNetPlans.json"))
plans["configurations"]["3d_fullres"]["batch_size"] = batch
plans["continue_training"] = False
torch.set_num_threads(os.cpu_count())
trainer = nnUNetTrainer(plans, "3d_fullres", 0, json.load(open(folder + "/dataset.json")), torch.device("cpu"))
trainer.on_train_start()
trainer.on_train_epoch_start()
if what == "equal":
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    batches = [next(trainer.dataloader_train) for _ in range(equal)]
    losses = [float(trainer.train_step(b)["loss"]) for b in batches]
    kept = [(torch.as_tensor(b["data"]), torch.as_tensor(b["target"][0])) for b in batches]
    torch.save({"before": before, "batches": kept, "losses": losses, "after": trainer.network.state_dict()}, out)
    print(json.dumps({}), flush=True)
else:
    seconds = []
    for _ in range(warm + steps):
        start = time.perf_counter()
        trainer.train_step(next(trainer.dataloader_train))
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds[warm:], "peak_gb": peak}), flush=True)
os._exit(0)
"""

OURS = """
import json, resource, sys, time
from pathlib import Path
import torch
from autoseg.files import Work
from autoseg.planning.folds import read_folds
from autoseg.planning.plan_file import read_plan
from autoseg.training.patches import SampleMaker
from autoseg.training.sampling import tickets
from autoseg.training.setting import fresh_state, make_setting
from autoseg.training.step import current_rate, make_batch, train_step
from autoseg.training.optimisation import set_learning_rate
from autoseg.training.workers import SamplePool

def main():
    what, steps, warm, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    work = Work(Path(sys.argv[5]))
    plan, name = read_plan(work.plan), "3d_fullres"
    setting = make_setting(plan, name, read_folds(work.folds)[0], work.store(name), "cpu")
    state = fresh_state(setting)
    if what == "equal":
        from autoseg.network.peer import from_peer
        from autoseg.training.step import Batch
        theirs = torch.load(out, weights_only=True)
        levels = len(setting.configuration.network.features)
        state.network.load_state_dict(from_peer(theirs["before"], levels=levels, deep_supervision=True))
        losses = []
        for data, target in theirs["batches"]:
            set_learning_rate(state.optimiser, current_rate(setting, state))
            image = data.float().contiguous(memory_format=setting.layout)
            batch = Batch(image, target[:, 0].clamp(min=0).long(), ("?",) * len(image))
            losses.append(float(train_step(setting, state, batch, print).loss))
        after = from_peer(theirs["after"], levels=levels, deep_supervision=True)
        mine = state.network.state_dict()
        apart = max(float((after[k] - mine[k]).abs().max()) for k in after)
        moved = max(float((after[k] - from_peer(theirs["before"], levels=levels, deep_supervision=True)[k]).abs().max()) for k in after)
        print(json.dumps({"losses": losses, "theirs": theirs["losses"], "apart": apart, "moved": moved}))
        return
    size, seconds, waited = setting.configuration.batch_size, [], []
    wanted = tickets(0, 0, 10**6, 1, size, 0)
    with SamplePool(SampleMaker(setting.sources), wanted, workers=1, ahead=2 * size + 1, timeout=600) as samples:
        for _ in range(warm + steps):
            start = time.perf_counter()
            batch = make_batch(setting, [next(samples) for _ in range(size)])
            waited.append(time.perf_counter() - start)
            train_step(setting, state, batch, print)
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds[warm:], "waited": sum(waited[warm:]) / sum(seconds[warm:]), "peak_gb": peak}))

if __name__ == "__main__":
    main()
"""


def run(python: str | Path, code: str, arguments: list[object], folder: Path, **environment: str) -> dict:
    script = folder / "run.py"  # a file: spawned workers import the main module
    script.write_text(code, encoding="utf-8")
    command = [python, script, *map(str, arguments)]
    with (folder / "said").open("w+", encoding="utf-8") as said:  # not a pipe, which the peer's own workers would keep open
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | environment, start_new_session=True)
        process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that it left behind
        said.seek(0)
        lines = said.read().splitlines()
    answers = [line for line in lines if line.startswith("{")]
    if process.returncode or not answers:
        raise SystemExit(f"{python} failed:\n{chr(10).join(lines[-40:])}")
    return json.loads(answers[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="folder of a virtual environment with nnunetv2")
    parser.add_argument("--recipe", default="nnunet")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="more of our plan's values")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work, environment = prepare(options, folder)
        python, kept = options.peer / "bin" / "python", folder / "peer.pt"
        if options.recipe == "nnunet" and not options.set:
            run(python, PEER, ["equal", options.batch, options.steps, WARM_UP, EQUAL_STEPS, kept], folder, **environment)
            found = run(sys.executable, OURS, ["equal", options.steps, WARM_UP, kept, work], folder)
            apart = [ours - theirs for ours, theirs in zip(found["losses"], found["theirs"], strict=True)]
            print(f"losses less the peer's: {', '.join(f'{d:.6f}' for d in apart)}")
            print(f"weights after {EQUAL_STEPS} steps: {found['apart']:.1e} apart, moved by up to {found['moved']:.1e}", flush=True)
        ours, theirs, waited, peaks = [], [], [], []
        for _ in range(options.rounds):
            arguments = ["time", options.batch, options.steps, WARM_UP, EQUAL_STEPS, kept]
            other = run(python, PEER, arguments, folder, **environment)
            theirs += other["seconds"]
            found = run(sys.executable, OURS, ["time", options.steps, WARM_UP, kept, work], folder)
            ours += found["seconds"]
            waited.append(found["waited"])
            peaks.append((found["peak_gb"], other["peak_gb"]))
        a, b = statistics.median(ours), statistics.median(theirs)
        mine, peers = (statistics.median(each) for each in zip(*peaks, strict=True))
        print(f"peak memory of the process that trains, imports included: ours {mine:.2f} GiB | peer {peers:.2f} GiB, its workers apart")
        print(f"step: ours {a:.3f} s ({statistics.median(waited):.1%} waiting for data) | peer {b:.3f} s | {b / a:.2f} times its rate")


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Path, dict[str, str]]:
    folders = {f"nnUNet_{name}": folder / name for name in ("raw", "preprocessed", "results")}
    for path in folders.values():
        path.mkdir()
    shutil.copytree(options.dataset, folders["nnUNet_raw"] / "Dataset001_x")
    environment = {name: str(path) for name, path in folders.items()} | {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    command = [options.peer / "bin" / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", "2", "-npfp", "2"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment)
    values = [f"batch_size={options.batch}", *options.set]
    command = [Path(sys.executable).parent / "autoseg", "plan-and-preprocess", options.dataset, folder / "work", "--recipe", options.recipe]
    command += [part for value in values for part in ("--set", value)] + ["--config", "3d_fullres", "--quiet"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return folder / "work", environment


if __name__ == "__main__":
    main()
