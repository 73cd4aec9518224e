"""Whether the augmentation that a plan asks for can be done: judged before the first sample."""

from __future__ import annotations

from autoseg.errors import PlanError
from autoseg.planning.schema import AugmentationPlan
from autoseg.training.augmentation.batchgenerators_backend import plugged_class
from autoseg.training.augmentation.drawing import RANGES, in_processes

_ORDERS = {"image": (0, 1, 3), "labels": (0, 1)}  # of the native backend's splines


def check(plan: AugmentationPlan) -> None:
    """Whether every transform names the ranges that it draws from, and the backend can do what is asked.

    Raises:
        PlanError: a range is missing or unknown; a spline order that the native backend lacks; a plug-in that isn't there;
            batchgenerators on another device.
    """
    for number, transform in enumerate(plan.transforms):
        wanted, found = set(RANGES[transform.do]), set(transform.ranges)
        fewer_axes = transform.do == "rotate" and found and found < wanted
        if found != wanted and not fewer_axes:
            raise PlanError(
                f"training.augmentation.transforms.{number} ({transform.do}) has ranges {sorted(found)}, it draws from {sorted(wanted)}",
                remedy="Name exactly these ranges, each as [lowest, highest]",
            )
    for (what, orders), order in zip(_ORDERS.items(), plan.interpolation, strict=True):
        if plan.backend == "native" and order not in orders:
            raise PlanError(
                f"training.augmentation.interpolation asks for order {order} of the {what}; the native backend has {list(orders)}",
                remedy="Choose one of these, or backend batchgenerators",
            )
    for plug_in in plan.plug_ins:
        plugged_class(plug_in)
    if plan.device == "training" and in_processes(plan):
        raise PlanError(
            "training.augmentation.device is training, but batchgenerators' transforms work on the CPU only",
            remedy="Set device cpu, or backend native and no plug_ins",
        )
