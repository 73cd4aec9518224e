"""autoseg evaluate: score predictions against references, or a WORK's folds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.cli import common


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
    from autoseg.errors import excluded_cases
    from autoseg.evaluation.folders import evaluation_text
    from autoseg.evaluation.tables import crossval_text

    if options.references is None:
        for result in pipeline.evaluate_work(options.predictions, output=options.output).values():
            print(crossval_text(result))
        return 0
    evaluated = pipeline.evaluate(options.predictions, options.references, labels=options.labels, output=options.output)
    print(evaluation_text(evaluated))
    common.show_problems(evaluated.problems)
    return 1 if excluded_cases(evaluated.problems) else 0
