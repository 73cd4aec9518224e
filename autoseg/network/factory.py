"""A network or loss of your own, named in the plan as `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from autoseg.errors import PlanError
from autoseg.planning.schema import Plan


def load_factory(name: str, *, key: str) -> Callable[..., Any]:
    """The function that `name` stands for.

    Whether a name outside autoseg may be imported is decided where a model is loaded (`is_foreign`), not here.

    Args:
        name: `module:function`.
        key: the plan's key that holds it, for the message.

    Raises:
        PlanError: `name` has another form, its module cannot be imported, or has no such function.
    """
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise PlanError(f"{key} is {name!r}", remedy="Write it as module:function")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of the user's raises on import
        raise PlanError(
            f"{key} is {name!r}, but {module_name} cannot be imported ({type(error).__name__}: {error})",
            remedy="Install the module or add its folder to PYTHONPATH",
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise PlanError(f"{key} is {name!r}, but {module_name} has no function {function_name}", remedy="Correct the name")
    return function


def is_foreign(name: str | None) -> bool:
    """Whether a factory's code lies outside autoseg."""
    return name is not None and name.partition(":")[0].partition(".")[0] != "autoseg"


def require_trust(plan: Plan, *, trust_code: bool) -> None:
    """Refuse code outside autoseg that merely stands in a plan, which may be anybody's; what was given with --set is the user's own.

    Raises:
        PlanError: the plan names such code.
    """
    given = {str(value) for value in plan.recipe_options.get("set", {}).values()}
    named = [plan.training.loss.factory, *(part.network.factory for part in plan.configurations.values())]
    foreign = [name for name in named if is_foreign(name) and name not in given]
    if foreign and not trust_code:
        raise PlanError(
            f"the plan names {foreign[0]!r}, code outside autoseg that was not given with --set",
            remedy="If you trust it, repeat with --trust-code",
        )
