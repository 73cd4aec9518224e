"""No case is measured or prepared twice, a killed run goes on, and two runs at once do no harm."""

from __future__ import annotations

import filecmp
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest

from autoseg import pipeline
from autoseg.cli.main import main
from autoseg.data import reading
from autoseg.files import Work
from autoseg.fingerprint import measure as measuring
from autoseg.preprocessing.store import open_case, stored_cases


@pytest.fixture
def reads(monkeypatch):
    """(measuring, storing): names of the cases that either reads."""
    real, measured, stored = reading.read_case, [], []

    def counted(names):
        def read(files, *arguments, **more):
            names.append(files.case)
            return real(files, *arguments, **more)

        return read

    monkeypatch.setattr(measuring, "read_case", counted(measured))
    monkeypatch.setattr(reading, "read_case", counted(stored))
    return measured, stored


def plan(dataset: Path, work: Path, settings=None, **more):
    return pipeline.plan_and_preprocess(dataset, work, settings=settings, workers=0, quiet=True, **more)


def command(dataset: Path, work: Path, settings: dict, **more) -> subprocess.Popen:
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={str(value).replace(' ', '')}")]
    arguments = ["plan-and-preprocess", dataset, work, "--workers", "2", "--quiet", *given]
    python = [sys.executable, "-m", "autoseg.cli.main", *map(str, arguments)]
    said_to = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(python, start_new_session=True, cwd=work.parent, **said_to, **more)  # a checkout would hide the installation


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def assert_same_work(one: Work, other: Work) -> None:
    for path in (one.plan, one.fingerprint, one.folds, one.dataset):
        assert filecmp.cmp(path, other.path / path.name, shallow=False), path.name
    names = stored_cases(one.store("3d_fullres"))
    assert names and names == stored_cases(other.store("3d_fullres"))
    for name in names:
        a, b = open_case(one.store("3d_fullres"), name), open_case(other.store("3d_fullres"), name)
        assert np.array_equal(a.image(), b.image()) and np.array_equal(a.labels(), b.labels())


def test_a_changed_file_is_measured_and_stored_again(make_dataset, tiny, tmp_path, reads):
    dataset, work = make_dataset(cases=8), tmp_path / "work"
    plan(dataset, work, tiny)
    before = open_case(Work(work).store("3d_fullres"), "case_03").image()
    for names in reads:
        names.clear()
    path = dataset / "imagesTr" / "case_03_0000.nii.gz"
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[2, 3, 4] += 5
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    plan(dataset, work)
    assert reads == (["case_03"], ["case_03"])
    assert not np.array_equal(before, open_case(Work(work).store("3d_fullres"), "case_03").image())


def test_ten_added_cases_are_ten_cases_of_work(make_dataset, tiny, tmp_path, reads):
    every, dataset, work = make_dataset(cases=25, name="every"), tmp_path / "dataset", tmp_path / "work"
    shutil.copytree(every, dataset)
    added = [f"case_{n:02d}" for n in range(15, 25)]
    for path in [*dataset.rglob("*.nii.gz")]:
        if path.name[:7] in added:
            path.unlink()
    plan(dataset, work, tiny)
    assert [len(names) for names in reads] == [15, 15]
    for names in reads:
        names.clear()
    shutil.copytree(every, dataset, dirs_exist_ok=True)
    plan(dataset, work)
    assert reads == (added, added)
    for names in reads:
        names.clear()
    plan(dataset, work)
    assert reads == ([], [])
    plan(dataset, work, {**tiny, "patch_size": [8, 8, 8]}, replan=True)  # a patch changes no stored case
    assert reads == ([], [])
    plan(dataset, work, {**tiny, "spacing": [2.5, 1.0, 1.0]}, replan=True)
    assert (len(reads[0]), len(reads[1])) == (0, 25)


def test_two_runs_at_once_do_no_harm(make_dataset, tiny, tmp_path):
    dataset, alone, work = make_dataset(cases=12), Work(tmp_path / "alone"), Work(tmp_path / "work")
    plan(dataset, alone.path, tiny)
    runs = [command(dataset, work.path, tiny) for _ in range(2)]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert 0 in [run.returncode for run in runs]
    for run, text in zip(runs, said, strict=True):
        assert run.returncode == 0 or "BusyError" in text or "another process works on" in text, text
    assert_same_work(alone, work)
    assert not temporaries(work.path)


@pytest.mark.slow  # each run starts its processes anew
@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_and_leaves_nothing_behind(make_dataset, tiny, tmp_path):
    dataset, alone, work = make_dataset(cases=60, shape=(20, 72, 72)), Work(tmp_path / "alone"), Work(tmp_path / "work")
    assert command(dataset, alone.path, tiny).wait(200) == 0
    stored, chance = work.store("3d_fullres"), random.Random(0)
    for folder, pattern in [(work.measured, "[!.]*.npz")] * 4 + [(stored, "[!.]*.json")] * 4:
        before = len(list(folder.glob(pattern)))
        wanted = before + chance.randint(3, 12)
        run = command(dataset, work.path, tiny)
        while len(list(folder.glob(pattern))) < wanted and run.poll() is None:
            time.sleep(0.002)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        now = len(list(folder.glob(pattern)))
        print(f"killed with {now} of 60 in {folder.name}")
        assert wanted <= now < 60, "it was killed in the middle, and what was there has stayed"
    (work.measured / ".abcdef-1-00000000.case.npz").write_bytes(b"of another machine")
    run = command(dataset, work.path, tiny)
    assert run.wait(200) == 0
    assert_same_work(alone, work)
    assert [path.name for path in temporaries(work.path)] == [".abcdef-1-00000000.case.npz"], "another machine may still write its own"


@pytest.mark.parametrize("delay", [0.5, 1.5])
def test_an_interrupted_run_says_one_line_and_leaves_no_process(make_dataset, tiny, tmp_path, delay):
    """Ctrl-C reaches every process of the terminal: while they import, while they measure, while they store."""

    def hear():  # a shell's background jobs, such as a CI's, are deaf to it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    run = command(make_dataset(cases=60, shape=(20, 72, 72)), tmp_path / "work", tiny, preexec_fn=hear)
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[0]
    # Python itself ends so where the interrupt met an import that executes text; a shell calls both 130
    assert run.returncode in (130, -signal.SIGINT), said
    assert said.splitlines()[-1].startswith("autoseg: interrupted") and "Traceback" not in said, said
    until = time.monotonic() + 5
    while (left := [p for p in psutil.pids() if _session(p) == run.pid]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def test_a_disk_that_is_full_from_the_start_is_said_in_a_line_without_traceback(make_dataset, tiny, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    run = command(make_dataset(cases=3), tmp_path / "work", tiny, preexec_fn=limit)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 2 and "no room to write it" in said and "Traceback" not in said and "Logging error" not in said, said
    assert not temporaries(tmp_path / "work")


def test_a_full_disk_is_named_and_nothing_half_written_stays(make_dataset, tiny, tmp_path):
    dataset, work = make_dataset(cases=6, shape=(24, 64, 64)), Work(tmp_path / "work")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # a stored image takes more

    run = command(dataset, work.path, tiny, preexec_fn=limit)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 2 and "ResourceError: no room to write it" in said and "case_05" in said, said
    assert not temporaries(work.path)
    assert not stored_cases(work.store("3d_fullres"))
    assert main(["plan-and-preprocess", str(dataset), str(work.path), "--workers", "0", "--quiet"]) == 0  # with room it goes on
    assert len(stored_cases(work.store("3d_fullres"))) == 6
