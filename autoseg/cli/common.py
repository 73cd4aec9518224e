"""Switches that commands share, and the forms of their values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import Problem, problem_table


def add_command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """A command's parser with the switches that every command has."""
    parser = commands.add_parser(name, help=summary, description=description)
    shared = parser.add_argument_group("common switches")
    shared.add_argument("--quiet", action="store_true", help="only warnings and results")
    shared.add_argument("--verbose", action="store_true", help="details, and the traceback of an error")
    return parser


def add_workers(
    parser: argparse.ArgumentParser, what: str, default: str = "as many as cores, free memory and the size of the dataset are worth"
) -> None:
    parser.add_argument("--workers", type=natural, metavar="N", help=f"{what} (default: {default}); 0: none beside the command's own")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        type=cluster,
        metavar="tcp://HOST:PORT",
        help="let the workers of this Dask scheduler do it; they must see the folders at the same paths",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", type=device, help="auto, cpu, cuda, cuda:N or mps (default: auto)")


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=natural, metavar="N", help=what)


def add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--series",
        action="append",
        metavar="PATTERN",
        default=[],
        help="of several DICOM series take the one whose description, number or UID fits; * and ? as for files, re: begins a regular"
        " expression; once for each channel (default: the only series that is no localiser)",
    )


def add_regrid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--regrid",
        choices=["to-first"],
        default="",
        help="resample channels and labels that lie on another grid onto the first channel's (default: such cases are errors)",
    )


def show_problems(problems: Sequence[Problem]) -> None:
    """The problem table on stdout, if there are any."""
    if problems:
        print(problem_table(problems))


def existing(text: str) -> Path:
    """A path that is there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} is not there")
    return path


def natural(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if not (number := natural(text)):
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return number


def gigabytes(text: str) -> float:
    """A positive number of GB."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of GB")
    return number


def duration(text: str) -> float:
    """Seconds of a duration such as 90s, 30m, 2h or 1h30m."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 30m, 2h or 1h30m")
    return seconds


def device(text: str) -> str:
    """The name of a device."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda, cuda:N or mps")
    return text


def cluster(text: str) -> str:
    """The address of a Dask scheduler."""
    if not re.fullmatch(r"(tcp|tls|ws|wss)://\S+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the address of a Dask scheduler, such as tcp://host:8786")
    return text


def fold(text: str) -> int | str:
    """0, 1, ... or `all` or `full`."""
    if text in ("all", "full"):
        return text
    return natural(text)


def setting(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key.strip(), value.strip()
