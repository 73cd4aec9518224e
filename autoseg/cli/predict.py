"""autoseg predict: apply a model to images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.cli import common, logs


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "predict",
        "apply a model to images",
        "Predict a label map for each image of INPUT with the ensemble of the model's folds, on the image's own grid.",
    )
    parser.add_argument("model", metavar="MODEL", type=common.existing, help="a WORK folder with trained folds")
    parser.add_argument("input", metavar="INPUT", type=common.existing, help="an image, or a folder of images or cases")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder for the label maps, summary.json and log.txt")
    parser.add_argument("--config", nargs="+", metavar="C", help="configurations (default: the plan's default_configurations)")
    parser.add_argument("--fold", nargs="+", type=common.fold, metavar="K", help="folds to join (default: all that are trained)")
    parser.add_argument("--probabilities", action="store_true", help="write each class's probability too")
    parser.add_argument("--trust-code", action="store_true", help="run a network of the model that lies outside autoseg")
    parser.add_argument(
        "--workers", type=common.natural, metavar="N", help="processes that predict cases side by side (default: one, which uses all cores)"
    )
    common.add_cluster(parser)
    common.add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from autoseg import pipeline

    logs.to_file(options.output / "log.txt")
    predicted = pipeline.predict(
        options.model,
        options.input,
        options.output,
        folds=options.fold,
        configurations=options.config,
        probabilities=options.probabilities,
        device=options.device,
        trust_code=options.trust_code,
        workers=options.workers,
        cluster=options.cluster,
        quiet=options.quiet,
    )
    common.show_problems(predicted.problems)
    written = [result for result in predicted.results if result.output]
    for result in written:
        print(f"{result.case}: {result.output.name} in {result.seconds:.1f} s")
    by = f"{' then '.join(predicted.model.stages)}, fold(s) {', '.join(map(str, predicted.model.folds))}"
    print(f"{len(written)} of {len(predicted.results)} cases predicted into {options.output}, by {by}.")
    return 0 if len(written) == len(predicted.results) else 1
