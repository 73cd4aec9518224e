"""The reference page of plan keys, generated from the schema."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autoseg.planning.schema import Plan


def plan_reference(model: type[BaseModel] = Plan) -> str:
    """Every key of a plan as a Markdown table: key, type, meaning."""
    rows = ["| key | type | meaning |", "|---|---|---|"]
    rows += [f"| `{key}` | {kind} | {meaning} |" for key, kind, meaning in _rows(model, "")]
    return "\n".join(rows) + "\n"


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
