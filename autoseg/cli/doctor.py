"""autoseg doctor: check a dataset, change nothing."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from autoseg.cli import common


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "doctor",
        "check a dataset",
        "Read every case of DATASET and say what is wrong or doubtful, in one table. Nothing is written.",
    )
    parser.add_argument("dataset", metavar="DATASET", type=common.existing)
    parser.add_argument("work", metavar="WORK", type=Path, nargs="?", help="a WORK made from it: say what is new")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    common.add_workers(parser, "read cases")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline
    from autoseg.errors import excluded_cases

    measured = pipeline.doctor(options.dataset, options.work, workers=options.workers, quiet=options.quiet)
    failed, sound = excluded_cases(measured.problems), len(measured.fingerprint.cases)
    if options.json:
        rows = [dataclasses.asdict(problem) for problem in measured.problems]
        print(json.dumps({"cases": sorted(measured.fingerprint.cases), "problems": rows}, indent=2, sort_keys=True))
        return 1 if failed else 0
    common.show_problems(measured.problems)
    print(f"{sound} cases can be used, {len(failed)} have errors." if failed else f"All {sound} cases can be used.")
    return 1 if failed else 0
