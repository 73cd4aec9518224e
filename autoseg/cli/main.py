"""The command `autoseg`: the parser of all commands, and what every ending means to the shell.

Exit status: 0 all done; 1 some cases or folds failed; 2 a named error; 3 a defect of ours; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from autoseg import __version__
from autoseg.cli import demo, doctor, evaluate, info, logs, plan_and_preprocess, predict, train
from autoseg.errors import AutosegError

COMMANDS = (plan_and_preprocess, train, predict, evaluate, doctor, info, demo)


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command; building it imports neither torch nor SimpleITK."""
    parser = argparse.ArgumentParser(
        prog="autoseg", description="From a folder of medical images with label maps to a cross-validated segmentation model, and its use."
    )
    parser.add_argument("--version", action="version", version=f"autoseg {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = make_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    logs.start(quiet=options.quiet, verbose=options.verbose)
    try:
        return options.run(options)
    except AutosegError as error:
        logs.failed(error, verbose=options.verbose)
        print(f"autoseg: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("autoseg: interrupted; what is done is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        where = logs.failed(error, verbose=options.verbose)
        print(
            f"autoseg: a defect of autoseg: {type(error).__name__}: {error}. The traceback is in {where}; please report it", file=sys.stderr
        )
        return 3


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
