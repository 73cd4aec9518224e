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
    parser.add_argument(
        "work", metavar="WORK", type=Path, nargs="?", help="a WORK made from it: say what is new since, and how far a new plan would move"
    )
    common.add_series(parser)
    common.add_regrid(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print everything as JSON (docs/reference/files.md)")
    output.add_argument("--groups", action="store_true", help="print a groups.csv of ids that look like several scans of one patient")
    common.add_workers(parser, "processes that read cases")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline
    from autoseg.data.choices import Choices
    from autoseg.data.folders.export import table_text
    from autoseg.errors import excluded_cases

    choices = Choices(tuple(options.series), regrid=options.regrid)
    listing = pipeline.list_series(options.dataset, options.work, choices=choices, workers=options.workers)
    if listing.rows and not listing.labelled:
        return _without_labels(listing, as_json=options.json)
    if listing.rows and not (options.json or options.groups):
        print(table_text(listing.rows))
    found = pipeline.doctor(options.dataset, options.work, choices=choices, workers=options.workers, quiet=options.quiet)
    failed, sound = excluded_cases(found.problems), len(found.measured.fingerprint.cases)
    if options.json:
        _print_json(found.as_json(), listing)
    elif options.groups:
        print("case,group", *(f"{case},{group}" for case, group in sorted(found.groups.items())), sep="\n")
    else:
        common.show_problems(found.problems)
        print(f"{sound} cases can be used, {len(failed)} have errors." if failed else f"All {sound} cases can be used.")
        if found.comparison:
            print(f"\n{found.comparison}")
    return 1 if failed else 0


def _print_json(content: dict[str, Any], listing: Any) -> None:
    series = [dataclasses.asdict(row) for row in listing.rows]
    print(json.dumps({"schema": "autoseg.diagnosis/1", **content, "series": series}, indent=2, sort_keys=True))


def _without_labels(listing: Any, *, as_json: bool) -> int:
    """Say what series there are, where none has a label map yet; 1 if one of those chosen cannot be read."""
    from autoseg.data.folders.export import table_text

    broken = [row for row in listing.rows if row.case and row.note and row.note != "localiser"]
    if as_json:
        _print_json({"cases": [], "problems": [], "suggested_groups": {}, "work": None}, listing)
        return 1 if broken else 0
    chosen = len({row.case for row in listing.rows if row.case})
    print(table_text(listing.rows))
    print(f"Chosen for a case: {chosen}, with errors: {len(broken)}. No label map lies among them: predict takes them as they are;")
    print("to learn from them, add label maps called like the case, the series' UID or the patient, or beside the slices.")
    return 1 if broken else 0
