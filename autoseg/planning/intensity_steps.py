"""Ways of normalising that have a name, and what the user gives of a channel's steps with --set intensity...."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

from autoseg.errors import PlanError
from autoseg.planning.figures import Channel, Figures
from autoseg.planning.overrides import REMEDY, Request, put, split_key
from autoseg.planning.problems import validated
from autoseg.planning.reasons import reason
from autoseg.planning.rules import IntensityRule
from autoseg.planning.schema import Clip, IntensityPlan, IntensityStep, Kind, Nothing, Part, Reason, Rescale, ZScore

GRAYS = (0.0, 255.0)
Intensity = dict[str, dict[str, IntensityPlan]]


def own_zscore(mask: str = "all") -> ZScore:
    return ZScore(do="zscore", mean=None, std=None, mask=mask)


def before(*steps: IntensityStep) -> IntensityPlan:
    return IntensityPlan(before_resampling=list(steps), after_resampling=[])


def ct_steps(channel: Channel, kind: str) -> list[IntensityStep]:
    """Clip to the percentiles of the foreground, then its mean and deviation (peer 3.4)."""
    f = channel.foreground[kind]
    return [
        Clip(do="clip", low=f.percentile_00_5, high=f.percentile_99_5),
        ZScore(do="zscore", mean=f.mean, std=max(f.std, 1e-8), mask="all"),
    ]


def _ct(channel: Channel, kind: str, rule: IntensityRule) -> list[IntensityStep]:
    """By the foreground of this kind; windowed volumes of a channel that has HU alone are brought back to HU first."""
    if not channel.foreground:
        raise PlanError(
            f"--set intensity.{channel.name}: ct takes its numbers from the labelled voxels, and no case has any",
            remedy="Choose another way",
        )
    if kind in channel.foreground:
        return ct_steps(channel, kind)
    usual = max(channel.foreground, key=lambda k: channel.cases.get(k, 0))
    to_hu = [Rescale(do="rescale", low=GRAYS[0], high=GRAYS[1], to=rule.window, round=False)] if (kind, usual) == ("windowed", "hu") else []
    return [*to_hu, *ct_steps(channel, usual)]


WAYS: dict[str, tuple[str, Callable[[Channel, str, IntensityRule], list[IntensityStep]]]] = {
    "ct": ("values are clipped to what occurs under the labels and scaled by their mean and deviation", _ct),
    "zscore": ("each volume is scaled by its own mean and deviation", lambda *_: [own_zscore()]),
    "zscore_nonzero": ("each volume is scaled by the mean and deviation of its non-zero voxels", lambda *_: [own_zscore("nonzero")]),
    "rescale_to_0_1": (
        "each volume's own range becomes 0..1",
        lambda *_: [Rescale(do="rescale", low=None, high=None, to=(0, 1), round=False)],
    ),
    "none": ("values stay as they are", lambda *_: [Nothing(do="none")]),
}
"""Name -> what it does, and the steps of a channel's kind."""


class _Kinds(Part):
    """What a channel's steps must be."""

    kinds: dict[Kind, IntensityPlan]


def with_given(
    plans: Intensity, reasons: list[Reason], figures: Figures, rule: IntensityRule, wanted: Request
) -> tuple[Intensity, list[Reason]]:
    """The steps with what the user gives: a named way for `intensity.CHANNEL` or one of its kinds, or any dotted key beneath.

    Raises:
        PlanError: an unknown way or channel, or steps that are none.
    """
    channels = {channel.name: channel for channel in figures.channels}
    for key, value in wanted.settings.items():
        if key.split(".")[0] != "intensity":
            continue
        channel, rest = _channel(key, channels)
        content = {kind: plan.model_dump(mode="json") for kind, plan in plans[channel.name].items()}
        if isinstance(value, str) and rest in ("", *get_args(Kind)):
            what, steps = _way(key, value)
            for kind in [rest] if rest else list(content):
                content[kind] = before(*steps(channel, kind, rule)).model_dump(mode="json")
            reasons = [r for r in reasons if rest or r.decision != key]
            reasons.append(reason(key, value, f"You gave it: {what}", "you gave another"))
        elif rest:
            put(content, rest, value)
        else:
            content = value
        plans = {**plans, channel.name: validated(_Kinds, {"kinds": content}, what=f"--set {key}", remedy=REMEDY).kinds}
    return plans, reasons


def _channel(key: str, channels: dict[str, Channel]) -> tuple[Channel, str]:
    """The channel that a key names, and what follows; a channel's name may hold dots."""
    path = key.split(".", 1)[1] if "." in key else ""
    for name in sorted(channels, key=len, reverse=True):
        if path == name or path.startswith(f"{name}."):
            return channels[name], path[len(name) + 1 :]
    raise PlanError(f"--set {key}: it names none of the channels {', '.join(channels)}", remedy=REMEDY)


def _way(key: str, name: str) -> tuple[str, Callable[[Channel, str, IntensityRule], list[IntensityStep]]]:
    if name not in WAYS:
        raise PlanError(f"--set {key}: there is no way {name!r} to normalise", remedy=f"Choose among {', '.join(WAYS)}, or give steps")
    return WAYS[name]


def without_masks(plans: Intensity, wanted: Request) -> Intensity:
    """The steps without the non-zero mask in channels for which the user sets `normalise_in_mask` false in some configuration.

    Where it stays true, the configuration turns the mask on.
    """
    given = [value for key, value in wanted.settings.items() if split_key(key)[1] == "normalise_in_mask" and isinstance(value, list)]
    off = {number for value in given for number, mask in enumerate(value) if mask is False}

    def changed(steps: Iterable[IntensityStep]) -> list[IntensityStep]:
        return [step.model_copy(update={"mask": "all"}) if isinstance(step, ZScore) else step for step in steps]

    return {
        name: {
            kind: IntensityPlan(before_resampling=changed(plan.before_resampling), after_resampling=changed(plan.after_resampling))
            for kind, plan in kinds.items()
        }
        if number in off
        else kinds
        for number, (name, kinds) in enumerate(plans.items())
    }
