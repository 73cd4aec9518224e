"""Memory of measuring and of storing one large case, each in a fresh process, beyond what is resident after imports and a small case.

    python tests/benchmarks/bench_memory.py [--case ct-nifti ct-mha mr-nifti] [--profile] [--scale 1.0]

The cases are made in a temporary folder: CT, int16 600x512x512, as .nii.gz and as .mha, and two channels in one float32 .nii.gz of
240x400x400 with zeros around the body, each with a label map. Printed are GB, multiples of the case in float32 (all channels), and
seconds. `--profile` adds, for each function of a stage, the highest mark while it ran: of reading, measures, cropping, intensity steps,
resampling and writing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np

KINDS = {
    "ct-nifti": (".nii.gz", (600, 512, 512), (1.0, 0.75, 0.75), ("CT",)),
    "ct-mha": (".mha", (600, 512, 512), (1.0, 0.75, 0.75), ("CT",)),
    "mr-nifti": (".nii.gz", (240, 400, 400), (1.0, 0.6, 0.6), ("T1", "T2")),
}
ACTIONS = ("measure", "store", "store-resampled")  # on the spacing as it is, and on one 2 % coarser, which is the most that is held
STAGES = {
    "reading": ("autoseg.data.reading.read_pixels", "autoseg.data.reading._labels_of", "autoseg.data.reading._fill"),
    "content key": ("autoseg.data.reading.content_key",),
    "measures": (
        "autoseg.fingerprint.case_measures.measure_channel",
        "autoseg.fingerprint.case_measures.label_counts",
        "autoseg.fingerprint.case_measures.measure_sides",
        "autoseg.fingerprint.case_measures.label_places",
        "autoseg.fingerprint.case_measures.sign",
        "autoseg.fingerprint.case_measures.nonzero_box",
    ),
    "cropping": ("autoseg.preprocessing.prepare.nonzero_box", "autoseg.preprocessing.prepare._inside_mask"),
    "intensity": ("autoseg.preprocessing.prepare.apply_steps_in_place",),
    "resampling": ("autoseg.preprocessing.prepare.resample_image", "autoseg.preprocessing.prepare._labels"),
    "writing": (
        "autoseg.preprocessing.preprocess._write_reference",
        "autoseg.preprocessing.store.write_array",
        "autoseg.preprocessing.store.sample_locations",
        "autoseg.preprocessing.store._statistics",
    ),
}


def make_dataset(folder: Path, kind: str, scale: float, cases: int = 1) -> Path:
    """A dataset of large cases, in the layout of nnU-Net; `scale` shrinks every axis."""
    import SimpleITK as sitk

    ending, shape, spacing, channels = KINDS[kind]
    shape = tuple(max(16, round(n * scale)) for n in shape)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        image, labels = made_volume(shape, channels, number)
        for name, array in (("imagesTr", image), ("labelsTr", labels)):
            volume = sitk.GetImageFromArray(array, isVector=False)
            volume.SetSpacing((*spacing[::-1], 1.0)[: volume.GetDimension()])
            sitk.WriteImage(
                volume, str(folder / name / f"case_{number}{'_0000' if array.ndim == 3 and name == 'imagesTr' else ''}{ending}")
            )
    content = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, "left_organ": 1, "right_organ": 2, "lesion": 3},
        "numTraining": cases,
        "file_ending": ending,
    }
    if len(channels) > 1:  # one file with all channels is not of nnU-Net's layout
        content["training"] = [{"image": f"imagesTr/case_{n}{ending}", "label": f"labelsTr/case_{n}{ending}"} for n in range(cases)]
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def made_volume(shape: tuple[int, ...], channels: tuple[str, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body with organs in it: CT int16 in air, other channels float32 in zeros; and its label map."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    is_ct = channels == ("CT",)
    image = np.zeros((len(channels), *shape), np.int16 if is_ct else np.float32)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    for z, height in enumerate(np.linspace(-1, 1, shape[0])):
        body = (y / 0.7) ** 2 + (x / 0.85) ** 2 + 0.3 * height**2 < 1
        for value, (cy, cx, size) in {1: (0, 0.4, 0.3), 2: (0, -0.4, 0.3), 3: (0.1, 0.4, 0.08)}.items():
            labels[z][((y - cy) ** 2 + (x - cx) ** 2 + height**2 < size) if value < 3 else (y - cy) ** 2 + (x - cx) ** 2 < size**2] = value
        for channel in image:
            if is_ct:
                channel[z] = np.where(body, 40, -1000) + 60 * (labels[z] > 0) + rng.normal(0, 12, shape[1:])
            else:
                channel[z] = body * (rng.normal(100, 10, shape[1:]) + 40 * labels[z])
    return (image[0] if is_ct else image), labels


def act(folder: Path, small: Path, action: str, profile: bool) -> dict:
    """What one process does: the small case first, then the large one, measured."""
    from autoseg.files import Work
    from autoseg.fingerprint.measure import measure
    from autoseg.memory import PeakRam, resident_gb

    def ready(dataset_folder: Path) -> Callable[[], object]:
        from autoseg.data.folders.layouts import open_dataset

        dataset = open_dataset(dataset_folder)
        if action == "measure":
            return lambda: measure(dataset, orientation="lps", workers=0)
        from autoseg.planning.schema import Plan
        from autoseg.preprocessing.preprocess import preprocess

        fingerprint, text = _planned(dataset_folder)
        plan, work = Plan.model_validate_json(text), Work(dataset_folder / "work")
        part = plan.configurations["3d_fullres"]
        if action == "store-resampled":
            part = part.model_copy(update={"spacing": [1.02 * mm for mm in part.spacing]})
        plan = plan.model_copy(update={"configurations": {"3d_fullres": part, "3d_lowres": part}})  # two alike, one after the other

        def store() -> None:
            problems = preprocess(dataset, fingerprint, plan, work, configurations=list(plan.configurations), workers=0)
            assert not problems, problems

        return store

    ready(small)()
    run = ready(folder)
    marks: dict[str, list[float]] = {}
    before = resident_gb()
    begun = time.perf_counter()
    if profile:
        with _watched(marks, before):
            run()
        peak = max(high for high, _ in marks.values())
    else:
        with PeakRam(before) as seen:
            run()
        peak = seen.gb
    return {"gb": peak, "seconds": time.perf_counter() - begun, "marks": marks}


def _planned(folder: Path):
    from autoseg.fingerprint.types import Fingerprint

    return Fingerprint.model_validate_json((folder / "fingerprint").read_text()), (folder / "plan").read_text()


def make_plan(folder: Path) -> None:
    """Fingerprint and plan of a dataset, beside it."""
    from autoseg.data.folders.layouts import open_dataset
    from autoseg.fingerprint.measure import measure
    from autoseg.planning.planner import plan
    from autoseg.planning.recipes import load_recipe
    from autoseg.planning.schema import MadeFor

    measured = measure(open_dataset(folder), orientation="lps", workers=0)
    made = plan(measured.dataset, measured.fingerprint, load_recipe("auto"), made_for=MadeFor(device="cpu", memory_gb=8), options={})
    (folder / "fingerprint").write_text(measured.fingerprint.model_dump_json())
    (folder / "plan").write_text(made.model_dump_json())


@contextmanager
def _watched(marks: dict[str, list[float]], since: float) -> Iterator[None]:
    """Highest mark and what is held at the end, in GB, of every stage's functions; of nested ones the outer includes the inner."""
    from autoseg.memory import PeakRam, resident_gb

    def wrapped(stage: str, original: Callable) -> Callable:
        def call(*arguments, **named):
            with PeakRam(since) as peak:
                result = original(*arguments, **named)
            high, _ = marks.get(stage, (0.0, 0.0))
            marks[stage] = [max(high, peak.gb), resident_gb() - since]
            return result

        return call

    with ExitStack() as stack:
        for stage, names in STAGES.items():
            for name in names:
                module, function = name.rsplit(".", 1)
                original = getattr(import_module(module), function)
                stack.enter_context(mock.patch(name, wrapped(f"{stage}: {function}", original)))
        yield


def float32_gb(kind: str, scale: float) -> float:
    """The case with all channels in float32."""
    _, shape, _, channels = KINDS[kind]
    return len(channels) * 4 * float(np.prod([max(16, round(n * scale)) for n in shape])) / 2**30


def in_fresh_process(*arguments: object) -> dict:
    """What this file's `--act` prints."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--scale", type=float, default=1.0, help="of every axis")
    parser.add_argument("--profile", action="store_true", help="the highest mark of each stage")
    parser.add_argument("--json", action="store_true", help="print only, for each case and action, multiples of the case, and its GB")
    parser.add_argument("--keep", type=Path, help="a folder for the made cases, which are used again")
    parser.add_argument("--act", nargs=3, help=argparse.SUPPRESS)  # FOLDER SMALL ACTION, in the fresh process
    options = parser.parse_args()
    if options.act:
        folder, small, action = options.act
        found = make_plan(Path(folder)) if action == "plan" else act(Path(folder), Path(small), action, options.profile)
        print(json.dumps(found))
        return
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        for kind in options.case:
            large, small = root / f"{kind}-{options.scale}", root / f"{kind}-small"
            for folder, scale in ((large, options.scale), (small, 0.15)):
                if not folder.exists():
                    make_dataset(folder, kind, scale)
                if not (folder / "plan").is_file():
                    in_fresh_process("--act", folder, small, "plan")
            size = float32_gb(kind, options.scale)
            for action in ACTIONS:
                for path in root.glob(f"{kind}-*/work"):
                    shutil.rmtree(path)
                found = in_fresh_process(*["--profile"][: options.profile], "--act", large, small, action)
                results[f"{kind} {action}"] = (found["gb"] / size, size)
                if options.json:
                    continue
                print(
                    f"{kind} {action}: {found['gb']:.2f} GB, {found['gb'] / size:.2f} x of {size:.2f} GB, {found['seconds']:.1f} s",
                    flush=True,
                )
                for stage, (high, held) in found["marks"].items():
                    print(f"    {stage:40} peak {high / size:5.2f} x, held after it {held / size:5.2f} x")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
