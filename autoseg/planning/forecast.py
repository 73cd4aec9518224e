"""What every stage will need, by formula and before anything runs: memory of the device, RAM, disk.

The memory of a training step is derived operation by operation (`activations`) and calibrated on one CPU machine; docs/decisions.md
says how near it came, tests/training/test_step_memory.py holds it. For CUDA it is the same derivation without what only a CPU does; that
is unverified, and so is RAM. How long anything takes cannot be derived: `train --probe` measures it (WORK/forecast.json).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.planning.activations import FLOAT, INDEX, Form, peak, prediction_peak, step_operations
from autoseg.planning.figures import Figures
from autoseg.planning.schema import ConfigurationPlan, NetworkPlan, Plan, PredictionPlan, StageForecast, TrainingPlan

GB = 2**30

# Measured on Linux, glibc, torch 2.13, AVX2, one and two threads
IMPORTS_GB = 0.25  # resident after importing what trains
FIRST_STEP_GB = 0.15  # what the first step loads beside its tensors: optimiser code, kernels, their caches
FRAGMENTS = 0.05  # share by which freed blocks that cannot be used again swell a CPU's step
# glibc takes blocks below 32 MB from a heap where what is freed leaves gaps, more so where convolutions copy maps into their own layout.
# With every block apart (MALLOC_MMAP_THRESHOLD_) the same steps took .53 GB instead of .72 to .76
HEAP_BLOCK = 2**25
HEAP_FRAGMENTS, HEAP_FRAGMENTS_REORDERED = 0.15, 0.37  # instead, where the largest level's maps are such blocks
DATA_WORKER_GB = 0.2  # a process that makes samples, beside the patches that it works at
SAMPLE_COPIES = 6  # of a patch that such a process holds at most, in float32

# Of a prepared case
VOLUMES = 4  # float32 copies of a case, as read or as prepared whichever is larger, that preprocessing holds at most
IMAGE_SHARE = 0.9  # of the float32 image that its compressed form takes on the disk: .77 to .99 on CT, MR and EM
LABEL_BYTES = 0.05  # of a voxel's compressed label
LOCATIONS = 10_000 * 12  # bytes of a class's sample of voxels: as many, as three whole numbers each

# Of a prediction
BLOCK = 4 * 2**25 * FLOAT  # outputs at their original rows, and what is made of them: `inference.export` brings 2**25 there at once

ITEM = {"bfloat16": 2, "float16": 2, "float32": FLOAT}


@dataclass(frozen=True)
class Task:
    """What a network is asked for. inputs: channels that it takes. outputs: classes with background, or regions."""

    inputs: int
    outputs: int
    regions: bool

    @classmethod
    def of(cls, plan: Plan, configuration: str) -> Task:
        """The task of one of a plan's configurations."""
        labels = plan.dataset.label_set()
        return cls(plan.input_channels(configuration), labels.outputs, labels.regions)


def parameters(network: NetworkPlan, channels: int, outputs: int) -> int:
    """Trainable parameters without deep-supervision heads: 22,581,316 for the paper's network (paper.md item 12).

    Args:
        channels, outputs: of the image and of the last layer.
    """
    residual = network.kind == "residual_unet"
    affine = 0 if network.norm.name == "none" else 2
    total, width = 0, channels

    def conv(inputs: int, units: int, size: int, *, bias: bool = True, norm: bool = True) -> int:
        return inputs * units * size + (units if bias else 0) + (affine * units if norm else 0)

    kernels = [math.prod(k) for k in network.kernels]
    if residual:
        total, width = conv(channels, network.features[0], kernels[0]), network.features[0]
    for level, features in enumerate(network.features):
        for block in range(network.blocks.encoder[level]):
            total += conv(width, features, kernels[level])
            if residual:
                total += conv(features, features, kernels[level])
                total += conv(width, features, 1, bias=False) if block == 0 and width != features else 0
            width = features
    for level in reversed(range(len(network.features) - 1)):
        features = network.features[level]
        total += conv(network.features[level + 1], features, math.prod(network.strides[level + 1]), norm=False)
        for unit in range(network.blocks.decoder[level]):
            total += conv(2 * features if unit == 0 else features, features, kernels[level])
    return total + conv(network.features[0], outputs, 1, norm=False)


def form_on(training: TrainingPlan, device: str) -> Form:
    """The form that maps take on a device of this kind (cpu, cuda, mps); what `auto` means is `network.precision`'s rule.

    A CPU is taken for one without bfloat16, a CUDA card for one with half precision.
    """
    precision, layout = training.precision, training.memory_layout
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    last = layout == "channels_last" or (layout == "auto" and device in ("cpu", "cuda"))
    return Form(ITEM[precision], channels_last=last, cpu=device == "cpu")


def training_step_gb(configuration: ConfigurationPlan, training: TrainingPlan, task: Task, device: str) -> float:
    """Peak memory of the device that trains; on a CPU, resident memory beyond what the imports take.

    Args:
        device: kind of device: cpu, cuda or mps.
    """
    inside, batch, form = configuration.inside(), configuration.batch_size, form_on(training, device)
    operations = step_operations(
        inside.network,
        inside.patch_size,
        batch,
        task.inputs,
        task.outputs,
        form,
        deep_supervision=training.deep_supervision,
        regions=task.regions,
    )
    voxels = batch * math.prod(inside.patch_size)
    given = voxels * (FLOAT * task.inputs + (FLOAT * task.outputs if task.regions else INDEX))
    total = peak(operations) + given + _weights(inside.network, training, task)
    if device == "cpu":
        total = total * (1 + _fragments(form, voxels * inside.network.features[0])) + FIRST_STEP_GB * GB
    return total / GB


def _fragments(form: Form, values: int) -> float:
    """By which share a CPU's step swells. values: of a map of the first level."""
    if form.item * values >= HEAP_BLOCK:
        return FRAGMENTS
    return HEAP_FRAGMENTS_REORDERED if form.reorders else HEAP_FRAGMENTS


def _weights(network: NetworkPlan, training: TrainingPlan, task: Task) -> float:
    """Bytes of the weights, the optimiser's state and the weights' average; gradients come and go with the step."""
    copies = 1 + {"sgd": int(training.optimiser.momentum > 0), "adam": 2, "adamw": 2}[training.optimiser.name]
    return FLOAT * parameters(network, task.inputs, task.outputs) * (copies + (training.weight_average is not None))


def training_ram_gb(configuration: ConfigurationPlan, training: TrainingPlan, task: Task, *, workers: int) -> float:
    """RAM of training beside the device's memory: the imports, the samples that wait, and the threads or processes that make them."""
    patch = math.prod(configuration.patch_size) * (FLOAT * task.inputs + 1)
    waiting = (2 * configuration.batch_size + workers) * patch
    processes = workers if training.augmentation.backend == "batchgenerators" or training.augmentation.plug_ins else 0
    return IMPORTS_GB + (waiting + workers * SAMPLE_COPIES * patch) / GB + processes * DATA_WORKER_GB


def checkpoint_gb(configuration: ConfigurationPlan, training: TrainingPlan, task: Task) -> float:
    """Disk of one fold: the last checkpoint, the one before it, one being written, and the weights."""
    network = configuration.network
    best = FLOAT * parameters(network, task.inputs, task.outputs) if training.predict_with == "best_training_loss" else 0.0
    weights = FLOAT * parameters(network, task.inputs, task.outputs)
    return (3 * (_weights(network, training, task) + best) + weights) / GB


@dataclass(frozen=True)
class CaseSize:
    """How large one case is. prepared: voxels at the configuration's spacing, in the order inside. original: voxels as read, in all."""

    prepared: tuple[int, ...]
    original: int

    @property
    def larger(self) -> int:
        return max(math.prod(self.prepared), self.original)


def case_size(configuration: ConfigurationPlan, spacing: Sequence[float], shape: Sequence[int], cropped: Sequence[int]) -> CaseSize:
    """The size of a case, of which spacing, shape and shape after cropping to non-zero are given as read."""
    inside, order = configuration.inside(), configuration.transpose or (0, 1, 2)
    own = [float(spacing[a]) for a in order]
    wanted = inside.spacing if inside.network.dimension == 3 else [own[0], *inside.spacing]
    kept = [(cropped if inside.crop == "nonzero" else shape)[a] for a in order]
    prepared = tuple(max(1, round(n * mm / target)) for n, mm, target in zip(kept, own, wanted, strict=True))
    return CaseSize(prepared, math.prod(int(n) for n in shape))


def prediction_memory_gb(
    configuration: ConfigurationPlan,
    form: Form,
    prediction: PredictionPlan,
    task: Task,
    size: CaseSize,
    *,
    folds: int,
) -> float:
    """Memory of the device while one case is predicted: networks, a batch of tiles, sums and slabs; on a CPU beyond the imports.

    Args:
        form: that maps take on the device.
        folds: networks that are averaged; 0: they are there already.
    """
    inside = configuration.inside()
    flat = inside.network.dimension == 2
    patch = (1, *inside.patch_size) if flat else tuple(inside.patch_size)
    shape = [max(n, edge) for n, edge in zip(size.prepared, patch, strict=True)]
    axis = 0 if flat else shape.index(max(shape))
    rows = min(shape[axis], prediction.batch_tiles if flat else patch[axis])
    sums = 2 * FLOAT * task.outputs * rows * math.prod(shape) / shape[axis]
    weights = FLOAT * folds * parameters(inside.network, task.inputs, task.outputs)
    tile = prediction_peak(inside.network, inside.patch_size, prediction.batch_tiles, task.inputs, task.outputs, form)
    block = 0.0  # labels are decided before they are resized; outputs are brought to their original rows, a slab at once
    if prediction.resize == "logits":
        block = min(BLOCK, sums * max(1.0, size.original / math.prod(size.prepared)) ** (1 / 3))
    return (weights + tile + sums + block) / GB + (FIRST_STEP_GB if form.cpu else 0.0)


def probabilities_gb(outputs: int, size: CaseSize, device: str) -> float:
    """What probabilities of all outputs take of the device's memory: at the prepared size, on a CPU at the original one too."""
    original = 2 * size.original if device == "cpu" else 0
    return FLOAT * outputs * (math.prod(size.prepared) + original) / GB


def prediction_ram_gb(channels: int, size: CaseSize) -> float:
    """RAM beside the device's memory while one case is prepared and predicted, beyond the imports."""
    return VOLUMES * FLOAT * channels * size.larger / GB


def preprocessing_ram_gb(channels: int, voxels: float) -> float:
    """RAM of a process that prepares a case, its imports included.

    Args:
        voxels: of the case as read or as prepared, whichever are more.
    """
    return IMPORTS_GB + VOLUMES * FLOAT * channels * voxels / GB


def stored_gb(channels: int, voxels: float, classes: int) -> float:
    """Disk of one prepared case, compressed as on average."""
    return (voxels * (IMAGE_SHARE * FLOAT * channels + LABEL_BYTES) + LOCATIONS * classes) / GB


def forecast(plan: Plan, figures: Figures) -> dict[str, StageForecast]:
    """What each configuration will need on the machine that the plan is made for, with one process that makes samples."""
    device, channels, result = plan.made_for.device, len(plan.dataset.channels), {}
    for name, configuration in plan.configurations.items():
        task, training = Task.of(plan, name), plan.training
        rows = zip(figures.spacings, figures.shapes, figures.cropped_shapes, strict=True)
        sizes = [case_size(configuration, *row) for row in rows]
        largest = max(sizes, key=lambda size: size.larger)
        classes = len(figures.labels.names)
        needs = {
            "training_memory_gb": training_step_gb(configuration, training, task, device),
            "training_ram_gb": training_ram_gb(configuration, training, task, workers=1),
            "prediction_memory_gb": prediction_memory_gb(
                configuration, form_on(training, device), plan.prediction, task, largest, folds=plan.folds.count
            ),
            "prediction_ram_gb": IMPORTS_GB + prediction_ram_gb(channels, largest),
            "preprocessing_ram_gb": preprocessing_ram_gb(channels, largest.larger),
            "disk_gb": sum(stored_gb(channels, math.prod(size.prepared), classes) for size in sizes),
            "checkpoints_gb": checkpoint_gb(configuration, training, task),
        }
        result[name] = StageForecast(**{key: round(value, 3) for key, value in needs.items()})
    return result
