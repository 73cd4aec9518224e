"""predict: fresh images -> predictions, by the ensemble of a model's folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import Problem
from autoseg.evaluation.predictions import write_summary
from autoseg.inference.model import Model, load_model
from autoseg.inference.results import CaseResult
from autoseg.progress import bar

log = logging.getLogger("autoseg")


@dataclass(frozen=True)
class Predicted:
    """What predict leaves: a result a case, and the model's notices."""

    model: Model
    results: tuple[CaseResult, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Errors and warnings of all cases."""
        return tuple(p for r in self.results for p in (*([r.error] if r.error else []), *r.warnings))


def predict(
    model: Path,
    inputs: Path,
    output: Path,
    *,
    folds: Sequence[int | str] | None = None,
    configurations: Sequence[str] | None = None,
    probabilities: bool = False,
    device: str = "auto",
    trust_code: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    quiet: bool = False,
) -> Predicted:
    """Predict a label map for each image, on its own grid, with the ensemble of the model's folds.

    Args:
        workers, cluster: see `Model.predict_files`.

    Raises:
        ModelError: no model, or one that may not be opened.
        DatasetError: no images.
    """
    loaded = load_model(model, device=device, folds=folds, configurations=configurations, trust_code=trust_code)
    for notice in loaded.notices:
        log.warning("%s.", notice)
    log.info("Model: %s, %s, fold(s) %s.", model.name, " then ".join(loaded.stages), ", ".join(map(str, loaded.folds)))
    with bar("predicting", None, quiet=quiet) as tick:
        where = {"workers": workers, "cluster": cluster}
        results = loaded.predict_files(inputs, output, probabilities=probabilities, **where, on_case=lambda result: tick(result.case))
    write_summary(output, results, loaded.configuration, loaded.folds)
    return Predicted(loaded, tuple(results))
