"""Validation errors of plans and recipes as one `PlanError`, a line for each problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autoseg.errors import PlanError

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], content: Mapping[str, Any], *, what: str, file: str | Path | None = None, remedy: str) -> Model:
    """`content` as a `model`.

    Raises:
        PlanError: naming every key that is unknown, missing or impossible, with its value.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_line(problem) for problem in error.errors(include_url=False)]
        raise PlanError(f"{what}: " + "; ".join(lines), file=file, remedy=remedy) from error


def _line(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"] if part not in _UNION_TAGS)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{key} is an unknown key"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "value_error":  # a rule of ours, whose text names what is wrong
        return f"{key}: {message}" if key else message
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


_UNION_TAGS = frozenset({"clip", "rescale", "zscore", "none", "largest_component", "memory", "fixed", "median", "pooling"})
