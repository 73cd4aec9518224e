"""What is done to the intensities of each kind of each channel, and whether z-scores use the non-zero mask."""

from __future__ import annotations

from autoseg.planning.figures import Channel, Figures
from autoseg.planning.intensity_steps import GRAYS, Intensity, before, ct_steps, own_zscore, with_given, without_masks
from autoseg.planning.overrides import Request
from autoseg.planning.reasons import reason
from autoseg.planning.rules import IntensityRule
from autoseg.planning.schema import Clip, IntensityPlan, IntensityStep, Nothing, Reason, Rescale

KINDS = ("hu", "windowed", "arbitrary")


def plan_intensity(figures: Figures, rule: IntensityRule, crop: str, wanted: Request) -> tuple[Intensity, list[bool], list[Reason]]:
    """Steps of each channel's kinds, `normalise_in_mask` of each channel, and reasons.

    A channel that holds HU has steps for windowed volumes too and the other way round, so that a new case of the other kind finds
    some; `arbitrary` stands beside them only where a case was said to be so, since a CT that looks like nothing else is taken as HU.

    Raises:
        PlanError: the user asks for steps that there are none of, or of a channel that is not there.
    """
    masked = crop == "nonzero" and figures.relative_size < rule.mask_below and rule.rule != "paper"
    plans: Intensity = {}
    reasons: list[Reason] = []
    for channel in figures.channels:
        if rule.rule == "paper":
            steps, why = _paper(channel, rule)
        elif rule.rule == "peer" or not channel.hounsfield:
            steps, why = _by_name(figures, channel, masked)
        else:
            steps, why = _by_kind(channel, rule)
        plans[channel.name] = {kind: steps[kind] for kind in _wanted(channel)}
        reasons.append(why)
    plans, reasons = with_given(plans, reasons, figures, rule, wanted)
    masks = [any(plan.masked for plan in kinds.values()) for kinds in plans.values()]
    return without_masks(plans, wanted), masks, reasons


def _wanted(channel: Channel) -> list[str]:
    kinds = {"hu", "windowed"} if channel.hounsfield else {"arbitrary"}
    return [kind for kind in KINDS if kind in kinds | set(channel.cases)]


def _counts(channel: Channel) -> str:
    words = {"hu": "in Hounsfield units", "windowed": "windowed to 0..255", "arbitrary": "in arbitrary units"}
    return " and ".join(f"{n} case{'s are' if n != 1 else ' is'} {words[kind]}" for kind, n in sorted(channel.cases.items()))


def _by_name(figures: Figures, channel: Channel, masked: bool) -> tuple[dict[str, IntensityPlan], Reason]:
    """The peer's way: the channel's name decides, for all kinds alike (peer 2.9, 3.4)."""
    title = channel.title.strip().lower()
    key = f"intensity.{channel.name}"
    facts = {"cases": channel.cases, "relative_size_after_crop": figures.relative_size}
    kind = max(channel.foreground, key=lambda k: channel.cases.get(k, 0), default=None)
    if title == "ct" and kind is not None:
        steps = ct_steps(channel, kind)
        facts |= vars(channel.foreground[kind])
        why = "The channel is called CT: values are clipped to what occurs under the labels and scaled by their mean and deviation"
    elif title == "rescale_to_0_1":
        steps = [Rescale(do="rescale", low=None, high=None, to=(0, 1), round=False)]
        why = "The channel's name asks for it: each volume's own range becomes 0..1"
    elif title == "rgb_to_0_1":
        steps = [Rescale(do="rescale", low=GRAYS[0], high=GRAYS[1], to=(0, 1), round=False)]
        why = "The channel's name asks for it: 0..255 becomes 0..1"
    elif title == "nonorm":
        steps, why = [Nothing(do="none")], "The channel's name asks for no normalisation"
    else:
        steps = [own_zscore("nonzero" if masked else "all")]
        why = f"{_counts(channel)}, which mean nothing from scan to scan: each volume is scaled by its own mean and deviation"
        if masked:
            why += f", over its non-zero voxels only, since cropping to them leaves {figures.relative_size:.0%} of the median volume"
    change = "the channel had another name (CT, nonorm, rescale_to_0_1, rgb_to_0_1), or cropping removed another share"
    return {k: before(*steps) for k in KINDS}, reason(key, [s.do for s in steps], why, change, **facts)


def _by_kind(channel: Channel, rule: IntensityRule) -> tuple[dict[str, IntensityPlan], Reason]:
    """CT: absolute HU are used where every case has them; where some are windowed, all are made alike and scaled one by one."""
    key, (low, high) = f"intensity.{channel.name}", rule.window
    arbitrary = before(own_zscore())
    if "windowed" not in channel.cases and "hu" in channel.foreground:
        f = channel.foreground["hu"]
        steps = ct_steps(channel, "hu")
        to_hu = Rescale(do="rescale", low=GRAYS[0], high=GRAYS[1], to=(low, high), round=False)
        why = (
            f"{_counts(channel)}: values outside {f.percentile_00_5:.0f} to {f.percentile_99_5:.0f} HU, which hardly occur under the "
            f"labels, are clipped, and the rest scaled by the labelled voxels' mean ({f.mean:.0f} HU) and deviation ({f.std:.0f}), "
            "the same for every scan"
        )
        plans = {"hu": before(*steps), "windowed": before(to_hu, *steps), "arbitrary": arbitrary}
        return plans, reason(key, [s.do for s in steps], why, "some cases were windowed to 0..255", cases=channel.cases, **vars(f))
    if set(channel.cases) == {"arbitrary"}:
        why = f"The channel is called CT, but {_counts(channel)}: each volume is scaled by its own mean and deviation"
    else:
        why = (
            f"{_counts(channel)}. Windowed values have lost their HU, and with which window is not known; so HU go through the same "
            "kind of window (lung and soft tissue), unrounded, and every volume is scaled by its own mean and deviation, which undoes "
            "what differs"
        )
    gray = Rescale(do="rescale", low=low, high=high, to=GRAYS, round=False)
    hu = before(Clip(do="clip", low=low, high=high), gray, own_zscore())
    value = {"hu": ["clip", "rescale", "zscore"], "windowed": ["zscore"]}
    return {"hu": hu, "windowed": before(own_zscore()), "arbitrary": arbitrary}, reason(
        key, value, why, "every case were in Hounsfield units", cases=channel.cases
    )


def _paper(channel: Channel, rule: IntensityRule) -> tuple[dict[str, IntensityPlan], Reason]:
    """Paper.md items 4, 5 and 7 by rulings R1 to R3."""
    gray = Rescale(do="rescale", low=None, high=None, to=GRAYS, round=True)
    clip = Clip(do="clip", low=rule.window[0], high=rule.window[1])

    def steps(*before: IntensityStep) -> IntensityPlan:
        return IntensityPlan(before_resampling=list(before), after_resampling=[own_zscore()])

    why = (
        f"{_counts(channel)}. HU volumes are clipped to the paper's window; every volume's range becomes gray values 0..255, and after "
        "resampling each is scaled by its own mean and deviation"
    )
    plans = {"hu": steps(clip, gray), "windowed": steps(gray), "arbitrary": steps(gray)}
    value = {"hu": ["clip", "rescale", "resampling", "zscore"], "windowed": ["rescale", "resampling", "zscore"]}
    return plans, reason(f"intensity.{channel.name}", value, why, "the recipe were another", cases=channel.cases)
