"""autoseg evaluate: score predictions against references, or a WORK's folds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.cli import common, logs
from autoseg.errors import problem_table


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "evaluate",
        "score predictions or a WORK's folds",
        "Score a folder of predictions against one of references, or, given a WORK alone, its folds' held-out cases.",
    )
    parser.add_argument("predictions", metavar="WORK|PREDICTIONS", type=common.existing)
    parser.add_argument("references", metavar="REFERENCES", type=common.existing, nargs="?")
    parser.add_argument("--labels", type=common.existing, metavar="FILE", help="dataset.json that names the labels")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the scores as JSON too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline

    if options.references is None:
        logs.to_file(options.predictions / "log.txt")
        evaluated = pipeline.evaluate_work(options.predictions, options.output)
    else:
        evaluated = pipeline.evaluate(options.predictions, options.references, options.labels, options.output)
    if evaluated.problems:
        print(problem_table(evaluated.problems))
    print(evaluated.text)
    return 1 if evaluated.failed else 0
