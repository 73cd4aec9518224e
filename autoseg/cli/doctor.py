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
    common.add_series(parser)
    common.add_regrid(parser)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    common.add_workers(parser, "read cases")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline
    from autoseg.data.choices import Choices
    from autoseg.data.export import table_text
    from autoseg.errors import excluded_cases

    choices = Choices(tuple(options.series), regrid=options.regrid)
    listing = pipeline.list_series(options.dataset, options.work, choices=choices, workers=options.workers)
    if listing.rows and not listing.labelled:
        return _without_labels(listing, as_json=options.json)
    if listing.rows and not options.json:
        print(table_text(listing.rows))
    measured = pipeline.doctor(options.dataset, options.work, choices=choices, workers=options.workers, quiet=options.quiet)
    failed, sound = excluded_cases(measured.problems), len(measured.fingerprint.cases)
    if options.json:
        rows = [dataclasses.asdict(problem) for problem in measured.problems]
        found = {"cases": sorted(measured.fingerprint.cases), "problems": rows, "series": [dataclasses.asdict(row) for row in listing.rows]}
        print(json.dumps(found, indent=2, sort_keys=True))
        return 1 if failed else 0
    common.show_problems(measured.problems)
    print(f"{sound} cases can be used, {len(failed)} have errors." if failed else f"All {sound} cases can be used.")
    return 1 if failed else 0


def _without_labels(listing: Any, *, as_json: bool) -> int:
    """Say what series there are, where none has a label map yet; 1 if one of those chosen cannot be read."""
    from autoseg.data.export import table_text

    broken = [row for row in listing.rows if row.case and row.note and row.note != "localiser"]
    if as_json:
        print(
            json.dumps({"cases": [], "problems": [], "series": [dataclasses.asdict(row) for row in listing.rows]}, indent=2, sort_keys=True)
        )
        return 1 if broken else 0
    chosen = len({row.case for row in listing.rows if row.case})
    print(table_text(listing.rows))
    print(f"Chosen for a case: {chosen}, with errors: {len(broken)}. No label map lies among them: predict takes them as they are;")
    print("to learn from them, add label maps called like the case, the series' UID or the patient, or beside the slices.")
    return 1 if broken else 0
