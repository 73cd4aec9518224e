"""What a configuration will need, by formula and before anything runs.

Memory of a training step: each feature map of peer 2.7 is kept for the backward pass as the convolution's output and as what
norm and activation made of it, in float32; weights are kept with gradient, optimiser state and average; the input, the
targets and the largest map's gradients come on top. Disk: the stored cases, uncompressed.
"""

from __future__ import annotations

import math

from autoseg.planning.schema import ConfigurationPlan, NetworkPlan, StageForecast, TrainingPlan
from autoseg.planning.topology import Design, Levels, elements

BYTES = 4
GB = 1e9


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


def forecast(plan: ConfigurationPlan, training: TrainingPlan, *, channels: int, outputs: int, cases: int, volume: float) -> StageForecast:
    """Memory and disk of one configuration.

    Args:
        volume: voxels of the median case at the configuration's spacing; in 2D too that of the whole stack.
    """
    network = plan.network
    design = Design(network.kind == "residual_unet", tuple(network.blocks.encoder), tuple(network.blocks.decoder or [1]), outputs)
    levels = Levels(tuple(plan.patch_size), tuple(map(tuple, network.strides)), tuple(map(tuple, network.kernels)))
    voxels, inputs = math.prod(plan.patch_size), channels + (outputs - 1 if plan.previous_stage else 0)
    kept = 2 * elements(levels, network.features, design)
    passing = voxels * (inputs + 2 * outputs + 2 * network.features[0])
    copies = 2 + {"sgd": 1, "adam": 2, "adamw": 2}[training.optimiser.name] + (training.weight_average is not None)
    weights = parameters(network, inputs, outputs) * copies
    return StageForecast(
        training_memory_gb=round(BYTES * (plan.batch_size * (kept + passing) + weights) / GB, 3),
        disk_gb=round(cases * volume * (BYTES * channels + 1) / GB, 3),
    )
