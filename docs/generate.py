"""Write docs/reference from the code: commands from the parser, plan and fingerprint from their types.

    python docs/generate.py          write the pages
    python docs/generate.py --check  exit 1 if a page differs from the code
"""

from __future__ import annotations

import argparse
import sys
import types
import typing
from pathlib import Path

from pydantic import BaseModel

from autoseg.cli.main import make_parser
from autoseg.fingerprint.types import Fingerprint
from autoseg.planning.recipes import Recipe
from autoseg.planning.schema import Plan

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
        "## Exit status", "", "| status | meaning |", "|---|---|",
        "| 0 | all done |", "| 1 | some cases or folds failed; the table names them |", "| 2 | a named error: the command could not start or go on |",
        "| 3 | a defect of autoseg; the log has the traceback |", "| 130 | interrupted; the same command goes on |", "",
    ]
    return "\n".join(lines)


def _argument(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = f"{value} ..." if action.nargs == "+" else value
    if not action.option_strings:
        return f"[{value}]" if action.nargs == "?" else str(value)
    return " ".join([", ".join(action.option_strings), str(value)]).strip()


def model_page(title: str, intro: str, root: type[BaseModel]) -> str:
    """One table for each type that `root` is made of, in the order in which they are met."""
    lines = [f"# {title}", "", "Made from the code by `docs/generate.py`.", "", intro, ""]
    queue, seen = [root], {root}
    while queue:
        model = queue.pop(0)
        doc = " ".join((model.__doc__ or "").split())
        lines += [f"## {model.__name__}", "", doc, "", "| key | type | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            lines.append(f"| `{name}` | {_type_name(field.annotation)} | {field.description or ''} |")
            for found in _models(field.annotation):
                if found not in seen:
                    seen.add(found)
                    queue.append(found)
        lines.append("")
    return "\n".join(lines)


def _type_name(annotation: object) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in inner)
    if origin in (list, tuple, dict):
        parts = ", ".join(_type_name(part) for part in inner if part is not ...)
        return f"{origin.__name__} of {parts}"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return getattr(annotation, "__name__", str(annotation))


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {
        "commands.md": commands_page(),
        "plan.md": model_page("plan.json", "Every decision. Triples stand in the order (z, y, x), in mm and voxels.", Plan),
        "fingerprint.md": model_page("fingerprint.json", "What was measured about the data, and nothing else.", Fingerprint),
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
