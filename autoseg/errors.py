"""Every named error of autoseg, and the problem table that gathers them.

An error says in one line what happened, in which case and file, and what to do about it. Problems of many cases are
collected as `Problem` rows and shown together, before anything is preprocessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class AutosegError(Exception):
    """What went wrong, where, and the remedy, as one line.

    Args:
        message: what was found and what was expected.
        case: the case it concerns, if one.
        file: the file it concerns, if one; only its name is shown, so that no message carries a patient's path.
        remedy: what the user can do.
    """

    def __init__(self, message: str, *, case: str | None = None, file: str | Path | None = None, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.case = case
        self.file = None if file is None else str(file)
        self.remedy = remedy

    def __str__(self) -> str:
        place = [f"case {self.case}"] if self.case else []
        if self.file:
            place.append(Path(self.file).name)
        where = ", ".join(place)
        return f"{where + ': ' if where else ''}{self.message}. {self.remedy}"

    def __reduce__(self):  # keyword-only arguments do not survive the default pickling between processes
        return _rebuild, (type(self), self.message, self.case, self.file, self.remedy)

    def in_case(self, case: str) -> AutosegError:
        """The same error, named for `case` unless it already names one."""
        return type(self)(self.message, case=self.case or case, file=self.file, remedy=self.remedy)


def _rebuild(kind: type[AutosegError], message: str, case: str | None, file: str | None, remedy: str) -> AutosegError:
    return kind(message, case=case, file=file, remedy=remedy)


class DatasetError(AutosegError):
    """No layout fits or no cases; an image without label, a label without image, a duplicate."""


class UnreadableFileError(AutosegError):
    """A file that is truncated, empty, not an image, without permission, or of an unknown format."""


class GridError(AutosegError):
    """Image and label or channels on different grids; a spacing or direction that cannot be right."""


class ChannelError(AutosegError):
    """Missing, surplus or wrongly sized channels."""


class LabelError(AutosegError):
    """Labels not in dataset.json, not integers, or a region order that contradicts."""


class IntensityError(AutosegError):
    """NaN or infinite values, or a constant image."""


class PlanError(AutosegError):
    """An unknown key, a wrong type, an impossible or contradictory value, or a plan for other data."""


class ResourceError(AutosegError):
    """What will not fit in memory or on disk, or a device that is not there."""


class ModelError(AutosegError):
    """A damaged, unsafe or unknown model file; an input that the model cannot take."""


class BusyError(AutosegError):
    """Another process works on the same fold or store."""


class TrainingError(AutosegError):
    """NaN or collapse that the stated rule could not mend; a failed or hung data worker."""


@dataclass(frozen=True)
class Problem:
    """One row of the problem table.

    severity: `error` excludes the case, `warning` does not, `question` asks the user to decide.
    """

    severity: str
    kind: str
    message: str
    remedy: str
    case: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, error: AutosegError, severity: str = "error") -> Problem:
        """The row that an error makes."""
        file = Path(error.file).name if error.file else None
        return cls(severity, type(error).__name__, error.message, error.remedy, error.case, file)


def problem_table(problems: Iterable[Problem]) -> str:
    """The problems as text, the worst first, each with its case, file, cause and remedy; empty if there are none.

    A warning that many cases share is one line that names the first of them; an error always names its case.
    """
    order = {"error": 0, "question": 1, "warning": 2}
    together: dict[tuple, list[Problem]] = {}
    for row in sorted(problems, key=lambda p: (order[p.severity], p.case or "", p.file or "", p.message)):
        shared = (row.severity, row.kind, row.message, row.remedy)
        together.setdefault(shared if row.severity == "warning" else (*shared, row.case, row.file), []).append(row)
    lines = [f"{rows[0].severity:<8} {_place(rows)}: {rows[0].kind}: {rows[0].message}. {rows[0].remedy}" for rows in together.values()]
    return "\n".join(lines)


def _place(rows: Sequence[Problem]) -> str:
    cases = list(dict.fromkeys(row.case for row in rows if row.case))
    if len(cases) > 1:
        return f"{len(cases)} cases ({', '.join(cases[:3])}{', ...' if len(cases) > 3 else ''})"
    return ", ".join(part for part in (rows[0].case, rows[0].file) if part) or "dataset"


def excluded_cases(problems: Sequence[Problem]) -> frozenset[str]:
    """The cases that an error excludes."""
    return frozenset(p.case for p in problems if p.severity == "error" and p.case)
