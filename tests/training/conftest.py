"""A small fold to train: prepared cases in a store, and a plan for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.files import FoldFolder
from autoseg.geometry import Grid, Orientation, whole_box
from autoseg.planning.folds import Fold
from autoseg.planning.schema import Plan
from autoseg.preprocessing.prepared import Origin, PreparedCase

SHAPE = (12, 20, 20)


def plan_content(dimension: int, channels: int, regions: bool) -> dict[str, Any]:
    """A plan for the made cases, as plain values: two levels, patches of 8 x 16 x 16 or 16 x 16."""
    spacing = {"order": 1, "across": "none", "order_across": 0}
    axes = (["8", "16", "16"], ["1"] * 3, ["2"] * 3, ["3"] * 3)
    patch, one, two, three = ([int(v) for v in a[3 - dimension :]] for a in axes)
    names = [f"channel_{i}" for i in range(channels)]
    transforms = [
        ("contrast", {"factor": [0.5, 1.5]}),
        ("brightness", {"factor": [0.7, 1.4]}),
        ("gamma", {"exponent": [0.7, 1.5]}),
        ("noise", {"deviation": [0, 0.05]}),
        ("elastic", {"alpha": [0, 100], "sigma": [5, 7]}),
        ("rotate", {"z": [-15, 15], "y": [-15, 15], "x": [-15, 15]}),
        ("scale", {"factor": [0.85, 1.25]}),
    ]
    return {
        "autoseg_version": "0",
        "recipe": "made",
        "recipe_options": {},
        "created_from": "made",
        "made_for": {"device": "cpu", "memory_gb": 4},
        "default_configurations": ["net"],
        "dataset": {
            "name": "made",
            "channels": names,
            "labels": {"background": 0, "left": 1, "right": 2},
            "regions": {"whole": [1, 2], "left": [1], "right": [2]} if regions else {},
            "region_order": [["whole", 1], ["left", 1], ["right", 2]] if regions else None,
            "ignore_label": None,
            "side_pairs": [["left", "right"]],
            "groups_of_labels": {},
            "orientation": "lps",
            "regrid": "none",
            "original_median": {"spacing": [1, 1, 1], "shape": list(SHAPE)},
        },
        "intensity": {n: {"arbitrary": {"before_resampling": [], "after_resampling": []}} for n in names},
        "training": {
            "loss": {
                "tversky": {
                    "weight": 1,
                    "fn_weight": 0.5,
                    "fp_weight": 0.5,
                    "smoothing": 1e-6,
                    "background": True,
                    "power": 1,
                    "class_weight": None,
                },
                "cross_entropy": {"weight": 1, "top_k": None},
                "factory": None,
            },
            "optimiser": {"name": "adam", "lr": 0.01, "momentum": 0.9, "beta2": 0.999, "eps": 1e-7, "weight_decay": 0},
            "schedule": {"name": "cosine", "warmup": 0.1, "power": 0.9, "patience": 2, "factor": 0.1, "threshold": 1e-4, "min_lr": 1e-5},
            "epochs": 3,
            "budget_seconds": None,
            "steps_per_epoch": 4,
            "early_stop": None,
            "gradient_clip": 12.0,
            "case_order": "shuffled_queue",
            "oversampling": {"foreground": 0.33, "by": "class"},
            "augmentation": {
                "backend": "native",
                "conventions": "batchgenerators",
                "device": "cpu",
                "plug_ins": [],
                "thick_axis": None,
                "transforms": [
                    {"do": d, "probability": 0.15, "channel_probability": 1, "ranges": r, "invert": False} for d, r in transforms
                ],
                "mirror_axes": [0, 1, 2],
                "mirror_probability": 0.5,
                "mirror_sides": "exchange",
                "interpolation": [3, 0],
                "statistics": "volume",
                "previous_stage": [],
            },
            "validation": {"batches": 1, "augment": False},
            "predict_with": "last",
            "deep_supervision": False,
            "weight_average": 0.9,
            "start": {"weights": None, "freeze_epochs": 0, "transfer": None},
            "precision": "float32",
            "memory_layout": "channels_last",
            "compile": False,
            "deterministic": False,
            "seed": 0,
            "checkpoint_minutes": 5,
            "rescue": {"returns": 3, "rate_factor": 0.5, "found_dice": 0.1, "collapse_epochs": None, "slow_epochs": None},
        },
        "prediction": {
            "overlap": 0.5,
            "tiles": "regular",
            "weighting": "uniform",
            "average": "probabilities",
            "resize": "labels",
            "test_time_mirrors": [],
            "batch_tiles": 1,
        },
        "postprocessing": [],
        "evaluation": {"metrics": ["dice"], "tolerance_mm": {}, "summary": "mean", "empty_rule": "count"},
        "folds": {"count": 2, "seed": 0, "stratify": False, "groups": False, "source": "kfold"},
        "configurations": {
            "net": {
                "spacing": [1.0] * dimension,
                "median_shape": list(SHAPE)[3 - dimension :],
                "patch_size": patch,
                "batch_size": 2,
                "transpose": None,
                "crop": "none",
                "padding": {"train": "zero", "predict": "zero"},
                "normalise_in_mask": [False] * channels,
                "resampling": {
                    "size": "round",
                    "image": spacing,
                    "logits": spacing,
                    "labels": {"order": 0, "rule": "argmax", "across": "none", "order_across": 0},
                },
                "network": {
                    "factory": None,
                    "kind": "unet",
                    "dimension": dimension,
                    "features": [4, 8],
                    "strides": [one, two],
                    "kernels": [three, three],
                    "blocks": {"encoder": [1, 1], "decoder": [1]},
                    "downsampling": "max_pool",
                    "norm": {"name": "batch", "momentum": 0.1, "eps": 1e-3},
                    "activation": "relu",
                    "order_of_layers": "conv-norm-activation",
                    "initialisation": "kaiming_normal",
                    "dropout": 0.1,
                },
                "pool_loss_over_batch": False,
                "previous_stage": None,
                "next_stage": None,
            }
        },
        "forecast": {},
        "reasons": [],
    }


def made_case(number: int, channels: int) -> PreparedCase:
    """A box of two halves, left and right, brighter than the noise around it."""
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    y, x = rng.integers(8, 12, 2)
    labels[3:9, y - 5 : y + 5, x - 5 : x] = 1
    labels[3:9, y - 5 : y + 5, x : x + 5] = 2
    image = rng.normal(0, 0.3, (channels, *SHAPE)) + labels
    grid = Grid(SHAPE)
    origin = Origin(grid, Orientation(), grid, whole_box(SHAPE), None, f"key_{number}")
    return PreparedCase(f"case_{number}", image.astype(np.float32), labels, (1.0, 1.0, 1.0), origin)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets as small as these train faster on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longer than training here; tests with "picture" in their names look at it."""
    if "picture" not in request.node.name:
        from autoseg.training import watching

        monkeypatch.setattr(watching, "draw_progress", lambda rows, path: None)


@pytest.fixture
def one_case() -> Callable[[int, int], PreparedCase]:
    """The prepared case of a number, with so many channels."""
    return made_case


@dataclass(frozen=True)
class Made:
    """A fold that can be trained: `made.train()`; `made.again(...)` is the same with other training values, in another folder."""

    content: dict[str, Any]
    fold: Fold
    store: Path
    folder: FoldFolder
    messages: list[str]

    @property
    def plan(self) -> Plan:
        return Plan.model_validate(self.content)

    def again(self, name: str, **changes: Any) -> Made:
        import copy

        content = copy.deepcopy(self.content)
        for key, value in changes.items():
            *path, last = key.split("__")
            part = content["training"]
            for step in path:
                part = part[step]
            part[last] = value
        return replace(self, content=content, folder=FoldFolder(self.folder.path.with_name(name)))

    def train(self, *, workers: int = 0, deadline: float | None = None, **more: Any):
        from autoseg.training.loop import train_fold

        return train_fold(
            self.plan,
            "net",
            self.fold,
            self.store,
            self.folder,
            device="cpu",
            workers=workers,
            deadline=deadline,
            quiet=True,
            message=self.messages.append,
            **more,
        )

    def weights(self):
        from autoseg.network.weights import load_weights

        return load_weights(self.folder.weights)[0]


@pytest.fixture
def make_fold(tmp_path: Path) -> Callable[..., Made]:
    """A fold of four cases to train on and two held out."""
    from autoseg.preprocessing.store import write_case

    def make(dimension: int = 3, channels: int = 1, regions: bool = False) -> Made:
        store = tmp_path / "store"
        for number in range(6):
            write_case(store, made_case(number, channels), "key")
        cases = tuple(f"case_{i}" for i in range(6))
        return Made(plan_content(dimension, channels, regions), Fold(0, cases[:4], cases[4:]), store, FoldFolder(tmp_path / "fold_0"), [])

    return make
