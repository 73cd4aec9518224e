"""Messages on stderr, everything in a log file, tracebacks in the log alone unless they are asked for."""

from __future__ import annotations

import logging
import sys
import tempfile
import traceback
from pathlib import Path

LOGGER = logging.getLogger("autoseg")
LINE = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")


class _BesideBars(logging.Handler):
    """Writes to stderr without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """A log on a disk that may be full: what cannot be written is lost, and the command itself says why it ends."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start(*, quiet: bool, verbose: bool) -> None:
    """Send messages to stderr: warnings only with `quiet`, details with `verbose`."""
    LOGGER.handlers.clear()
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    screen = _BesideBars(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    screen.addFilter(lambda record: not getattr(record, "file_only", False))
    LOGGER.addHandler(screen)


def to_file(path: Path) -> None:
    """Keep everything in `path` too, from now on; appended, since a log tells of every run."""
    if any(isinstance(h, logging.FileHandler) and h.baseFilename == str(path.resolve()) for h in LOGGER.handlers):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path.resolve(), encoding="utf-8")
    handler.setFormatter(LINE)
    LOGGER.addHandler(handler)
    LOGGER.debug("autoseg %s", " ".join(sys.argv[1:2]), extra={"file_only": True})


def failed(error: BaseException, *, verbose: bool) -> Path:
    """Keep the traceback of `error`; where it is."""
    text = "".join(traceback.format_exception(error))
    if verbose:
        print(text, file=sys.stderr)
    files = [Path(h.baseFilename) for h in LOGGER.handlers if isinstance(h, logging.FileHandler)]
    if files:
        LOGGER.error("%s", text, extra={"file_only": True})
        return files[0]
    handle = tempfile.NamedTemporaryFile("w", prefix="autoseg-", suffix=".log", delete=False, encoding="utf-8")  # noqa: SIM115
    with handle:
        handle.write(text)
    return Path(handle.name)
