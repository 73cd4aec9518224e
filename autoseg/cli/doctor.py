"""autoseg doctor: check a dataset, change nothing."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from autoseg.cli import common
from autoseg.errors import problem_table


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands, "doctor", "check a dataset", "Read every case of DATASET and say what is wrong or doubtful, in one table. Nothing is written."
    )
    parser.add_argument("dataset", metavar="DATASET", type=common.existing)
    parser.add_argument("work", metavar="WORK", type=Path, nargs="?", help="a WORK made from it: say what is new")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    common.add_workers(parser, "read cases")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline

    examined = pipeline.doctor(options.dataset, options.work, workers=options.workers, quiet=options.quiet)
    if options.json:
        print(json.dumps({"cases": examined.cases, "problems": [dataclasses.asdict(p) for p in examined.problems]}, indent=2, sort_keys=True))
    else:
        print(problem_table(examined.problems) or "No problems found.")
        print(examined.summary())
    return 1 if examined.failed else 0
