"""Plans and small networks that the tests of prediction share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.files import Work
from autoseg.inference.sliding_window import Ensemble
from autoseg.network.build import build
from autoseg.network.weights import save_weights
from autoseg.planning.plan_file import write_plan
from autoseg.planning.schema import Plan, PredictionPlan


class Made(nn.Module):
    """Logits from one convolution and its position-free nonlinearity: equivariant to nothing, cheap, and seeded."""

    def __init__(self, channels: int, outputs: int, *, dimension: int = 3, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        convolution = nn.Conv3d if dimension == 3 else nn.Conv2d
        generator = torch.Generator().manual_seed(seed)
        self.first = convolution(channels, 4, 3, padding=1)
        self.last = convolution(4, outputs, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(image)))


class Pointwise(nn.Module):
    """Logits that depend on a voxel alone: output k is -(image - centre k)^2 of channel 0. Tiles cannot be seen in its result."""

    def __init__(self, centres: list[float], factor: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("centres", torch.tensor(centres))
        self.factor = factor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        centres = self.centres.view(1, -1, *[1] * (image.ndim - 2))
        return -self.factor * (image[:, :1] - centres) ** 2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Volumes here are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prediction_plan() -> Callable[..., PredictionPlan]:
    def make(**changes) -> PredictionPlan:
        return PredictionPlan(
            **{
                "overlap": 0.5,
                "tiles": "even",
                "weighting": "gaussian",
                "average": "logits",
                "resize": "logits",
                "test_time_mirrors": [],
                "batch_tiles": 2,
                **changes,
            }
        )

    return make


@pytest.fixture
def made_network() -> type[nn.Module]:
    return Made


@pytest.fixture
def pointwise() -> type[nn.Module]:
    return Pointwise


@pytest.fixture
def ensemble() -> Callable[..., Ensemble]:
    def make(*networks: nn.Module, outputs: int, regions: bool = False) -> Ensemble:
        return Ensemble(tuple(n.eval() for n in networks), outputs, regions, "cpu", "float32", "contiguous")

    return make


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    def make(*shape: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return make


PLAN = {
    "autoseg_version": "0.1.0",
    "recipe": "auto",
    "recipe_options": {},
    "created_from": "made",
    "made_for": {"device": "cpu", "memory_gb": 4.0},
    "default_configurations": ["3d_fullres"],
    "dataset": {
        "name": "made",
        "channels": ["MR"],
        "labels": {"background": 0, "left": 2, "right": 5, "spot": 9},
        "regions": {},
        "region_order": None,
        "ignore_label": None,
        "side_pairs": [["left", "right"]],
        "groups_of_labels": {},
        "orientation": "lps",
        "regrid": "none",
        "original_median": {"spacing": [1.0, 1.0, 1.0], "shape": [16, 16, 16]},
    },
    "intensity": {
        "MR": {
            "arbitrary": {
                "before_resampling": [{"do": "zscore", "mean": None, "std": None, "mask": "all"}],
                "after_resampling": [{"do": "none"}],
            }
        }
    },
    "training": {
        "loss": {
            "tversky": {
                "weight": 1.0,
                "fn_weight": 0.5,
                "fp_weight": 0.5,
                "smoothing": 1e-5,
                "background": True,
                "power": 1.0,
                "class_weight": None,
            },
            "cross_entropy": {"weight": 1.0, "top_k": None},
            "factory": None,
        },
        "optimiser": {"name": "sgd", "lr": 0.01, "momentum": 0.99, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        "schedule": {"name": "poly", "warmup": 0.0, "power": 0.9, "patience": 15, "factor": 0.5, "threshold": 1e-4, "min_lr": 0.0},
        "epochs": 1,
        "budget_seconds": None,
        "steps_per_epoch": 1,
        "early_stop": None,
        "gradient_clip": 12.0,
        "case_order": "with_replacement",
        "oversampling": {"foreground": 0.33, "by": "class"},
        "augmentation": {
            "backend": "native",
            "conventions": "batchgenerators",
            "device": "cpu",
            "plug_ins": [],
            "thick_axis": None,
            "transforms": [],
            "mirror_axes": [0, 1, 2],
            "mirror_probability": 0.5,
            "mirror_sides": "exchange",
            "interpolation": [3, 1],
            "statistics": "patch",
            "previous_stage": [],
        },
        "validation": {"batches": 0, "augment": False},
        "predict_with": "last",
        "deep_supervision": True,
        "weight_average": None,
        "start": {"weights": None, "freeze_epochs": 0, "transfer": None},
        "precision": "float32",
        "memory_layout": "contiguous",
        "compile": False,
        "deterministic": False,
        "seed": 1,
        "checkpoint_minutes": 5.0,
        "rescue": {"returns": 3, "rate_factor": 0.5, "found_dice": 0.1, "collapse_epochs": None, "slow_epochs": None},
    },
    "prediction": {
        "overlap": 0.5,
        "tiles": "even",
        "weighting": "gaussian",
        "average": "logits",
        "resize": "logits",
        "test_time_mirrors": [],
        "batch_tiles": 2,
    },
    "postprocessing": [],
    "evaluation": {"metrics": ["dice"], "tolerance_mm": {}, "summary": "mean", "empty_rule": "count"},
    "folds": {"count": 5, "seed": 1, "stratify": False, "groups": True, "source": "kfold"},
    "configurations": {
        "3d_fullres": {
            "spacing": [2.0, 1.5, 1.5],
            "median_shape": [8.0, 11.0, 11.0],
            "patch_size": [8, 8, 8],
            "batch_size": 2,
            "transpose": None,
            "crop": "none",
            "padding": {"train": "zero", "predict": "zero"},
            "normalise_in_mask": [False],
            "resampling": {
                "size": "round",
                "image": {"order": 3, "across": "thick", "order_across": 0},
                "logits": {"order": 1, "across": "thick", "order_across": 0},
                "labels": {"order": 1, "rule": "argmax", "across": "thick", "order_across": 0},
            },
            "network": {
                "factory": None,
                "kind": "unet",
                "dimension": 3,
                "features": [4, 8],
                "strides": [[1, 1, 1], [2, 2, 2]],
                "kernels": [[3, 3, 3], [3, 3, 3]],
                "blocks": {"encoder": [1, 1], "decoder": [1]},
                "downsampling": "stride",
                "norm": {"name": "instance", "momentum": 0.1, "eps": 1e-5},
                "activation": "leaky_relu",
                "order_of_layers": "conv-norm-activation",
                "initialisation": "kaiming_normal",
                "dropout": 0.0,
            },
            "pool_loss_over_batch": False,
            "previous_stage": None,
            "next_stage": None,
        }
    },
    "forecast": {},
    "reasons": [],
}


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    """A small plan; changes are given by dotted keys, as `--set` takes them (`3d_fullres` for its configuration)."""

    def make(changes: dict | None = None) -> Plan:
        content = copy.deepcopy(PLAN)
        for key, value in (changes or {}).items():
            part, names = content, key.replace("3d_fullres.", "configurations.3d_fullres.", 1).split(".")
            for name in names[:-1]:
                part = part[name]
            part[names[-1]] = value
        return Plan.model_validate(content)

    return make


@pytest.fixture
def make_work(tmp_path: Path, make_plan) -> Callable[..., Path]:
    """A WORK folder with the plan and random weights of the given folds; `fold_changes` differ in single folds' plans."""

    def make(
        folds=(0, 1, 2, 3, 4),
        changes: dict | None = None,
        fold_changes: dict | None = None,
        trained_on: dict | None = None,
        name: str = "work",
    ) -> Path:
        work = Work(tmp_path / name)
        plan = make_plan(changes)
        write_plan(work.plan, plan)
        configuration = plan.default_configurations[0]
        for number, fold in enumerate(folds):
            own = make_plan({**(changes or {}), **(fold_changes or {}).get(fold, {})})
            part = own.configurations[configuration].inside()
            torch.manual_seed(number)
            network = build(
                part.network, len(own.dataset.channels), own.dataset.label_set().outputs, deep_supervision=own.training.deep_supervision
            )
            folder = work.fold(configuration, fold)
            write_plan(folder.plan, own)
            save_weights(folder.weights, network.state_dict(), {"trained_on": (trained_on or {}).get(fold, {})})
        return work.path

    return make
