"""Channels whose intensities are of mixed or doubtful kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from autoseg.data.case import Dataset
from autoseg.errors import Problem
from autoseg.fingerprint.types import CaseMeasures


def unsure_kinds(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    return [
        Problem(
            "warning",
            "IntensityError",
            f"channel {channel!r} counts as {measures.kind!r} for want of better: {measures.why}",
            f'Check its units; `intensity_kind: {{"{name}": {{"{channel}": ...}}}}` in dataset.json decides',
            case=name,
        )
        for name, case in cases.items()
        for channel, measures in zip(dataset.channels, case.channels, strict=True)
        if not measures.sure
    ]


def mixed_kinds(cases: Mapping[str, CaseMeasures], dataset: Dataset) -> list[Problem]:
    rows = []
    for number, channel in enumerate(dataset.channels):
        kinds = Counter(case.channels[number].kind for case in cases.values())
        if len(kinds) > 1:
            counts = " and ".join(f"{n} {kind!r}" for kind, n in sorted(kinds.items()))
            rows.append(
                Problem(
                    "warning",
                    "IntensityError",
                    f"channel {channel!r} has {counts} cases",
                    "Nothing need be done: each kind gets its own steps; fresh cases are told apart the same way",
                )
            )
    return rows
