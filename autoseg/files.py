"""Where everything lies in a WORK folder, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import BusyError, DatasetError, PlanError, ResourceError

SCHEMA_VERSION = 1

_TEMPORARY = re.compile(r"\.(?P<machine>[0-9a-f]{6})-(?P<process>\d+)-[0-9a-f]{8}\.")  # as `appears_whole` names them
_ABANDONED = 86_400  # seconds; no file takes a day to write


@dataclass(frozen=True)
class FoldFolder:
    """What one fold of one configuration leaves behind."""

    path: Path

    @property
    def plan(self) -> Path:
        """The plan that the fold was trained by, with everything resolved."""
        return self.path / "plan.json"

    @property
    def checkpoint(self) -> Path:
        """State to resume from."""
        return self.path / "checkpoint_last.pt"

    @property
    def weights(self) -> Path:
        """The weights that predict; there once the fold has finished training."""
        return self.path / "weights.safetensors"

    @property
    def history(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "history.jsonl"

    @property
    def cases(self) -> Path:
        """The cases that the fold is trained on, as they were when it began."""
        return self.path / "cases.json"

    @property
    def replayed(self) -> Path:
        """The history of another fold that this one repeats step by step; there if it was trained by --replay."""
        return self.path / "replayed.jsonl"

    @property
    def progress(self) -> Path:
        """Loss, Dice and learning rate over the epochs, redrawn as the fold trains."""
        return self.path / "progress.png"

    @property
    def held_out(self) -> Path:
        """Folder of the label maps predicted for the held-out cases."""
        return self.path / "held_out"

    @property
    def scores(self) -> Path:
        """Scores of the held-out cases; there once the fold is done."""
        return self.path / "scores.json"

    @property
    def previous_stage(self) -> Path:
        """Of a cascade's second stage: which weights of the first one made what it was trained on."""
        return self.path / "previous_stage.json"

    @property
    def lock(self) -> Path:
        """Held while the fold trains."""
        return self.path / ".lock"

    @property
    def state(self) -> str:
        """How far the fold is: scored, trained, begun or not begun."""
        if self.scores.is_file():
            return "scored"
        if self.weights.is_file():
            return "trained"
        return "begun" if self.checkpoint.is_file() else "not begun"


@dataclass(frozen=True)
class Work:
    """The folder that one dataset's plan, preprocessed cases, folds and scores live in."""

    path: Path

    @property
    def plan(self) -> Path:
        """Every decision, with reasons."""
        return self.path / "plan.json"

    @property
    def recipe(self) -> Path:
        """What the plan was made by, where that is no installed recipe but a file, another WORK's plan or nnU-Net's."""
        return self.path / "recipe.json"

    @property
    def fingerprint(self) -> Path:
        """What was measured about the data."""
        return self.path / "fingerprint.json"

    @property
    def dataset(self) -> Path:
        """The dataset's name, channels, groups, and the content key of each case."""
        return self.path / "dataset.json"

    @property
    def key(self) -> Path:
        """Whom numbers of patients and cases stand for, where they come from a DICOM export; readable by its owner only, never copied."""
        return self.path / "key.json"

    @property
    def folds(self) -> Path:
        """Which cases each fold trains on and holds out."""
        return self.path / "folds.json"

    @property
    def forecast(self) -> Path:
        """What `train --probe` measured: time of a step, an epoch, a fold, and peak memory."""
        return self.path / "forecast.json"

    @property
    def log(self) -> Path:
        """What every command said, and tracebacks."""
        return self.path / "log.txt"

    @property
    def measured(self) -> Path:
        """Folder of what was measured of each case, so that it is not measured again; it can be deleted."""
        return self.path / "measured"

    @property
    def lock(self) -> Path:
        """Held while cases are preprocessed."""
        return self.path / ".lock"

    @property
    def references(self) -> Path:
        """Folder of each case's label map on its own grid."""
        return self.path / "references"

    def reference(self, case: str) -> Path:
        """A case's label map on its own grid."""
        return self.references / f"{case}.nii.gz"

    def store(self, configuration: str) -> Path:
        """Folder of the preprocessed cases of one configuration."""
        return self.path / "preprocessed" / configuration

    def models(self, configuration: str) -> Path:
        """Folder of one configuration's folds and cross-validation, with its pictures."""
        return self.path / "models" / configuration

    def fold(self, configuration: str, fold: int | str) -> FoldFolder:
        """The folder of one fold."""
        return FoldFolder(self.models(configuration) / f"fold_{fold}")

    def crossval(self, configuration: str) -> Path:
        """The folds' scores joined; crossval.txt beside it is for people."""
        return self.models(configuration) / "crossval.json"

    def planned(self) -> Work:
        """Itself, if it holds a plan.

        Raises:
            DatasetError: it does not.
        """
        if not self.plan.is_file():
            inside = ", ".join(sorted(p.name for p in self.path.iterdir())[:8]) if self.path.is_dir() else "no such folder"
            raise DatasetError(
                f"{self.path.name} holds no plan.json (found: {inside or 'nothing'})",
                remedy="Give the WORK folder of plan-and-preprocess, or run that first",
            )
        return self


@contextlib.contextmanager
def appears_whole(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, with the same ending, that is renamed to it if the block succeeds.

    Args:
        durable: whether it must outlive a power failure; what can be made again need not wait for the disk.

    Raises:
        ResourceError: the disk is full, a file-size limit was hit, or the folder was taken away; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{_process()}-{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield beside
        if durable:
            _flush(beside)
        beside.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise ResourceError(
                f"no room to write it ({error.strerror})", file=path, remedy="Free disk space and run the same command again"
            ) from error
        if not path.parent.is_dir():
            raise ResourceError(
                "its folder was deleted or moved while it was written", file=path, remedy="Leave WORK as it is while a command runs"
            ) from error
        raise
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete, anywhere below a folder, what killed processes left of `appears_whole`: of this machine, or more than a day old."""
    for path in folder.rglob(".*"):
        if not (found := _TEMPORARY.match(path.name)):
            continue
        here = found["machine"] == _machine()
        with contextlib.suppress(FileNotFoundError):  # another run sweeps too
            if (here and not _runs(int(found["process"]))) or time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine does; one that has ended and that nobody asks how (a container's init may never) does not."""
    import psutil  # there is seldom anything to sweep

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's, and there
        return True


def _machine() -> str:
    """This machine in a file name; which one it is nobody can tell from it."""
    return hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()


def _process() -> str:
    return f"{_machine()}-{os.getpid()}"


def _flush(path: Path) -> None:
    if path.is_file():
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())


def write_json(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write `content` sorted, indented, with its schema, whole or not at all."""
    text = to_json_text(kind, content)
    with appears_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def to_json_text(kind: str, content: dict[str, Any]) -> str:
    """The text that `write_json` writes."""
    return json.dumps({"schema": f"autoseg.{kind}/{SCHEMA_VERSION}", **content}, indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The content of a JSON file written by `write_json`, its schema checked and removed.

    Raises:
        PlanError: it is no JSON object, or of another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"it cannot be read as JSON ({error})", file=path, remedy="Restore the file or make it anew") from error
    expected = f"autoseg.{kind}/{SCHEMA_VERSION}"
    found = content.pop("schema", None) if isinstance(content, dict) else None
    if found != expected:
        made_by = f"{found!r}" if found else "none"
        raise PlanError(
            f"its schema is {made_by}, this autoseg reads {expected!r}", file=path, remedy="Use the version of autoseg that wrote it"
        )
    return content


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with appears_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def digest(*parts: object) -> str:
    """A short key of JSON-able values or bytes: equal values, equal key."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(part if isinstance(part, bytes | bytearray | memoryview) else json.dumps(part, sort_keys=True).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; the operating system frees a dead process's lock.

    Raises:
        BusyError: another process holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(
            f"another process works on {what}", file=path, remedy="Wait for it or stop it, then run the command again"
        ) from error
    try:
        yield
    finally:
        lock.release()
