"""Which files belong to one case: by name, with or without channel suffixes, whatever the endings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.case import CaseFiles
from autoseg.data.names import PICTURE_ENDINGS, SLICER_ENDINGS, Entry, split_channel, split_ending, without_label_suffix
from autoseg.errors import AutosegError, ChannelError, DatasetError, Problem


@dataclass
class Found:
    """The files of one case, before anything is judged.

    whole: image files without a channel suffix; numbered: channel -> files; labels: label files.
    """

    whole: list[Path] = field(default_factory=list)
    numbered: dict[int, list[Path]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Channels that the names speak of; 1 for a file without suffix."""
        return len(self.numbered) or 1


def pair(images: Iterable[Entry], labels: Iterable[Entry]) -> dict[str, Found]:
    """Image and label files by case.

    A label's name decides whether `x_0001` is case `x_0001` or channel 1 of case `x`; labels may end in _seg, _mask, _label.
    """
    labels = list(labels)
    exact = {entry.stem for entry in labels}
    short = {without_label_suffix(entry.stem) for entry in labels}
    cases: dict[str, Found] = {}
    for entry in images:
        if split_ending(entry.path.name)[1] in SLICER_ENDINGS:  # segments saved beside the image that they were drawn on
            continue
        parts = split_channel(entry.stem)
        suffixed = parts is not None and entry.stem not in exact and (parts[0] in exact | short or entry.stem not in short)
        add_image(cases.setdefault(parts[0] if suffixed else entry.stem, Found()), entry.path, parts[1] if suffixed else None)
    for entry in labels:
        name = entry.stem if entry.stem in cases else without_label_suffix(entry.stem)
        cases.setdefault(name if name in cases else entry.stem, Found()).labels.append(entry.path)
    return dict(sorted(cases.items()))


def add_image(found: Found, path: Path, channel: int | None) -> None:
    """Notes an image file of a case; `channel` None: a file without suffix."""
    if channel is None:
        found.whole.append(path)
    else:
        found.numbered.setdefault(channel, []).append(path)


def usual_channels(cases: Iterable[Found]) -> int:
    """How many channels most cases have by their names; the larger number where two are equally frequent."""
    counts = Counter(found.count for found in cases if found.whole or found.numbered)
    return max(counts, key=lambda n: (counts[n], n), default=1)


def settle(cases: dict[str, Found], channels: int) -> tuple[list[CaseFiles], list[Problem]]:
    """The cases that have their images and one label, and a problem for each of the others."""
    good, problems = [], []
    for case, found in cases.items():
        try:
            good.append(CaseFiles(case, image_files(found, channels), _label(found)))
        except AutosegError as error:
            problems.append(Problem.of(error.in_case(case)))
    return good, problems


def image_files(found: Found, channels: int) -> tuple[Path, ...]:
    """One file a channel, in order, or the one file that must hold them all.

    Raises:
        DatasetError: no image, or two for the same channel.
        ChannelError: missing or surplus channel files.
    """
    if not found.whole and not found.numbered:
        raise DatasetError(
            "a label map without image", file=next(iter(found.labels), None), remedy="Add the image, or remove the label map"
        )
    everything = [*found.whole, *(p for paths in found.numbered.values() for p in paths)]
    for paths in (everything if found.whole else [], *found.numbered.values()):
        if len(paths) > 1:
            raise DatasetError(f"a duplicate: {_names(paths)} are one image of this case", file=paths[0], remedy="Keep one of them")
    if found.whole:
        return tuple(found.whole)
    if list(found.numbered) == [0] and split_ending(found.numbered[0][0].name)[1] in PICTURE_ENDINGS:
        return tuple(found.numbered[0])  # a colour picture holds its channels in one file
    missing = [n for n in range(channels) if n not in found.numbered]
    surplus = sorted(n for n in found.numbered if n >= channels)
    if missing or surplus:
        kinds = (("missing", missing), ("surplus", surplus))
        parts = [f"{word} channel {', '.join(f'_{n:04d}' for n in some)}" for word, some in kinds if some]
        raise ChannelError(
            f"{' and '.join(parts)}; {channels} expected, found {_names(everything)}",
            remedy="Add or remove channel files; rename them if the numbers are no channels",
        )
    return tuple(found.numbered[n][0] for n in range(channels))


def _label(found: Found) -> Path:
    if not found.labels:
        images = [*found.whole, *(p for ps in found.numbered.values() for p in ps)]
        raise DatasetError("an image without label map", file=images[0], remedy="Add the label map, or remove the image")
    if len(found.labels) > 1:
        raise DatasetError(
            f"a duplicate: {_names(found.labels)} are label maps of one case", file=found.labels[0], remedy="Keep one of them"
        )
    return found.labels[0]


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(p.name for p in paths))
