"""Names that differ in a number: the order that they say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable


def stacks(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The names that differ in their last number alone, each run in the order of that number; names without a number stand alone."""
    runs: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL)
        runs[(match[1], match[3]) if match else (name,)].append((int(match[2]) if match else 0, name))
    return [tuple(name for _, name in sorted(runs[key])) for key in sorted(runs)]


def number(name: str) -> int:
    """The last number in a name, or 0."""
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else 0
