"""The one hook for experiment trackers: a callable that is given each epoch's row of the history.

`tensorboard` is built in (extra `[track]`); any other tracker is a function of your own, `module:function`, which is called once with the
fold's folder and gives the callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from autoseg.errors import ResourceError
from autoseg.network.factory import load_factory


class Logger(Protocol):
    """Called after each epoch."""

    def __call__(self, row: Mapping[str, Any], /) -> None:
        """row: as it stands in history.jsonl."""


def make_loggers(names: Sequence[str], folder: Path, *, epochs: int, message: Callable[[str], None]) -> list[Logger]:
    """The loggers of these names; one that fails later is told once and left out from then on, since training is worth more.

    Args:
        names: `tensorboard`, or `module:function` of a `function(folder) -> Logger`.
        folder: of the fold.
        epochs: that are behind already; what a tracker has of later ones was lost with an interruption.

    Raises:
        PlanError: no such function.
        ResourceError: tensorboard is not installed.
    """
    made = []
    for name in names:
        logger = _tensorboard(folder, epochs) if name == "tensorboard" else load_factory(name, key="--track")(folder)
        made.append(_guarded(name, logger, message))
    return made


def _guarded(name: str, logger: Logger, message: Callable[[str], None]) -> Logger:
    failed = False

    def call(row: Mapping[str, Any]) -> None:
        nonlocal failed
        if failed:
            return
        try:
            logger(row)
        except Exception as error:  # whatever a tracker raises
            failed = True
            message(f"{name} failed and is told nothing more ({type(error).__name__}: {error}); training goes on.")

    return call


def _tensorboard(folder: Path, epochs: int) -> Logger:
    """Curves under FOLD_FOLDER/tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ResourceError(
            "tensorboard is not installed", remedy="pip install 'autoseg3d[track]', or leave --track tensorboard out"
        ) from error
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs + 1 if epochs else None)

    def log(row: Mapping[str, Any]) -> None:
        for key, value in scalars(row):
            writer.add_scalar(key, value, row["epoch"])
        writer.flush()

    return log


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a row, those of classes as `dice/NAME`."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", number) for name, number in value.items() if number is not None)
        elif isinstance(value, int | float) and key not in ("epoch", "step"):
            yield key, value
