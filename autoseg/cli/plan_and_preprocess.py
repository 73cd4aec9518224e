"""autoseg plan-and-preprocess: measure a dataset, plan, and store its cases ready for training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoseg.cli import common, logs
from autoseg.parallel import import_ahead


def add_parser(commands: Any) -> None:
    """Add this command to the parser."""
    parser = common.add_command(
        commands,
        "plan-and-preprocess",
        "measure a dataset, plan, and prepare its cases",
        "Measure DATASET, decide everything in WORK/plan.json, with reasons, and store its cases ready for training.",
    )
    parser.add_argument("dataset", metavar="DATASET", type=common.existing, help="folder of images and label maps, in one of four layouts")
    parser.add_argument("work", metavar="WORK", type=Path, help="folder for the plan, the prepared cases, models and scores")
    parser.add_argument(
        "--recipe",
        help="auto (default), covid19-ct, covid19-ct-sides, nnunet, nnunet-resenc-m/-l/-xl, a file, or a WORK to plan like",
    )
    parser.add_argument("--config", nargs="+", metavar="C", help="configurations to prepare (default: the plan's own choice)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        type=common.setting,
        metavar="KEY=VALUE",
        default=[],
        dest="settings",
        help="any value of the plan; what follows from it is derived anew",
    )
    parser.add_argument("--memory", type=common.gigabytes, metavar="GB", help="memory of the device that will train")
    parser.add_argument("--strict", action="store_true", help="refuse the dataset if any case has an error")
    parser.add_argument("--replan", action="store_true", help="make a new plan where WORK has one")
    common.add_series(parser)
    common.add_regrid(parser)
    parser.add_argument("--keep-ids", action="store_true", help="call cases of a DICOM export by patient and series, not by numbers")
    parser.add_argument("--dry-run", action="store_true", help="measure and plan, write nothing")
    common.add_device(parser)
    common.add_workers(parser, "processes that read and prepare cases")
    common.add_cluster(parser)
    common.add_seed(parser, "seed of folds and training")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    if options.cluster is None:
        import_ahead(["autoseg.pipeline.in_workers"], options.workers)  # while this one imports as much, and finds the cases
    from autoseg import pipeline
    from autoseg.data.choices import Choices

    if not options.dry_run:
        logs.to_file(options.work / "log.txt")
    planned = pipeline.plan_and_preprocess(
        options.dataset,
        options.work,
        recipe=options.recipe,
        configurations=options.config,
        settings=dict(options.settings),
        memory_gb=options.memory,
        device=options.device,
        seed=options.seed,
        strict=options.strict,
        replan=options.replan,
        dry_run=options.dry_run,
        choices=Choices(tuple(options.series), options.keep_ids, options.regrid),
        workers=options.workers,
        cluster=options.cluster,
        quiet=options.quiet,
    )
    common.show_problems(planned.problems)
    plan, work = planned.plan, options.work
    for name in planned.stages:
        part = plan.configurations[name]
        spacing, patch = (" x ".join(f"{n:g}" for n in values) for values in (part.spacing, part.patch_size))
        print(f"{name}: spacing {spacing} mm, patch {patch} voxels, batch {part.batch_size}, widths {part.network.features}")
    ready = len(planned.measured.dataset.cases) - len(planned.failed & {files.case for files in planned.measured.dataset.cases})
    if options.dry_run:
        print(f"{ready} cases can be used. Nothing was written; leave out --dry-run to prepare them.")
    else:
        print(f"{ready} cases are ready in {work}. Why it was planned so: autoseg info {work}. Next: autoseg train {work}")
    return 1 if planned.failed else 0
