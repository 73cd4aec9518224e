"""What each command does, as one function over the rooms below. Reading the program starts here.

Data flows one way: Dataset -> Fingerprint -> Plan -> stored cases -> fold runs -> predictions -> scores. The functions that stand
for these arrows are called in that order: `open_dataset`, `measure`, `plan`, `preprocess` (preparing.py), `run_folds` (for each
fold `train_fold`, `predict_stored`, `fold_scores`) and `join_folds` (training.py); `load_model`, `predict_files` for fresh images
(predicting.py); `evaluate_folders` for anybody's (evaluating.py). checking.py tells how a dataset and a WORK stand.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PARTS = {
    "preparing": ("Planned", "plan_and_preprocess"),
    "checking": ("doctor", "info", "list_series"),
    "training": ("Trained", "train"),
    "predicting": ("Predicted", "predict"),
    "evaluating": ("evaluate", "evaluate_work"),
}
_HOMES = {name: part for part, names in _PARTS.items() for name in names}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    # Lazily, since a command must not pay for the libraries of another: torch alone takes as long as preparing fifty small cases.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
