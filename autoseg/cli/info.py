"""autoseg info: explain a plan, a model or a dataset in words."""

from __future__ import annotations

import argparse
from typing import Any

from autoseg.cli import common


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "info",
        "explain a plan, a model or a dataset",
        "Say in words what a WORK's plan decided and why, which folds are done, or what a dataset holds.",
    )
    parser.add_argument("path", metavar="WORK|MODEL|DATASET", type=common.existing)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline

    print(pipeline.info(options.path))
    return 0
