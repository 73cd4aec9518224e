"""Write docs/reference from the code: commands from the parser, plan and fingerprint from their types, JSON forms from what is written.

python docs/generate.py          write the pages
python docs/generate.py --check  exit 1 if a page differs from the code
"""

from __future__ import annotations

import argparse
import json
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autoseg.cli.main import make_parser
from autoseg.data.folders.description import KEYS
from autoseg.data.key import CaseIdentity, Key, key_as_json
from autoseg.evaluation.crossval import cross_validate, crossval_as_json
from autoseg.evaluation.predictions import case_summary
from autoseg.evaluation.scores import CaseScores, ClassScores, FoldScores, scores_as_json
from autoseg.files import FoldFolder, Work
from autoseg.fingerprint.types import Fingerprint
from autoseg.inference.results import CaseResult
from autoseg.metrics import METRICS, Overlap
from autoseg.network.precision import StepForm
from autoseg.planning.folds import Fold, folds_as_json
from autoseg.planning.recipe import Recipe
from autoseg.planning.schema import EvaluationPlan, Plan
from autoseg.preprocessing.previous_stage import MadeBy
from autoseg.preprocessing.store import PREVIOUS_STAGE
from autoseg.probing import Probe
from autoseg.training.probe import Trial

PLAN_INTRO = (
    "Every decision. Triples stand in the order (z, y, x), in mm and voxels. `--set` takes any of these keys; NAME is a name, N a position."
)
FOLDER = Path(__file__).parent / "reference"


def commands_page() -> str:
    """Every command with its arguments, as the parser has them."""
    lines = ["# Commands", "", "Made from the code by `docs/generate.py`.", ""]
    parser = make_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in subparsers.choices.items():
        lines += [f"## autoseg {name}", "", command.description or "", "", "| argument | meaning |", "|---|---|"]
        for action in command._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            lines.append(f"| `{_argument(action)}` | {action.help or ''} |")
        lines.append("")
    lines += [
        "## Exit status",
        "",
        "| status | meaning |",
        "|---|---|",
        "| 0 | all done |",
        "| 1 | some cases or folds failed; the table names them |",
        "| 2 | a named error: the command could not start or go on |",
        "| 3 | a defect of autoseg; the log has the traceback |",
        "| 130 | interrupted; the same command goes on |",
        "",
    ]
    return "\n".join(lines)


def _argument(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = f"{value} ..." if action.nargs == "+" else value
    if not action.option_strings:
        return f"[{value}]" if action.nargs == "?" else str(value)
    return " ".join([", ".join(action.option_strings), str(value)]).strip()


def model_page(title: str, intro: str, root: type[BaseModel]) -> str:
    """Every dotted key of a type, with its own type and meaning."""
    rows = [f"| `{key}` | {kind} | {meaning} |" for key, kind, meaning in _rows(root, "")]
    head = [f"# {title}", "", "Made from the code by `docs/generate.py`.", "", intro, "", "| key | type | meaning |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + name
        parts = _parts(field.annotation)
        meaning = field.description or "; ".join(dict.fromkeys(p.__doc__.splitlines()[0] for p in parts if p.__doc__))
        yield key, _cell(_kind(field)), _cell(meaning)
        inner = key + {"list": ".N", "dict": ".NAME"}.get(_container(field.annotation), "")
        for part in parts:
            yield from _rows(part, f"{inner}.")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _container(annotation: Any) -> str:
    origin = get_origin(annotation)
    return origin.__name__ if origin in (list, dict) else ""


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The models inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _parts(argument)]


def _kind(field: FieldInfo) -> str:
    bounds = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in _BOUNDS.items() if getattr(m, name, None) is not None]
    return _name(field.annotation) + (f" ({', '.join(bounds)})" if bounds else "")


_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return _name(arguments[0])
    if origin is Literal:
        return ", ".join(str(a) for a in arguments)
    if origin in (Union, types.UnionType):
        if all(isinstance(a, type) and issubclass(a, BaseModel) for a in arguments):
            return "object"
        return " or ".join(_name(a) for a in arguments)
    if origin is list:
        return f"list of {_name(arguments[0])}"
    if origin is tuple:
        return f"({', '.join(_name(a) for a in arguments)})"
    if origin is dict:
        return f"object of {_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return {"float": "number", "int": "integer", "str": "text", "bool": "true or false"}.get(getattr(annotation, "__name__", ""), "any")


def files_page() -> str:
    """WORK's files by the properties that name them, and the JSON that is no pydantic type by what is written for made-up values."""
    work = Work(Path("WORK"))
    rows = [(getattr(work, name), doc) for name, doc in _properties(Work)]
    rows += [
        (work.reference("CASE"), Work.reference.__doc__),
        (work.store("CONFIG"), Work.store.__doc__),
        (
            work.store("CONFIG") / PREVIOUS_STAGE / "CASE.json",
            "A cascade's second stage: which fold of the first found what CASE.labels.b2nd beside it holds.",
        ),
        (work.models("CONFIG"), Work.models.__doc__),
        (work.crossval("CONFIG"), Work.crossval.__doc__),
    ]
    rows += [(getattr(work.fold("CONFIG", "K"), name), doc) for name, doc in _properties(FoldFolder) if name != "state"]
    lines = ["# Files", "", "Made from the code by `docs/generate.py`.", "", "## WORK", "", "| file | what it is |", "|---|---|"]
    lines += [f"| `{path.as_posix()}` | {doc} |" for path, doc in rows]
    lines += ["", "OUTPUT of predict holds a label map a case, `summary.json` and `log.txt`.", ""]
    lines += ["## dataset.json of a dataset", "", "All keys are optional, others are left alone.", "", "| key | meaning |", "|---|---|"]
    lines += [*(f"| `{key}` | {meaning} |" for key, meaning in KEYS.items()), ""]
    for title, content in _forms().items():
        lines += [f"## {title}", "", "```json", json.dumps(content, indent=2, sort_keys=True), "```", ""]
    return "\n".join(lines)


def _properties(owner: type) -> list[tuple[str, str]]:
    return [(name, value.__doc__) for name, value in vars(owner).items() if isinstance(value, property)]


def _forms() -> dict[str, dict]:
    """Title -> the JSON that autoseg writes for one made-up case."""
    counts = Overlap(90, 10, 20, 880)
    scores = {"lesion": ClassScores(counts, {metric: counts[metric] for metric in METRICS}, 0.001)}
    unknown = ClassScores(Overlap(0, 0, 0, 0), dict.fromkeys(METRICS, float("nan")), 0.001, annotated=False)
    fold = FoldScores(0, {}, (CaseScores("CASE", "KEY", scores),))
    partly = FoldScores(0, {}, (CaseScores("CASE", "KEY", {**scores, "not_annotated_here": unknown}),))
    plan = EvaluationPlan(metrics=list(METRICS), tolerance_mm={}, summary="mean", empty_rule="count")
    result = CaseResult("CASE", Path("CASE.nii.gz"), None, 1.5, "KEY")
    key = Key({"PATIENT_ID": 1}, {"case_0001": CaseIdentity("PATIENT_ID", "STUDY_UID", (("SERIES_UID", 0),))})
    return {
        "scores.json": {"schema": "autoseg.scores/1", **scores_as_json(partly)},
        "crossval.json": {"schema": "autoseg.crossval/1", **crossval_as_json(cross_validate([fold], plan))},
        "summary.json": {"schema": "autoseg.predictions/1", "cases": {"CASE": case_summary(result, "3d_fullres", (0, 1, 2, 3, 4))}},
        "previous_stage/CASE.json": {
            "schema": "autoseg.previous-stage/1",
            "key": "KEY",
            **asdict(MadeBy("3d_lowres", 0, weights="KEY", prediction="KEY")),
        },
        "key.json": {"schema": "autoseg.key/1", **key_as_json(key)},
        "forecast.json": {"schema": "autoseg.forecast/1", "configurations": {"3d_fullres": _probe().as_json()}},
        "folds.json": {"schema": "autoseg.folds/1", **folds_as_json([Fold(0, ("CASE",), ("OTHER",))])},
    }


def _probe() -> Probe:
    trials = (Trial(StepForm("float32", "channels_last", False), 1.1), Trial(StepForm("float32", "contiguous", False), 1.3))
    return Probe(
        device="cpu",
        threads=2,
        workers=1,
        fold=0,
        folds=5,
        precision="float32",
        memory_layout="channels_last",
        compile=False,
        trials=trials,
        steps=8,
        seconds_per_step=1.2,
        waiting=0.05,
        seconds_per_held_out_batch=0.4,
        seconds_to_start=0.5,
        seconds_per_epoch=120.0,
        epochs=100,
        seconds_of_training=12000.5,
        held_out=4,
        seconds_of_held_out=40.0,
        peak_memory_gb=1.02,
        forecast_memory_gb=1.0,
    )


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {
        "commands.md": commands_page(),
        "plan.md": model_page(
            "plan.json",
            PLAN_INTRO,
            Plan,
        ),
        "fingerprint.md": model_page("fingerprint.json", "What was measured about the data, and nothing else.", Fingerprint),
        "files.md": files_page(),
        "recipe.md": model_page("Recipes", "A named way to make a plan: its fixed values and the rules for the rest.", Recipe),
    }


def main() -> int:
    """Write or check the pages; the exit status."""
    check = "--check" in sys.argv[1:]
    stale = [name for name, text in pages().items() if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text]
    if check:
        print("\n".join(f"docs/reference/{name} differs from the code; run python docs/generate.py" for name in stale), end="")
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
