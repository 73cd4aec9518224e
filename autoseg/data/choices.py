"""What a user chose about reading a dataset's files: kept in WORK/dataset.json and done again at prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Choices:
    """How files are read, beyond what they say themselves.

    series: patterns that choose DICOM series (`autoseg.data.dicom_series.chosen`), one a channel; empty: the only series that is no
        localiser.
    keep_ids: whether cases of a DICOM export are called by the patient's id instead of by numbers of our own.
    """

    series: tuple[str, ...] = ()
    keep_ids: bool = False

    def as_json(self) -> dict[str, Any]:
        """What differs from the default, for WORK/dataset.json."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Choices:
        """The way back."""
        return cls(tuple(map(str, content.get("series", ()))), bool(content.get("keep_ids", False)))
