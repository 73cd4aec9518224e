"""One predictor for every configuration: a prepared case in, its label map on the original (oriented) grid out.

It works from arrays and their origin alone, so that the held-out cases of a fold and fresh cases go one way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from autoseg.data.case import LabelMap
from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.geometry import to_lps
from autoseg.inference import export
from autoseg.inference.sliding_window import (
    Ensemble,
    FirstStage,
    Slab,
    View,
    Window,
    mirrored_views,
    predict_slabs,
    slab_axis,
    tile_count,
)
from autoseg.network.device import inference_precision, placed
from autoseg.network.precision import resolve_memory_layout
from autoseg.planning.schema import ConfigurationPlan, Plan, PredictionPlan
from autoseg.preprocessing.prepared import Origin

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Predictor:
    """What turns prepared cases into label maps; `make_predictor` makes one of a plan.

    configuration: as read from the plan.
    exchange: the order of the classes or regions in which left and right have changed places, used where a test-time mirror runs from
        left to right; None where sides do not matter.
    keeps_sides: whether nothing is mirrored from left to right, whatever axes the plan names.
    """

    configuration: ConfigurationPlan
    prediction: PredictionPlan
    labels: LabelSet
    ensemble: Ensemble
    exchange: tuple[int, ...] | None
    keeps_sides: bool = False

    def predict(
        self,
        image: np.ndarray,
        spacing: tuple[float, float, float],
        origin: Origin,
        *,
        previous: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> LabelMap:
        """The label map in file values on the oriented grid.

        Args:
            image: float32 (channel, z, y, x), prepared, in the axis order that the network sees.
            spacing: mm of the prepared grid, in the same order.
            origin: where it came from.
            previous: what the first stage of a cascade found, class indices (z, y, x) as the image; its second stage needs it.
            progress: called with the tiles done and the tiles in all.

        Raises:
            ModelError: a network gave values that are not finite.
        """
        target = self._target(image, spacing, origin)
        indices = self._indices(self._slabs(image, previous, origin, target.axes[0], progress), target, origin)
        return export.on_oriented_grid(indices, target, origin, self.labels)

    def predict_probabilities(
        self,
        image: np.ndarray,
        spacing: tuple[float, float, float],
        origin: Origin,
        *,
        previous: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> tuple[LabelMap, np.ndarray]:
        """As `predict`, and with it the probabilities, float32 (output, z, y, x) on the oriented grid.

        Unlike `predict` this holds all outputs at the original size.
        """
        target = self._target(image, spacing, origin)
        slabs = list(self._slabs(image, previous, origin, target.axes[0], progress))
        logits = self.configuration.resampling.logits
        volume = export.probabilities_from(
            slabs,
            target,
            across=target.across(logits, origin),
            order_across=logits.order_across,
            labels=self.labels,
            average=self.prediction.average,
        )
        label_map = export.on_oriented_grid(self._indices(slabs, target, origin), target, origin, self.labels)
        return label_map, export.probabilities_on_oriented_grid(volume, target, origin, self.labels)

    def seconds(self, channels: int, shapes: Sequence[Sequence[int]]) -> float:
        """How long prepared cases of these shapes (z, y, x) will take on this machine, by one batch of tiles that is timed here."""
        window = self._window(())
        tile = self._batch_shape(window.patch)
        blank = np.zeros((channels, *tile), np.float32)
        for _ in range(2):  # the first call finds its kernels and memory
            began = time.perf_counter()
            for _slab in predict_slabs(blank, self.ensemble, window, axis=slab_axis(tile, window.patch)):
                pass
            once = time.perf_counter() - began
        views = 2 ** len([axis for axis in self.prediction.test_time_mirrors if self.configuration.inside_axis(axis) is not None])
        tiles = sum(tile_count(shape, window.patch, self.prediction) for shape in shapes)
        return once * views * tiles / tile_count(tile, window.patch, self.prediction)

    def _batch_shape(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        return patch if len(patch) == 3 else (self.prediction.batch_tiles, *patch)

    def _target(self, image: np.ndarray, spacing: tuple[float, float, float], origin: Origin) -> export.Target:
        axis = slab_axis(image.shape[1:], self.configuration.patch_size)
        return export.Target.of(origin, tuple(image.shape[1:]), tuple(spacing), axis)

    def _slabs(
        self, image: np.ndarray, previous: np.ndarray | None, origin: Origin, axis: int, progress: Progress | None
    ) -> Iterable[Slab]:
        window = self._window(self._views(origin, len(image)))
        first_stage = None if previous is None else FirstStage(previous, self.labels.region_indices)
        return predict_slabs(image, self.ensemble, window, axis=axis, first_stage=first_stage, progress=progress)

    def _window(self, views: tuple[View, ...]) -> Window:
        inside = self.configuration.inside()
        return Window(tuple(inside.patch_size), inside.padding.predict, self.prediction, views or (View(),))

    def _views(self, origin: Origin, channels: int) -> tuple[View, ...]:
        """The test-time mirrors on the axes that the network sees; the left-right axis is the patient's (DESIGN 6.5)."""
        seen = {axis: self.configuration.inside_axis(axis) for axis in self.prediction.test_time_mirrors}
        left_right = to_lps(origin.oriented).axes[2]
        if self.keeps_sides:
            seen.pop(left_right, None)
        sides = seen.get(left_right)
        outputs = inputs = None
        if self.exchange is not None:
            outputs = self.exchange if self.labels.regions else (0, *(1 + i for i in self.exchange))
            if self.configuration.previous_stage:
                inputs = (*range(channels), *(channels + i for i in self.exchange))
        return mirrored_views([a for a in seen.values() if a is not None], sides, outputs, inputs)

    def _indices(self, slabs: Iterable[Slab], target: export.Target, origin: Origin) -> np.ndarray:
        resampling = self.configuration.resampling
        threshold = 0.5 if self.prediction.average == "probabilities" else 0.0
        if self.prediction.resize == "labels":
            across = target.across(resampling.labels, origin)
            return export.labels_from_labels(slabs, target, resampling.labels, across=across, labels=self.labels, threshold=threshold)
        across = target.across(resampling.logits, origin)
        return export.labels_from_logits(
            slabs, target, across=across, order_across=resampling.logits.order_across, labels=self.labels, threshold=threshold
        )


def make_predictor(plan: Plan, configuration: str, networks: Sequence[nn.Module], *, device: str) -> Predictor:
    """The predictor of one configuration and the networks of one or more folds.

    The networks themselves are moved to `device` and put into evaluation mode.

    Raises:
        PlanError: the plan asks for logits to be resized other than linearly.
    """
    part = plan.configurations[configuration]
    logits = part.resampling.logits
    if plan.prediction.resize == "logits" and (logits.order != 1 or logits.order_across == 3):
        raise PlanError(
            f"configurations.{configuration}.resampling.logits has orders {logits.order} and {logits.order_across}",
            remedy="Outputs are resized linearly: set order to 1, and order_across to 0 or 1",
        )
    labels = plan.dataset.label_set()
    layout = resolve_memory_layout(plan.training.memory_layout, device)
    ensemble = Ensemble(
        networks=tuple(placed(network, device, layout, part.network.dimension) for network in networks),
        outputs=labels.outputs,
        regions=labels.regions,
        device=device,
        precision=inference_precision(plan.training.precision, device),
        memory_layout=layout,
    )
    rule = plan.training.augmentation.mirror_sides
    exchange = plan.dataset.side_exchange() if rule == "exchange" else None
    return Predictor(part, plan.prediction, labels, ensemble, exchange, keeps_sides=rule == "keep")
