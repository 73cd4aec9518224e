"""autoseg demo: the whole way on made chest phantoms, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.cli import common, logs


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "demo",
        "the whole way on made chest phantoms, in minutes",
        "Make 20 chest phantoms, train five small folds, predict fresh phantoms with the ensemble, and show the result.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, nargs="?", default=Path("autoseg-demo"), help="where to put it all (default: autoseg-demo)"
    )
    common.add_seed(parser, "seed of the phantoms and the training")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg.demo.run import run_demo

    logs.to_file(options.folder / "log.txt")
    shown = run_demo(options.folder, seed=options.seed or 0, quiet=options.quiet)
    print(shown.text)
    return 0
