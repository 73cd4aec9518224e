"""Cases over a real Dask scheduler with two worker processes on this machine; one of them is killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import pipeline
from autoseg.errors import GridError, ResourceError
from autoseg.files import Work
from autoseg.parallel import map_cases, require_shared
from autoseg.preprocessing.store import open_case

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[str]:
    """Address of a scheduler with two workers of one thread each, all processes of their own."""
    folder = tmp_path_factory.mktemp("dask")
    said = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    common = {"cwd": folder, "env": environment, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--nanny-port", "0"]
    processes = [subprocess.Popen([*scheduler, "--scheduler-file", str(said)], **common)]
    try:
        _until(said.is_file)
        for _ in range(2):
            processes.append(subprocess.Popen([*worker, "--scheduler-file", str(said)], **common))
        address = json.loads(said.read_text())["address"]
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _until(there, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def _work(item: str) -> tuple[str, int]:
    if item.startswith("deadly") and not Path(item.partition(" ")[2]).exists():
        Path(item.partition(" ")[2]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "bad":
        raise GridError("its spacing is 0", case="bad", remedy="Correct the header")
    time.sleep(0.05)
    return item, os.getpid()


def test_a_killed_worker_s_case_is_done_by_another_and_errors_keep_their_names(cluster, tmp_path):
    deadly = f"deadly {tmp_path / 'once'}"
    items = [*(f"case_{n}" for n in range(12)), "bad", deadly]
    outcomes = {outcome.item: outcome for outcome in map_cases(_work, items, workers=0, cluster=cluster)}
    assert sorted(outcomes) == sorted(items)
    assert type(outcomes.pop("bad").error) is GridError
    assert all(outcome.value[0] == item for item, outcome in outcomes.items())
    processes = {outcome.value[1] for outcome in outcomes.values()}
    assert len(processes) >= 2 and os.getpid() not in processes


def test_a_folder_that_the_workers_do_not_see_is_named(cluster, tmp_path):
    require_shared(cluster, [tmp_path])
    with pytest.raises(ResourceError, match="do not see the folder nowhere"):
        require_shared(cluster, [tmp_path, tmp_path / "nowhere"])


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    monkeypatch.setattr("autoseg.parallel.cluster._CONNECT_SECONDS", 1)
    with pytest.raises(ResourceError, match="no Dask scheduler answers"):
        list(map_cases(str, ["a"], workers=0, cluster="tcp://127.0.0.1:1"))


def test_cases_are_prepared_and_predicted_on_a_cluster_as_they_are_here(cluster, make_dataset, tiny, tmp_path):
    dataset = make_dataset(cases=5)
    here, there = Work(tmp_path / "here"), Work(tmp_path / "there")
    pipeline.plan_and_preprocess(dataset, here.path, settings=tiny, workers=0, quiet=True)
    pipeline.plan_and_preprocess(dataset, there.path, settings=tiny, cluster=cluster, quiet=True)
    assert here.plan.read_text() == there.plan.read_text()
    for number in range(5):
        one, other = (open_case(work.store("3d_fullres"), f"case_{number:02d}") for work in (here, there))
        assert np.array_equal(one.image(), other.image()) and np.array_equal(one.labels(), other.labels())

    pipeline.train(there.path, folds=[0], workers=0, quiet=True)
    local = pipeline.predict(there.path, dataset / "imagesTr", tmp_path / "local", quiet=True)
    spread = pipeline.predict(there.path, dataset / "imagesTr", tmp_path / "spread", cluster=cluster, quiet=True)
    assert [r.case for r in local.results] == sorted(r.case for r in spread.results)
    for result in local.results:
        one, other = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name / result.output.name))) for name in ("local", "spread"))
        assert np.array_equal(one, other)
