"""autoseg train: train the folds of a plan, predict and score what each held out."""

from __future__ import annotations

import argparse
import time
from typing import Any

from autoseg.cli import common, logs
from autoseg.errors import PlanError


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "train",
        "train the folds and score their held-out cases",
        "Train the folds of WORK's plan; each predicts and scores the cases that it held out. Folds that are done are skipped, one "
        "that was interrupted goes on. A cascade trains all folds of its first stage before its second.",
    )
    parser.add_argument("work", metavar="WORK", type=common.existing, help="folder that plan-and-preprocess made")
    parser.add_argument(
        "--fold", nargs="+", type=common.fold, metavar="K", default=["all"], help="0, 1, ..., all (default), or full: all cases"
    )
    parser.add_argument("--config", nargs="+", metavar="C", help="configurations (default: the plan's default_configurations)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--budget", type=common.duration, metavar="TIME", help="time for the whole command, such as 30m or 2h, shared by its folds"
    )
    length.add_argument("--epochs", type=common.positive, metavar="N", help="epochs instead of the plan's")
    length.add_argument(
        "--replay",
        type=common.existing,
        metavar="FOLD_FOLDER",
        help="repeat the training of a finished fold step by step, also one that went by --budget; it says which fold that is",
    )
    length.add_argument("--validate-only", action="store_true", help="train nothing: predict and score again what finished folds held out")
    parser.add_argument(
        "--extend", action="store_true", help="let finished folds go on, to --epochs N in all or for a --budget more; else they are skipped"
    )
    parser.add_argument(
        "--weights",
        type=common.existing,
        metavar="FILE",
        help="start from these weights as far as they fit: weights.safetensors, a fold folder, a WORK, or nnU-Net's checkpoint_final.pth "
        "or model folder; what was taken and what was left is printed",
    )
    parser.add_argument(
        "--track", nargs="+", metavar="T", default=[], help="tell experiment trackers each epoch: tensorboard, or your own module:function"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="before the first epoch time a few real steps, say how long epochs, folds and held-out cases will take and how much memory is "
        "needed, write WORK/forecast.json, then train; number format, memory layout and, on a GPU, compiling become the fastest "
        "where the plan says `auto`",
    )
    parser.add_argument("--trust-code", action="store_true", help="run a network or loss of the plan that lies outside autoseg")
    common.add_device(parser)
    common.add_workers(parser, "threads that make training samples, or processes where batchgenerators augments them", "1")
    common.add_seed(parser, "seed of training instead of the plan's")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    began = time.monotonic()  # a budget is that of the whole command, imports included
    from autoseg import pipeline
    from autoseg.evaluation.tables import crossval_text

    if options.extend and not (options.epochs or options.budget):
        raise PlanError("--extend does not say by how much", remedy="Add --epochs N, the number in all, or --budget TIME")

    if (options.work / "plan.json").is_file():
        logs.to_file(options.work / "log.txt")
    trained = pipeline.train(
        options.work,
        folds=options.fold,
        configurations=options.config,
        budget_seconds=options.budget and max(options.budget - (time.monotonic() - began), 0.001),
        epochs=options.epochs,
        device=options.device,
        seed=options.seed,
        weights=options.weights,
        extend=options.extend,
        replay=options.replay,
        validate_only=options.validate_only,
        track=options.track,
        probe=options.probe,
        trust_code=options.trust_code,
        workers=options.workers,
        quiet=options.quiet,
    )
    for configuration, result in trained.crossvals.items():
        print(f"{configuration}\n\n{crossval_text(result)}")
        pictures = ", ".join(f"{name}.png" for name in ("held_out", "dice", "loss"))
        print(f"Pictures: {pictures} in {options.work / 'models' / configuration}\n")
    common.show_problems(trained.problems)
    folds = ", ".join(f"{configuration} {fold}" for configuration, fold in trained.done) or "none"
    print(f"Folds that are done: {folds}.")
    if trained.done:
        named = f" --config {' '.join(options.config)}" if options.config else ""
        print(
            f"To predict: autoseg predict {options.work} IMAGES OUTPUT{named}"
            + ("" if trained.ensemble_ready else "   (with the folds that are done)")
        )
    return 1 if trained.problems else 0
