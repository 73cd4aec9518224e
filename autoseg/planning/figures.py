"""What planning knows of a dataset: one summary, from our fingerprint or from the peer's JSON forms.

The planning functions see nothing else, so that both ways in give the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg.data.case import Dataset
from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.files import digest
from autoseg.fingerprint.kinds import says_ct
from autoseg.fingerprint.types import Fingerprint, SidePair
from autoseg.planning.problems import validated

if TYPE_CHECKING:
    from autoseg.fingerprint.sections import Sections


@dataclass(frozen=True)
class Foreground:
    """Intensities under any label, over the cases of one kind of one channel."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class Channel:
    """One channel.

    title: its name in the dataset, which decides how the peer normalises it.
    name: its name in the plan, unlike any other channel's.
    cases: kind -> number of cases.
    foreground: kind -> intensities under the labels; a kind without any labelled voxel is absent.
    """

    title: str
    name: str
    cases: dict[str, int]
    foreground: dict[str, Foreground]

    @property
    def hounsfield(self) -> bool:
        """Whether HU or their windowed form are to be expected: by its name, or since a case proved it."""
        return says_ct(self.title) or "hu" in self.cases or "windowed" in self.cases


@dataclass(frozen=True)
class Figures:
    """A dataset in the numbers that decide.

    spacings, shapes: mm and voxels, one row a case, (z, y, x).
    cropped_shapes: after cropping to where any channel is not 0.
    pairs: labels that names and shapes show to be sides; rejected: pairs by name that the shapes contradict; unseen: pairs by name
        that no shapes are known of; unpaired: labels whose name says a side and that lack their partner.
    groups: patients or other groups, ungrouped cases counted singly; grouped_cases: cases that a group ties.
    given_folds: folds that the dataset brings, or 0.
    planar: whether all images are 2D.
    sections: how alike neighbours by number are, for numbered 2D images; None for all others.
    missing: label -> cases that annotate it and do not show it; unannotated: label -> cases in which nobody annotated it.
    key: of the fingerprint.
    """

    name: str
    cases: tuple[str, ...]
    training_cases: int
    spacings: np.ndarray
    shapes: np.ndarray
    cropped_shapes: np.ndarray
    relative_size: float
    channels: tuple[Channel, ...]
    labels: LabelSet
    label_groups: dict[str, tuple[str, ...]]
    pairs: tuple[SidePair, ...]
    unpaired: tuple[str, ...]
    rejected: tuple[SidePair, ...]
    unseen: tuple[tuple[str, str], ...]
    most_tilt: float
    tilted_case: str | None
    groups: int
    grouped_cases: int
    given_folds: int
    planar: bool
    sections: Sections | None = None
    missing: dict[str, int] = field(default_factory=dict)
    unannotated: dict[str, int] = field(default_factory=dict)
    key: str = ""

    @property
    def label_entries(self) -> int:
        """Entries of `labels` in dataset.json: background and ignore counted, each region once."""
        return len(self.labels.names) + 1 + (self.labels.ignore is not None)

    def sizes(self, crop: str) -> np.ndarray:
        """Shapes before or after cropping to non-zero."""
        return self.cropped_shapes if crop == "nonzero" else self.shapes


def from_fingerprint(dataset: Dataset, fingerprint: Fingerprint) -> Figures:
    """Of a measured dataset.

    Raises:
        PlanError: no case, or labels that nobody has resolved.
    """
    names = tuple(sorted(fingerprint.cases))
    if not names or dataset.labels is None:
        raise PlanError("there is no measured case to plan from", remedy="Run `autoseg doctor` on the dataset")
    grouped = [dataset.groups[name] for name in names if name in dataset.groups]
    return _measured(
        fingerprint,
        dataset.name,
        dataset.channels,
        dataset.labels,
        label_groups=dict(dataset.label_groups),
        groups=len(set(grouped)) + len(names) - len(grouped),
        grouped=len(grouped),
        given=len(dataset.given_folds or ()),
        present=dataset.labels_present,
    )


def from_dicts(dataset: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> Figures:
    """Of JSON forms: the peer's dataset.json with its dataset_fingerprint.json (peer 7.2, 7.3) or with our fingerprint.json.

    Raises:
        PlanError: a key is missing or of the wrong type.
    """
    remedy = "Give dataset.json and dataset_fingerprint.json as nnU-Net v2 writes them, or autoseg's fingerprint.json"
    try:
        titles = _titles(dataset)
        labels = LabelSet.declared(dataset["labels"], dataset.get("regions_class_order"))
        name = str(dataset.get("name", "dataset"))
        if "spacings" in fingerprint:
            return _peers(dataset, fingerprint, name, titles, labels)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PlanError(f"the dataset or its fingerprint lacks something ({type(error).__name__}: {error})", remedy=remedy) from error
    content = {key: value for key, value in fingerprint.items() if key != "schema"}
    measured = validated(Fingerprint, content, what="fingerprint", remedy=remedy)
    groups = {str(k): str(v) for k, v in (dataset.get("groups") or {}).items() if k in measured.cases}
    units = len(set(groups.values())) + len(measured.cases) - len(groups)
    present = dataset.get("labels_present") or {}
    return _measured(measured, name, titles, labels, label_groups={}, groups=units, grouped=len(groups), given=0, present=present)


def _titles(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    named = next(dataset[key] for key in ("channel_names", "modality", "channels") if key in dataset)
    return tuple(str(v) for v in (named.values() if isinstance(named, Mapping) else named))


def unique_names(titles: Sequence[str]) -> list[str]:
    """Titles with a number behind those that occurred before, so that each channel has steps of its own."""
    names: list[str] = []
    for title in titles:
        count = 1
        while (name := title if count == 1 else f"{title} ({count})") in names:
            count += 1
        names.append(name)
    return names


def _measured(
    fingerprint: Fingerprint,
    name: str,
    titles: Sequence[str],
    labels: LabelSet,
    *,
    label_groups: dict[str, tuple[str, ...]],
    groups: int,
    grouped: int,
    given: int,
    present: Mapping[str, Sequence[str]],
) -> Figures:
    from autoseg.fingerprint.sections import serial_sections  # it needs scipy

    cases = [(case, fingerprint.cases[case]) for case in sorted(fingerprint.cases)]
    spacings = np.array([measures.spacing for _, measures in cases], dtype=float)
    for row, (_, measures) in zip(spacings, cases, strict=True):
        if measures.planar:  # a 2D image has no thickness: the peer's stand-in (peer 1.7) keeps its axis the coarsest
            row[0] = 999 * max(row[1:])
    channels = []
    for position, (title, unique) in enumerate(zip(titles, unique_names(titles), strict=True)):
        kinds = [measures.channels[position].kind for _, measures in cases]
        summaries = fingerprint.channels.get(unique) or fingerprint.channels.get(title) or {}
        foreground = {kind: Foreground(s.mean, s.std, s.percentile_00_5, s.percentile_99_5) for kind, s in summaries.items()}
        channels.append(Channel(title, unique, {k: kinds.count(k) for k in dict.fromkeys(kinds)}, foreground))
    tilted, tilt = max(((case, measures.tilt) for case, measures in cases), key=lambda pair: pair[1])
    missing, unannotated = dict.fromkeys(labels.names, 0), dict.fromkeys(labels.names, 0)
    for label, values in zip(labels.names, labels.values, strict=True):
        for case, measures in cases:
            if label not in present.get(case, (label,)):
                unannotated[label] += 1
            elif not _shows(measures.label_voxels, values):
                missing[label] += 1
    return Figures(
        name=name,
        cases=tuple(case for case, _ in cases),
        training_cases=len(cases),
        spacings=spacings,
        shapes=np.array([m.shape for _, m in cases]),
        cropped_shapes=np.array([[b - a for a, b in m.crop_box] for _, m in cases]),
        relative_size=fingerprint.median_relative_size_after_crop,
        channels=tuple(channels),
        labels=labels,
        label_groups=label_groups,
        pairs=tuple(fingerprint.sides.pairs),
        unpaired=tuple(fingerprint.sides.unpaired),
        rejected=tuple(fingerprint.sides.rejected),
        unseen=tuple(fingerprint.sides.unseen),
        most_tilt=tilt,
        tilted_case=tilted,
        groups=groups,
        grouped_cases=grouped,
        given_folds=given,
        planar=all(measures.planar for _, measures in cases),
        sections=serial_sections(fingerprint.cases),
        missing=missing,
        unannotated=unannotated,
        key=digest(fingerprint.model_dump(mode="json")),
    )


def _shows(voxels: Mapping[int, int], values: Sequence[int]) -> bool:
    return any(voxels.get(value, 0) for value in values)


def _peers(dataset: Mapping[str, Any], fingerprint: Mapping[str, Any], name: str, titles: Sequence[str], labels: LabelSet) -> Figures:
    """The peer's fingerprint knows neither kinds nor shapes of labels: a channel called CT holds HU, and no pair of sides is confirmed."""
    spacings = np.array(fingerprint["spacings"], dtype=float)
    shapes = np.array(fingerprint["shapes_after_crop"])
    if spacings.ndim != 2 or spacings.shape[1] != 3 or shapes.shape != spacings.shape or not len(spacings):
        raise ValueError("`spacings` and `shapes_after_crop` need one triple a case")
    channels = []
    for position, (title, unique) in enumerate(zip(titles, unique_names(titles), strict=True)):
        measured = (fingerprint.get("foreground_intensity_properties_per_channel") or {}).get(str(position))
        kind = "hu" if title.strip().lower() == "ct" else "arbitrary"
        foreground = (
            {}
            if not measured
            else {kind: Foreground(*(float(measured[key]) for key in ("mean", "std", "percentile_00_5", "percentile_99_5")))}
        )
        channels.append(Channel(title, unique, {kind: len(spacings)}, foreground))
    from autoseg.fingerprint.sides import sides_by_name  # it needs scipy, which nobody else here does

    sides = sides_by_name(labels.names)
    cases = tuple(f"case {i}" for i in range(len(spacings)))
    return Figures(
        name=name,
        cases=cases,
        training_cases=int(dataset.get("numTraining", len(spacings))),
        spacings=spacings,
        shapes=shapes,
        cropped_shapes=shapes,
        relative_size=float(fingerprint["median_relative_size_after_cropping"]),
        channels=tuple(channels),
        labels=labels,
        label_groups={},
        pairs=(),
        unpaired=sides.unpaired,
        rejected=(),
        unseen=sides.pairs,
        most_tilt=0.0,
        tilted_case=None,
        groups=len(cases),
        grouped_cases=0,
        given_folds=0,
        planar=bool((shapes[:, 0] == 1).all()),
        key=digest(dict(fingerprint)),
    )
