"""Whether one case can be predicted in the memory that is free, before its first tile."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from autoseg.errors import ResourceError
from autoseg.inference.predictor import Predictor
from autoseg.network.device import free_memory_gb
from autoseg.planning.activations import Form
from autoseg.planning.fitting import PREDICTION_AT_LEAST, require
from autoseg.planning.forecast import ITEM, CaseSize, Task, prediction_memory_gb, probabilities_gb
from autoseg.preprocessing.prepared import Origin

log = logging.getLogger("autoseg")


def require_memory(predictor: Predictor, shape: Sequence[int], origin: Origin, *, case: str, probabilities: bool = False) -> None:
    """Refuse a case that surely does not fit in the device's memory; log a warning about one that may not.

    The networks and the prepared image are there already. A network of one's own is not judged; on CUDA the forecast is unverified.

    Args:
        shape: of the prepared image, (channel, z, y, x), without what a cascade's first stage adds.
        origin: where the image came from.
        probabilities: whether every output is wanted at the original size.

    Raises:
        ResourceError: it does not fit; names the case.
    """
    part, ensemble, labels = predictor.configuration, predictor.ensemble, predictor.labels
    if part.network.factory is not None:
        return
    kind = torch.device(ensemble.device).type
    form = Form(ITEM[ensemble.precision], channels_last=ensemble.memory_layout == "channels_last", cpu=kind == "cpu")
    inputs = shape[0] + (len(labels.names) if part.previous_stage else 0)
    size = CaseSize(tuple(shape[1:]), math.prod(high - low for low, high in origin.box))
    task = Task(inputs, ensemble.outputs, labels.regions)
    needed = prediction_memory_gb(part, form, predictor.prediction, task, size, folds=0)
    needed += probabilities_gb(ensemble.outputs, size, kind) if probabilities else 0.0
    try:
        warning = require(
            f"prediction of {' x '.join(map(str, shape[1:]))} prepared voxels",
            needed,
            free_memory_gb(ensemble.device),
            at_least=PREDICTION_AT_LEAST,
            where="RAM" if kind == "cpu" else ensemble.device,
            remedy=_remedy(kind, predictor.prediction.batch_tiles, probabilities),
        )
    except ResourceError as error:
        raise error.in_case(case) from None
    if warning:
        log.warning("case %s: %s", case, warning)


def _remedy(kind: str, batch_tiles: int, probabilities: bool) -> str:
    ways = ["Free memory", "crop the image"]
    ways += ["predict without --probabilities"] if probabilities else []
    ways += ["set prediction.batch_tiles in plan.json to 1"] if batch_tiles > 1 else []
    return ", ".join(ways) + (", or use a machine with more" if kind == "cpu" else ", or use --device cpu")
