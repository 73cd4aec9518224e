"""Histograms of the foreground, added up case by case: one for each sort of case whose kind will be settled alike.

What kind a case's channel has is known only when all cases were seen; until then cases that look alike are kept together. There
are a handful of sorts a channel, so that memory does not grow with the number of cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from autoseg.fingerprint.histogram import Histogram, merge, weighted
from autoseg.fingerprint.kinds import holds_ct, settle_kind
from autoseg.fingerprint.types import Kind, KindFinding


@dataclass(frozen=True)
class ForegroundHistograms:
    """Of one channel of one case.

    stored: of the values in the file. hu: of the same in HU; equal to `stored` where nothing needs mending.
    """

    stored: Histogram
    hu: Histogram


class Sort(NamedTuple):
    """What cases have in common that will be of one kind.

    channel: its number. look, sure: what the values look like alone. given: the kind that dataset.json says, or None.
    """

    channel: int
    look: Kind
    sure: bool
    given: str | None


Spread = dict[Sort, ForegroundHistograms]


def add(spread: Spread, sort: Sort, found: ForegroundHistograms) -> None:
    """One more case, which weighs as much as any other; the order of adding makes no difference."""
    stored = weighted(found.stored)
    more = ForegroundHistograms(stored, stored if found.hu is found.stored else weighted(found.hu))
    spread[sort] = _joined(spread[sort], more) if sort in spread else more


def _joined(one: ForegroundHistograms, other: ForegroundHistograms) -> ForegroundHistograms:
    stored = merge(one.stored, other.stored)
    alike = one.hu is one.stored and other.hu is other.stored
    return ForegroundHistograms(stored, stored if alike else merge(one.hu, other.hu))


def of_kind(
    spread: Mapping[Sort, ForegroundHistograms], channel: int, name: str, kind: Kind, looks: Iterable[KindFinding]
) -> Histogram | None:
    """The histogram of the cases whose channel has a kind, in HU for kind `hu`; None where none of them has foreground.

    Args:
        name: of the channel.
        looks: what this channel looks like alone in every case, with foreground or without.
    """
    is_ct = holds_ct(name, looks)
    sorts = [sort for sort in sorted(spread, key=str) if sort.channel == channel and _kind(sort, is_ct, name) == kind]
    found = [spread[sort].hu if kind == "hu" else spread[sort].stored for sort in sorts]
    return reduce(merge, found) if found else None


def _kind(sort: Sort, is_ct: bool, name: str) -> str:
    look = KindFinding(kind=sort.look, why="", sure=sort.sure)
    return sort.given or settle_kind(look, is_ct=is_ct, channel_name=name).kind
