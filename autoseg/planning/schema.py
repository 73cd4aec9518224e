"""The plan: every decision as typed, documented, validated data, and the only thing that the later stages obey.

There are no defaults here: a plan says everything, and what it says comes from a recipe, a rule over the fingerprint, or the
user. Triples stand in the order (z, y, x) of the volume as read; a 2D configuration has pairs (y, x).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoseg.data.labels import LabelSet

Kind = Literal["hu", "windowed", "arbitrary"]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[float, float]


class Part(BaseModel):
    """A part of a plan: frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MadeFor(Part):
    """The machine that the plan was made for."""

    device: Literal["cpu", "cuda", "mps"] = Field(description="Kind of device that trains.")
    memory_gb: Positive = Field(description="Memory of that device in GB: a GPU's, or the RAM that a CPU may use.")


class OriginalMedian(Part):
    """Medians over the cases before anything was changed."""

    spacing: tuple[float, float, float] = Field(description="mm, (z, y, x).")
    shape: tuple[int, int, int] = Field(description="Voxels after cropping, (z, y, x).")


class DatasetPlan(Part):
    """What the dataset is, as far as later stages need it."""

    name: str
    channels: list[str] = Field(description="Channel names, in order.")
    labels: dict[str, int] = Field(description="Exclusive classes and background: name -> value in files.")
    regions: dict[str, list[int]] = Field(description="Overlapping outputs: name -> values in files; empty for exclusive classes.")
    region_order: list[tuple[str, int]] | None = Field(
        description="Region and the value that it writes, in order of writing and of the network's outputs; null for exclusive classes."
    )
    ignore_label: int | None = Field(description="Value of voxels that nobody annotated.")
    side_pairs: list[tuple[str, str]] = Field(description="Labels that are each other's mirror image, (left, right).")
    groups_of_labels: dict[str, list[str]] = Field(description='Labels that are scored together too, such as "lungs".')
    orientation: Literal["lps", "as_stored"] = Field(description="Axis order that volumes are brought to when read.")
    regrid: Literal["none", "to_first"] = Field(
        description="What becomes of channels and labels on another grid than the first image's: refused, or resampled onto it when read."
    )
    original_median: OriginalMedian

    def label_set(self) -> LabelSet:
        """What the integers of a label map mean: the form that later rooms use."""
        background = self.labels["background"]
        if self.region_order is None:
            names = sorted((name for name in self.labels if name != "background"), key=self.labels.__getitem__)
            return LabelSet(tuple(names), tuple((self.labels[n],) for n in names), background, self.ignore_label)
        values = tuple(tuple(self.regions[name]) for name, _ in self.region_order)
        order = tuple(value for _, value in self.region_order)
        return LabelSet(tuple(name for name, _ in self.region_order), values, background, self.ignore_label, order)

    def side_exchange(self) -> tuple[int, ...] | None:
        """The order of the label set's names in which left and right of each pair have changed places; None without pairs."""
        if not self.side_pairs:
            return None
        names = self.label_set().names
        partner = dict(self.side_pairs) | {right: left for left, right in self.side_pairs}
        return tuple(names.index(partner.get(name, name)) for name in names)

    @model_validator(mode="after")
    def _labels_agree(self) -> DatasetPlan:
        if "background" not in self.labels:
            raise ValueError("labels lacks `background`")
        if (self.region_order is None) != (not self.regions):
            raise ValueError("regions and region_order go together")
        if self.region_order is not None and sorted(name for name, _ in self.region_order) != sorted(self.regions):
            raise ValueError(f"region_order names {[name for name, _ in self.region_order]}, the regions are {sorted(self.regions)}")
        names = set(self.regions or self.labels)
        if unknown := {n for pair in self.side_pairs for n in pair} - names:
            raise ValueError(f"side_pairs names {sorted(unknown)}, the labels are {sorted(names)}")
        return self


class Clip(Part):
    """Limit values to a window."""

    do: Literal["clip"]
    low: float
    high: float


class Rescale(Part):
    """Map [low, high] linearly to `to`; `null` stands for the volume's own minimum or maximum."""

    do: Literal["rescale"]
    low: float | None
    high: float | None
    to: Range
    round: bool = Field(description="Round to whole numbers, as 8-bit gray values are.")


class ZScore(Part):
    """Subtract a mean and divide by a deviation; `null` stands for the volume's own."""

    do: Literal["zscore"]
    mean: float | None
    std: float | None
    mask: Literal["all", "nonzero"] = Field(description="Voxels that the volume's own statistics come from, and that change.")


class Nothing(Part):
    """Leave values as they are."""

    do: Literal["none"]


IntensityStep = Annotated[Clip | Rescale | ZScore | Nothing, Field(discriminator="do")]


class IntensityPlan(Part):
    """What is done to one kind of one channel."""

    before_resampling: list[IntensityStep]
    after_resampling: list[IntensityStep]

    @property
    def masked(self) -> bool:
        """Whether a z-score uses the non-zero mask in every configuration."""
        return any(isinstance(step, ZScore) and step.mask == "nonzero" for step in (*self.before_resampling, *self.after_resampling))


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


class TransformPlan(Part):
    """One augmentation."""

    do: Literal["elastic", "rotate", "scale", "contrast", "brightness", "gamma", "noise", "blur", "low_resolution"]
    probability: Probability
    channel_probability: Probability = Field(description="Chance of each channel once the transform is drawn.")
    ranges: dict[str, Range] = Field(
        description="What is drawn, uniformly, between which values. elastic: alpha, sigma (voxels); rotate: z, y, x (degrees about "
        "that array axis; a 2D patch turns by the angle about its slices' axis); scale, contrast, brightness, low_resolution: factor; "
        "gamma: exponent; noise: deviation; blur: sigma (voxels). A range of factors or exponents that holds 1 inside is drawn with "
        "even chance below and above 1, as batchgenerators does."
    )
    invert: bool = Field(description="`gamma`: on the inverted image.")


class PreviousStageChange(Part):
    """One way in which a cascade's input from its first stage is spoilt in training, so that the second does not trust it blindly."""

    do: Literal["morphology", "remove_component"]
    probability: Probability
    channel_probability: Probability = Field(description="Chance of each class or region once the change is drawn.")
    ranges: dict[str, Range] = Field(
        description="morphology: radius (voxels) of the ball that dilates, erodes, closes or opens, each as likely; what an exclusive "
        "class gains the others lose. remove_component: share of the patch that the component taken away may cover."
    )

    @model_validator(mode="after")
    def _range_is_there(self) -> PreviousStageChange:
        wanted = "radius" if self.do == "morphology" else "share"
        if set(self.ranges) != {wanted}:
            raise ValueError(f"{self.do} draws from the range {wanted!r}, it has {sorted(self.ranges)}")
        return self


class PlugInPlan(Part):
    """One of batchgenerators' own transforms."""

    transform: str = Field(
        pattern=r"^\w+\.\w+$", description="Module and class in batchgenerators.transforms, such as noise_transforms.RicianNoiseTransform."
    )
    arguments: dict[str, Any] = Field(description="What the class is made with.")
    probability: Probability


class AugmentationPlan(Part):
    """What is changed at random in each training sample."""

    backend: Literal["native", "batchgenerators"] = Field(
        description="Whose functions: our own, in threads, or batchgenerators', in processes: it draws from generators that threads share."
    )
    conventions: Literal["batchgenerators", "batchgeneratorsv2"] = Field(
        description="Whom `native` follows where the two differ: v2 draws scales evenly over their range, lets a volume go over into zeros "
        "within a voxel at its edge instead of ending there, and blurs with 3 sigmas and mirrored edges instead of 4 and repeated ones."
    )
    device: Literal["cpu", "training"] = Field(
        description="Where `native` changes images: on the CPU, or on the device that trains; labels are moved on the CPU."
    )
    transforms: list[TransformPlan]
    plug_ins: list[PlugInPlan] = Field(
        description="batchgenerators' transforms that each patch goes through after `transforms`; samples are then made by processes."
    )
    thick_axis: Literal[0, 1, 2] | None = Field(
        description="Array axis of thick slices, which elastic, scale and low_resolution leave alone; null: none."
    )
    mirror_axes: list[Literal[0, 1, 2]] = Field(description="Array axes (z, y, x) that may be mirrored.")
    mirror_probability: Probability = Field(description="For each of these axes.")
    mirror_sides: Literal["exchange", "keep", "blind"] = Field(
        description="What mirroring left to right does to labels with a side: swaps each pair's; does not happen, at test time neither; "
        "leaves them as they are."
    )
    interpolation: tuple[int, int] = Field(description="Spline order of image and of labels in the spatial transforms.")
    statistics: Literal["volume", "patch"] = Field(description="Whether intensity transforms act on the whole volume or on the patch.")
    previous_stage: list[PreviousStageChange] = Field(description="What spoils the first stage's result in a cascade's second.")


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
    deterministic: bool = Field(description="Only such GPU kernels as give the same result each time; slower. A CPU repeats itself anyway.")
    seed: int = Field(ge=0)
    checkpoint_minutes: Positive
    rescue: RescuePlan


class PredictionPlan(Part):
    """How a volume is predicted."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(description="Share of a tile that its neighbour covers too.")
    tiles: Literal["regular", "even"] = Field(
        description="Steps of exactly (1 - overlap), the last tile pulled back; or equal steps of at most that."
    )
    weighting: Literal["gaussian", "uniform"]
    average: Literal["logits", "probabilities"]
    resize: Literal["logits", "labels"] = Field(description="What is brought back to the original grid.")
    test_time_mirrors: list[Literal[0, 1, 2]] = Field(
        description="Array axes whose mirrored predictions are averaged in; never the left-right axis where `mirror_sides` is keep."
    )
    batch_tiles: Count


class LargestComponent(Part):
    """Keep only the largest connected component of the named labels taken together."""

    do: Literal["largest_component"]
    labels: list[str]


class EvaluationPlan(Part):
    """How predictions are scored."""

    metrics: list[Literal["dice", "iou", "sensitivity", "specificity", "precision"]]
    tolerance_mm: dict[str, float] = Field(description="Surface tolerance of each label.")
    summary: Literal["median", "mean"] = Field(description="`median` adds the paper's Table 1.")
    empty_rule: Literal["count"] = Field(description="A class absent in truth and prediction is counted, never scored 0 or 1.")


class FoldsPlan(Part):
    """How cases are split."""

    count: Count
    seed: int = Field(ge=0)
    stratify: bool
    groups: bool = Field(description="Whether cases of one group stay in one fold.")
    source: str = Field(
        description='"kfold" (scikit-learn), "blocks" (runs of neighbours by name, for serial sections), "dataset" (its '
        "splits_final.json), or a file of that form given with --set."
    )


class Interpolation(Part):
    """How intensities or logits are brought to another grid."""

    order: Literal[0, 1, 3]
    across: Literal["none", "thick", 0, 1, 2] = Field(
        description="Axis of thick slices, resampled apart; `thick`: the axis whose spacing exceeds 3 times the finest, case by case."
    )
    order_across: Literal[0, 1, 3]


class LabelInterpolation(Part):
    """How label maps are brought to another grid."""

    order: Literal[0, 1]
    rule: Literal["argmax", "half"]
    across: Literal["none", "thick", 0, 1, 2]
    order_across: Literal[0, 1]


class ResamplingPlan(Part):
    """How cases reach the configuration's spacing, and results their own grid."""

    size: Literal["round", "floor"] = Field(description="How a new size becomes whole.")
    image: Interpolation
    logits: Interpolation
    labels: LabelInterpolation


class PaddingPlan(Part):
    """What stands outside of a volume."""

    train: Literal["zero", "minimum"]
    predict: Literal["zero", "minimum"] = Field(description="`minimum`: the smallest value of each line.")


class NormPlan(Part):
    """A normalisation layer."""

    name: Literal["batch", "instance", "none"]
    momentum: Probability
    eps: Positive


class BlocksPlan(Part):
    """Convolution units (or residual blocks) of each level."""

    encoder: list[Count]
    decoder: list[Count]


class NetworkPlan(Part):
    """One network; `autoseg.network.build` makes it."""

    factory: str | None = Field(description="`module:function(network_plan, channels, outputs)` of a network of your own, or null.")
    kind: Literal["unet", "residual_unet"]
    dimension: Literal[2, 3]
    features: list[Count] = Field(description="Width of each level.")
    strides: list[list[int]] = Field(description="Downsampling on entry of each level; the first is all 1.")
    kernels: list[list[int]] = Field(description="Convolution size of each level.")
    blocks: BlocksPlan
    downsampling: Literal["max_pool", "stride"]
    norm: NormPlan
    activation: Literal["relu", "leaky_relu"]
    order_of_layers: Literal["conv-activation-norm", "conv-norm-activation"]
    initialisation: Literal["glorot_uniform", "kaiming_normal"]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @property
    def divisor(self) -> tuple[int, ...]:
        """What each axis of a patch must divide by: the product of its strides."""
        product = [1] * self.dimension
        for stride in self.strides:
            product = [p * s for p, s in zip(product, stride, strict=True)]
        return tuple(product)

    @model_validator(mode="after")
    def _levels_agree(self) -> NetworkPlan:
        levels = len(self.features)
        lengths = {"strides": len(self.strides), "kernels": len(self.kernels), "blocks.encoder": len(self.blocks.encoder)}
        for name, length in lengths.items():
            if length != levels:
                raise ValueError(f"{name} has {length} levels, features has {levels}")
        if len(self.blocks.decoder) != levels - 1:
            raise ValueError(f"blocks.decoder has {len(self.blocks.decoder)} levels, features needs {levels - 1}")
        for name in ("strides", "kernels"):
            if any(len(entry) != self.dimension or min(entry) < 1 for entry in getattr(self, name)):
                raise ValueError(f"{name} needs {self.dimension} positive numbers a level")
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise ValueError("kernels must be odd")
        if any(s != 1 for s in self.strides[0]):
            raise ValueError("the first level has stride 1")
        return self


class ConfigurationPlan(Part):
    """One network with its spacing, patch and batch."""

    spacing: list[float] = Field(description="mm; (z, y, x), or (y, x) for 2D.")
    median_shape: list[float] = Field(description="Median size of the cases at this spacing, voxels.")
    patch_size: list[Count] = Field(description="Voxels that the network sees at once.")
    batch_size: Count
    transpose: tuple[int, int, int] | None = Field(description="Axis order inside preprocessing and inference, or null.")
    crop: Literal["none", "nonzero"] = Field(description="Whether cases are cropped to where any channel is not 0.")
    padding: PaddingPlan
    normalise_in_mask: list[bool] = Field(
        description="For each channel, whether z-scores use the non-zero mask; true where a step of `intensity` says so itself."
    )
    resampling: ResamplingPlan
    network: NetworkPlan
    pool_loss_over_batch: bool = Field(description="Whether the Tversky sums run over the batch or each sample.")
    previous_stage: str | None
    next_stage: str | None

    def inside_axis(self, axis: int) -> int | None:
        """The axis, among those that the network sees, of array axis `axis` as read; None if 2D slices run along it."""
        position = axis if self.transpose is None else self.transpose.index(axis)
        if self.network.dimension == 2:
            return position - 1 if position else None
        return position

    def inside(self) -> ConfigurationPlan:
        """The same configuration with its triples in the axis order that the network sees (`transpose` applied).

        Pairs of a 2D configuration already stand in that order: the axes that remain, ascending.
        """
        if self.transpose is None or self.network.dimension == 2:
            return self
        order = self.transpose

        def turned(values):
            return type(values)(values[a] for a in order)

        network = self.network.model_copy(
            update={
                "strides": [turned(s) for s in self.network.strides],
                "kernels": [turned(k) for k in self.network.kernels],
            }
        )
        return self.model_copy(
            update={
                "spacing": turned(self.spacing),
                "median_shape": turned(self.median_shape),
                "patch_size": turned(self.patch_size),
                "network": network,
            }
        )

    @model_validator(mode="after")
    def _patch_fits(self) -> ConfigurationPlan:
        dimension = self.network.dimension
        for name in ("spacing", "median_shape", "patch_size"):
            if len(getattr(self, name)) != dimension:
                raise ValueError(f"{name} needs {dimension} numbers")
        if min(self.spacing) <= 0:
            raise ValueError("spacing must be positive")
        divisor = self.network.divisor
        if any(p % d for p, d in zip(self.patch_size, divisor, strict=True)):
            near = [max(d, round(p / d) * d) for p, d in zip(self.patch_size, divisor, strict=True)]
            raise ValueError(
                f"patch_size {self.patch_size} is not divisible by the product of the strides {list(divisor)}; the nearest that is: {near}"
            )
        return self


class StageForecast(Part):
    """What one configuration will need, by formula, in GB of 2^30 bytes; how long it takes stands in forecast.json."""

    training_memory_gb: float = Field(
        description="Peak memory of the training device during a step. On a CPU it is RAM beyond what the imports take; for "
        "CUDA it is the same formula without what only a CPU does, and unverified."
    )
    training_ram_gb: float = Field(description="RAM of training beside that: the imports, waiting samples, one process that makes them.")
    prediction_memory_gb: float = Field(description="Peak memory of the device while the largest case is predicted by all folds together.")
    prediction_ram_gb: float = Field(description="RAM beside that, the imports included.")
    preprocessing_ram_gb: float = Field(description="RAM of one preprocessing worker at the largest case, the imports included.")
    disk_gb: float = Field(description="Preprocessed cases, compressed as on average.")
    checkpoints_gb: float = Field(description="Checkpoints and weights of one fold.")


class Reason(Part):
    """Why one decision came out as it did."""

    decision: str = Field(description="Dotted key of the plan.")
    value: Any
    because: str
    figures: dict[str, Any] = Field(description="Numbers computed from this dataset's fingerprint.")
    would_change_if: str


class Plan(Part):
    """Every decision, with reasons."""

    autoseg_version: str
    recipe: str
    recipe_options: dict[str, Any] = Field(description="What --set and --memory gave; planning inputs.")
    created_from: str = Field(description="Hash of the fingerprint.")
    made_for: MadeFor
    default_configurations: list[str]
    dataset: DatasetPlan
    intensity: dict[str, dict[Kind, IntensityPlan]] = Field(description="Channel name -> kind -> steps.")
    training: TrainingPlan
    prediction: PredictionPlan
    postprocessing: list[LargestComponent]
    evaluation: EvaluationPlan
    folds: FoldsPlan
    configurations: dict[str, ConfigurationPlan]
    forecast: dict[str, StageForecast]
    reasons: list[Reason]

    def stages(self, configuration: str) -> tuple[str, ...]:
        """The configurations that run one after the other for this one's result: a cascade's first stage, then itself."""
        previous = self.configurations[configuration].previous_stage
        return (configuration,) if previous is None else (previous, configuration)

    def input_channels(self, configuration: str) -> int:
        """Channels that its network takes: the images', then one for each class or region that the first stage of a cascade finds."""
        previous = self.configurations[configuration].previous_stage
        return len(self.dataset.channels) + (len(self.dataset.label_set().names) if previous else 0)

    @model_validator(mode="after")
    def _names_exist(self) -> Plan:
        for name in self.default_configurations:
            if name not in self.configurations:
                raise ValueError(f"default_configurations names {name!r}; there are {sorted(self.configurations)}")
        if set(self.intensity) != set(self.dataset.channels) or len(self.intensity) != len(self.dataset.channels):
            raise ValueError(f"intensity names {sorted(self.intensity)}, the channels are {self.dataset.channels}")
        for name, configuration in self.configurations.items():
            for stage in (configuration.previous_stage, configuration.next_stage):
                if stage is not None and stage not in self.configurations:
                    raise ValueError(f"configurations.{name} goes with {stage!r}, which is not there")
            if len(configuration.normalise_in_mask) != len(self.dataset.channels):
                raise ValueError(f"configurations.{name}.normalise_in_mask needs one value a channel")
            for channel, mask in zip(self.dataset.channels, configuration.normalise_in_mask, strict=True):
                if not mask and any(steps.masked for steps in self.intensity[channel].values()):
                    raise ValueError(f"intensity.{channel} z-scores in the non-zero mask, {name}.normalise_in_mask says false")
            if configuration.previous_stage and self.configurations[configuration.previous_stage].previous_stage:
                raise ValueError(f"configurations.{name} builds on {configuration.previous_stage!r}, which is no first stage itself")
        return self
