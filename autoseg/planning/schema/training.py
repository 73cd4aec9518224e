"""Loss, optimiser, schedule, sampling and all else that a training run obeys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoseg.planning.schema.augmentation import AugmentationPlan
from autoseg.planning.schema.parts import Count, Part, Positive, Probability


class TverskyPlan(Part):
    """The Tversky term; see autoseg.training.tversky_cross_entropy."""

    weight: float = Field(ge=0, description="Factor of the term, which is N minus the sum over N classes.")
    fn_weight: float = Field(ge=0)
    fp_weight: float = Field(ge=0)
    smoothing: float = Field(ge=0)
    background: bool = Field(description="Whether the background counts among the classes.")
    power: Positive = Field(description="Exponent of each class's (1 - index); below 1 is the focal Tversky loss.")
    class_weight: list[float] | None = Field(description="One weight a class, or null.")


class CrossEntropyPlan(Part):
    """The cross-entropy term (binary for regions)."""

    weight: float = Field(ge=0)
    top_k: Annotated[float, Field(gt=0, le=1)] | None = Field(description="Share of the hardest voxels that count, or null for all.")


class LossPlan(Part):
    """The training loss."""

    tversky: TverskyPlan
    cross_entropy: CrossEntropyPlan
    factory: str | None = Field(description="`module:function(loss_plan, outputs)` of a loss of your own, or null.")


class OptimiserPlan(Part):
    """How weights follow gradients."""

    name: Literal["sgd", "adam", "adamw"]
    lr: Positive
    momentum: float = Field(ge=0, lt=1, description="SGD's momentum (Nesterov), or Adam's first beta.")
    beta2: float = Field(ge=0, lt=1, description="Adam's second beta.")
    eps: Positive = Field(description="Adam's denominator offset.")
    weight_decay: float = Field(ge=0)


class SchedulePlan(Part):
    """The learning rate over progress (0 to 1), or over events for `plateau`."""

    name: Literal["poly", "cosine", "one_cycle", "plateau", "constant"]
    warmup: float = Field(ge=0, lt=1, description="Share of the progress that rises linearly to the full rate.")
    power: Positive = Field(description="Exponent of `poly`.")
    patience: Count = Field(description="`plateau`: epochs without improvement before a reduction.")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(description="`plateau`: what the rate is multiplied by.")
    threshold: float = Field(ge=0, description="`plateau`: absolute decrease of the training loss that counts as improvement.")
    min_lr: float = Field(ge=0, description="`plateau`: the rate never goes below this.")


class OversamplingPlan(Part):
    """Patches that must show foreground."""

    foreground: Probability = Field(description="Share of each batch.")
    by: Literal["class", "voxel", "rarity"] = Field(
        description="Centre on a voxel of a class drawn evenly, of any foreground voxel, or of a class drawn by rarity."
    )


class ValidationPlan(Part):
    """Patches of held-out cases that are looked at each epoch and steer nothing."""

    batches: int = Field(ge=0)
    augment: bool


class TransferPlan(Part):
    """What became of given weights, tensor by tensor; training writes it into the fold's plan."""

    source: str = Field(description="The weights, in words.")
    taken: list[str] = Field(description="Tensors taken whole; these are frozen for `freeze_epochs`.")
    partly: dict[str, str] = Field(description="Tensors of which some outputs or channels were taken, and which; never frozen.")
    left: dict[str, str] = Field(description="Tensors that stayed fresh, and why.")
    unused: list[str] = Field(description="Tensors of the given weights that this network lacks.")


class StartPlan(Part):
    """Weights to start from."""

    weights: str | None = Field(description="Content key of the given weights (`train --weights`), or null for fresh ones.")
    freeze_epochs: int = Field(
        ge=0, description="Epochs in which all that was taken from the given weights stays as it is, norms' running statistics included."
    )
    transfer: TransferPlan | None = Field(description="What was taken and what was left; null before training and for fresh weights.")


class RescuePlan(Part):
    """What is done when training goes wrong; judged by training patches alone."""

    returns: int = Field(ge=0, description="How often a run may go back to its last sound checkpoint before it stops.")
    rate_factor: Annotated[float, Field(gt=0, le=1)] = Field(description="What the learning rate is multiplied by at each return.")
    found_dice: Probability = Field(description="Mean Dice of an epoch's training patches from which the foreground counts as found.")
    collapse_epochs: Count | None = Field(
        description="A network that found the foreground for so many epochs in a row, and then for so many has no true positive in "
        "patches that show it, has collapsed to background; null: never judged."
    )
    slow_epochs: Count | None = Field(
        description="A network without a true positive in its first so many epochs is called slow: only a warning; null: none."
    )


class TrainingPlan(Part):
    """How one fold is trained."""

    loss: LossPlan
    optimiser: OptimiserPlan
    schedule: SchedulePlan
    epochs: Count
    budget_seconds: Positive | None = Field(description="Time that the schedule is fitted to, or null for `epochs`.")
    steps_per_epoch: Count
    early_stop: Count | None = Field(description="Stop after so many epochs without any decrease of the training loss.")
    gradient_clip: Positive | None = Field(description="Largest gradient norm.")
    case_order: Literal["shuffled_queue", "with_replacement"] = Field(
        description="How the cases of a batch are drawn: in turn from a queue reshuffled each epoch, or each at random."
    )
    oversampling: OversamplingPlan
    augmentation: AugmentationPlan
    validation: ValidationPlan
    predict_with: Literal["best_training_loss", "average", "last"]
    deep_supervision: bool
    weight_average: Annotated[float, Field(ge=0, lt=1)] | None = Field(description="Decay a step of the averaged weights, or null.")
    start: StartPlan
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    memory_layout: Literal["auto", "contiguous", "channels_last"]
    compile: Literal["auto"] | bool = Field(
        description="Whether torch.compile makes kernels of its own for the network's steps; auto: only where `--probe` finds them faster."
    )
    deterministic: bool = Field(description="Only such GPU kernels as give the same result each time; slower. A CPU repeats itself anyway.")
    seed: int = Field(ge=0)
    checkpoint_minutes: Positive
    rescue: RescuePlan
