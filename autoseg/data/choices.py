"""What a user chose about reading a dataset's files: kept in WORK/dataset.json and done again at prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from autoseg.errors import PlanError
from autoseg.files import read_json


@dataclass(frozen=True)
class Choices:
    """How files are read, beyond what they say themselves.

    series: patterns that choose DICOM series (`autoseg.data.formats.dicom.series.matching`), one a channel; empty: the only one that is no
        localiser.
    keep_ids: whether cases of a DICOM export are called by the patient's id instead of by numbers of our own.
    regrid: `to-first` resamples channels and labels on another grid onto the first image's; empty: they are refused.
    """

    series: tuple[str, ...] = ()
    keep_ids: bool = False
    regrid: str = ""

    def as_json(self) -> dict[str, Any]:
        """What differs from the default, for WORK/dataset.json."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Choices:
        """The way back."""
        return cls(tuple(map(str, content.get("series", ()))), bool(content.get("keep_ids", False)), str(content.get("regrid", "")))


def kept_choices(dataset_json: Path) -> Choices:
    """What WORK/dataset.json keeps; the default where there is no file, or where nothing was chosen.

    Raises:
        PlanError: it cannot be read.
    """
    return Choices.from_json(read_json(dataset_json, "dataset").get("choices", {})) if dataset_json.is_file() else Choices()


def settled_choices(asked: Choices, dataset_json: Path, *, replan: bool = False) -> Choices:
    """What a command obeys: what was asked for, else what WORK keeps.

    Args:
        replan: what is asked for may differ from what WORK keeps.

    Raises:
        PlanError: it differs from what the plan in WORK was made with.
    """
    if not dataset_json.is_file():
        return asked
    kept = kept_choices(dataset_json)
    nothing = Choices()
    for field in fields(Choices):
        new, old = getattr(asked, field.name), getattr(kept, field.name)
        if new != getattr(nothing, field.name) and new != old and not replan:
            switch = f"--{field.name.replace('_', '-')}"
            raise PlanError(
                f"{switch} is {_shown(new)}, when the plan was made it was {_shown(old)}",
                file=dataset_json,
                remedy=f"Leave {switch} out, use --replan, or another WORK",
            )
    return Choices(*(getattr(asked, f.name) or getattr(kept, f.name) for f in fields(Choices)))


def _shown(value: object) -> str:
    return " ".join(map(str, value)) or "not given" if isinstance(value, tuple) else str(value) if value else "not given"
