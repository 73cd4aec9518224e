"""summary.json: what predict says of each case, written beside the label maps and read where they are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import PlanError, Problem
from autoseg.files import read_json, write_json

if TYPE_CHECKING:  # processes that score import this room, and need not pay for torch
    from autoseg.inference.results import CaseResult


def write_summary(folder: Path, results: Iterable[CaseResult], configuration: str, folds: Sequence[int | str]) -> None:
    """Write summary.json of a folder of predictions."""
    cases = {result.case: case_summary(result, configuration, folds) for result in results}
    write_json(folder / "summary.json", "predictions", {"cases": cases})


def case_summary(result: CaseResult, configuration: str, folds: Sequence[int | str]) -> dict[str, Any]:
    """What summary.json says of one case."""
    return {
        "file": result.output.name if result.output else None,
        "error": result.error.message if result.error else None,
        "content_key": result.content_key,
        "configuration": configuration,
        "folds": list(folds),
        "trained_on": list(result.trained_on),
        "warnings": [warning.message for warning in result.warnings],
        "seconds": round(result.seconds, 2),
    }


def read_summary(path: Path) -> tuple[dict[str, dict], list[Problem]]:
    """What predict wrote of each case; a doubt if there is a summary that it did not write."""
    if not path.is_file():
        return {}, []
    try:
        return dict(read_json(path, "predictions")["cases"]), []
    except (PlanError, KeyError, TypeError):
        return {}, [
            Problem(
                "warning",
                "DatasetError",
                "it was not written by autoseg predict, so cases that the model was trained on are not known",
                "Leave such cases out",
                file=path.name,
            )
        ]
