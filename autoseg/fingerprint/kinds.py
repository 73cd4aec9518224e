"""What kind of numbers an image holds: HU, a window scaled to 0..255, or arbitrary (DESIGN 6.7, paper R1).

A kind is found from the values of the whole volume in two steps: what they look like alone, then what that means for the
channel. Kinds other than `arbitrary` exist only where the channel is called CT or some case proves HU.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import get_args

import numpy as np

from autoseg.errors import DatasetError, IntensityError
from autoseg.fingerprint.histogram import Histogram, Intensities, describe
from autoseg.fingerprint.types import Kind, KindFinding

KINDS: tuple[Kind, ...] = get_args(Kind)

INTERCEPT = -1024.0  # HU of the value 0 in CT stored without its intercept; also the lowest value of most scanners
PADDING = -1500.0  # no tissue or air lies below: what does was filled in outside the scan circle (-2000 to -3024)
METAL = 4000.0  # HU that no tissue reaches
HU_BELOW = -200.0  # paper R1: a CT with lower values is in HU
AIR = (-1100.0, -700.0)  # HU where the commonest value below -500 lies: outside air, or lung where the image is cropped to it
SOFT_TISSUE = (-200.0, 200.0)  # HU where the commonest value above -500 lies: fat, muscle, blood, organs
DIVIDE = -500.0  # HU between the two
PEAK_WIDTH = 96.0  # HU around a peak that count as its share
PEAK_SHARE = 0.01  # of the volume, that each peak must hold
PEAK_OF_SIDE = 0.35  # of the values on its side of DIVIDE; real CT has .5 and more, MR spreads wider
VALLEY = (-700.0, -300.0)  # HU between lung and fat; few voxels lie there in any CT, many do in an MR of like range
VALLEY_SHARE = 0.2

CT_WORDS = frozenset({"ct", "cta", "ncct", "cect", "ldct", "hrct", "mdct", "msct", "hu", "hounsfield"})
OTHER_WORDS = frozenset({"pet", "mr", "mri", "suv", "spect", "us"})


def intensity_kind(values: np.ndarray, *, channel_name: str) -> KindFinding:
    """The kind of one channel of one case, as far as its values and the channel's name tell.

    Args:
        values: the whole channel as stored, (z, y, x), finite.
        channel_name: as dataset.json calls it.
    """
    return settle_kind(looks_like(_measured(values)), is_ct=says_ct(channel_name), channel_name=channel_name)


def kind_for_case(values: np.ndarray, *, channel_name: str, kinds_in_plan: Collection[str]) -> KindFinding:
    """The kind by which a case that the plan has not seen is to be treated: one of `kinds_in_plan`, whatever it looks like.

    `sure` is False, and `why` says so, where the plan has no steps for what the case looks like: the network has not seen its like.
    """
    if set(kinds_in_plan) == {"arbitrary"}:
        return KindFinding(kind="arbitrary", why="the plan knows one kind for this channel", sure=True)
    look = looks_like(_measured(values))
    found = settle_kind(look, is_ct=True, channel_name=channel_name)
    if look.kind == "arbitrary" and "arbitrary" in kinds_in_plan:
        return look
    if found.kind in kinds_in_plan:
        return found
    instead = next(kind for kind in KINDS if kind in kinds_in_plan)
    why = f"{found.why}; the model was trained on no case of kind {found.kind!r}, so it is treated as {instead!r}"
    return KindFinding(kind=instead, why=why, sure=False, offset=found.offset)


def mend_hu(values: np.ndarray) -> np.ndarray:
    """HU of a CT's values as stored: the missing intercept added, padding outside the scan circle raised to -1024.

    Args:
        values: a whole channel as stored, (z, y, x), finite; a part of it may look different. Left as they are.

    Returns: the same array where nothing needs mending.
    """
    return mended(values, *mending(values))


def mending(values: np.ndarray) -> tuple[float, float]:
    """Minimum and offset of a whole channel, for `mended`; the fingerprint keeps both of the cases that it is of."""
    measures = _measured(values)
    return measures.minimum, looks_like(measures).offset


def mended(values: np.ndarray, minimum: float, offset: float, *, out: np.ndarray | None = None) -> np.ndarray:
    """`mend_hu` of values whose minimum and offset are known; the same array where nothing needs mending.

    Args:
        values: the whole channel or a part of it.
        minimum: of the whole channel.
        offset: of `looks_like` of the whole channel.
        out: where mended values are written, such as `values` itself; None: a new array.
    """
    if offset:
        values = np.add(values, np.asarray(offset, dtype=values.dtype), out=out)
    if minimum + offset < PADDING:
        values = np.maximum(values, np.asarray(INTERCEPT, dtype=values.dtype), out=out)
    return values


def settle_kinds(
    findings: Mapping[str, Mapping[str, KindFinding]],
    channel_names: Sequence[str],
    overrides: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, KindFinding]]:
    """The kinds of a dataset: case -> channel name -> kind.

    Args:
        findings: case -> channel name -> what the values look like alone (`looks_like`).
        overrides: case -> channel name -> kind, which win (`intensity_kind` in dataset.json).

    Raises:
        DatasetError: an override names no kind.
    """
    settled: dict[str, dict[str, KindFinding]] = {case: {} for case in findings}
    for channel in channel_names:
        is_ct = holds_ct(channel, (found[channel] for found in findings.values()))
        for case, found in findings.items():
            given = overrides.get(case, {}).get(channel)
            if given is None:
                settled[case][channel] = settle_kind(found[channel], is_ct=is_ct, channel_name=channel)
            elif given in KINDS:
                settled[case][channel] = KindFinding(kind=given, why="dataset.json says so", sure=True, offset=found[channel].offset)
            else:
                remedy = f"Use one of {', '.join(KINDS)}"
                raise DatasetError(f"intensity_kind of channel {channel!r} is {given!r}", case=case, remedy=remedy)
    return settled


def holds_ct(channel_name: str, looks: Iterable[KindFinding]) -> bool:
    """Whether a channel holds CT: by its name, or since some case's values prove HU."""
    return says_ct(channel_name) or any(look.kind == "hu" and look.sure for look in looks)


def settle_kind(look: KindFinding, *, is_ct: bool, channel_name: str) -> KindFinding:
    """What a look means for the channel: anything is `arbitrary` where it is no CT; a CT of unknown range is HU, unsure."""
    if look.kind == "hu" and look.sure:
        return look
    if not is_ct:
        return KindFinding(kind="arbitrary", why=f"channel {channel_name!r} is not called CT and nothing proves HU", sure=True)
    if look.kind == "arbitrary":
        return KindFinding(kind="hu", why=f"{look.why}, neither HU nor 0..255; taken as HU because the channel is CT", sure=False)
    return look.model_copy(update={"sure": look.kind == "hu" or look.sure})


def looks_like(measures: Intensities) -> KindFinding:
    """What a whole volume's values look like alone; `hu` and `sure` together mean that they prove HU, whatever the channel is called."""
    low, high = measures.minimum, measures.maximum
    span = f"values {low:g}..{high:g}"
    if low < HU_BELOW and _air_and_tissue(measures.histogram, offset=0.0):
        return KindFinding(kind="hu", why=f"{span} with the peaks of air and soft tissue", sure=True)
    if measures.histogram.whole and _without_intercept(measures):
        why = f"{span} with the peaks of air and soft tissue 1024 too high: HU without intercept"
        return KindFinding(kind="hu", why=why, sure=False, offset=INTERCEPT)
    if low < HU_BELOW and high > HU_BELOW:
        return KindFinding(kind="hu", why=f"{span}, which reach below {HU_BELOW:g}", sure=False)
    if low >= 0 and high <= 255:
        whole = measures.histogram.whole and high > 1
        levels = "in whole levels" if whole else "not in the whole levels of a gray-value image"
        return KindFinding(kind="windowed", why=f"{span} {levels}", sure=whole)
    return KindFinding(kind="arbitrary", why=span, sure=True)


def says_ct(channel_name: str) -> bool:
    words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", channel_name).lower()))
    return bool(words & CT_WORDS or {"computed", "tomography"} <= words) and not words & OTHER_WORDS


def _measured(values: np.ndarray) -> Intensities:
    if not values.size or not (math.isfinite(values.min()) and math.isfinite(values.max())):
        raise IntensityError("its values are not finite, so that they have no kind", remedy="Replace NaN and infinite values")
    return describe(values)


def _without_intercept(measures: Intensities) -> bool:
    """Whether whole values are CT from 0 (padding apart): air at 0, soft tissue near 1024."""
    values = measures.histogram.nearest
    lowest = values[values > PADDING]
    return lowest.size > 0 and lowest[0] >= 0 and _air_and_tissue(measures.histogram, offset=INTERCEPT)


def _air_and_tissue(h: Histogram, *, offset: float) -> bool:
    """Whether air and soft tissue each make a peak where they have to, and little lies between lung and fat."""
    values, counts = _by_hu(h, offset)
    total = counts.sum()
    for side, (low, high) in ((values < DIVIDE, AIR), (values >= DIVIDE, SOFT_TISSUE)):
        peak = _peak(values[side], counts[side])
        if peak is None or not low <= peak <= high:
            return False
        if counts[side & (np.abs(values - peak) <= PEAK_WIDTH)].sum() < max(PEAK_SHARE * total, PEAK_OF_SIDE * counts[side].sum()):
            return False
    return counts[(values > VALLEY[0]) & (values < VALLEY[1])].sum() < VALLEY_SHARE * total


def _by_hu(h: Histogram, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Whole HU from padding to metal and the voxels of each; padding is left out, and what lies above counts as metal."""
    places = np.floor(h.nearest + offset - PADDING).clip(-1, METAL - PADDING).astype(int)
    kept = places > 0
    size = int(METAL - PADDING) + 1
    return PADDING + np.arange(size), np.bincount(places[kept], weights=h.counts[kept], minlength=size)


def _peak(values: np.ndarray, counts: np.ndarray) -> float | None:
    """The value around which a window of PEAK_WIDTH / 2 holds the most voxels; None if there are none."""
    if not counts.any():
        return None
    return float(values[np.convolve(counts, np.ones(round(PEAK_WIDTH / 2)), mode="same").argmax()])
