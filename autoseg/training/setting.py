"""All that stays the same while a fold trains, gathered from its plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.data.labels import LabelSet
from autoseg.errors import PlanError
from autoseg.network import build
from autoseg.network.precision import grad_scaler, memory_format, resolve_compile, resolve_memory_layout, resolve_precision
from autoseg.planning.folds import Fold
from autoseg.planning.schema import ConfigurationPlan, Plan, TrainingPlan
from autoseg.preprocessing.store import open_case
from autoseg.training import augmentation as augment
from autoseg.training.loss import Loss, deep_supervision_loss, knows_present, make_loss
from autoseg.training.optimisation import EarlyStop, Plateau, WeightAverage, make_optimiser
from autoseg.training.patches import SampleSource
from autoseg.training.previous_stage import PreviousStage
from autoseg.training.sampling import CaseOrder, fold_key
from autoseg.training.state import TrainingState
from autoseg.training.targets import TargetForm


@dataclass(frozen=True)
class Setting:
    """One fold's training, as planned.

    configuration: with triples in the order inside.
    precision, layout, compile: resolved for `device`.
    loss: of the network in training mode. plain_loss: of one output.
    held_out_batches: patches looked at after each epoch, in batches.
    """

    plan: Plan
    name: str
    configuration: ConfigurationPlan
    fold: Fold
    device: str
    precision: str
    layout: torch.memory_format
    compile: bool
    labels: LabelSet
    form: TargetForm
    loss: Loss
    plain_loss: Loss
    sources: dict[str, SampleSource]
    held_out_batches: int

    @property
    def training(self) -> TrainingPlan:
        return self.plan.training

    @property
    def title(self) -> str:
        return f"{self.name} fold {self.fold.name}"


def make_setting(plan: Plan, name: str, fold: Fold, store: Path, device: str) -> Setting:
    """What the plan says about training this fold.

    Raises:
        PlanError: values that contradict each other, or that training does not know yet.
        ResourceError: the device lacks the planned precision.
    """
    _check(plan)
    training, configuration, labels = plan.training, plan.configurations[name].inside(), plan.dataset.label_set()
    outputs, classes = _side_pairs(plan, labels)
    plain = make_loss(training.loss, labels, pool_over_batch=configuration.pool_loss_over_batch)
    _check_loss(plain, store, fold)
    batches = training.validation.batches if fold.held_out else 0
    return Setting(
        plan=plan,
        name=name,
        configuration=configuration,
        fold=fold,
        device=device,
        precision=resolve_precision(training.precision, device),
        layout=memory_format(resolve_memory_layout(training.memory_layout, device), configuration.network.dimension),
        compile=resolve_compile(training.compile),
        labels=labels,
        form=TargetForm(labels, outputs),
        loss=deep_supervision_loss(plain),
        plain_loss=plain,
        sources=_sources(plan, name, fold, store, classes, labels, batches),
        held_out_batches=batches,
    )


def fresh_state(setting: Setting) -> TrainingState:
    """The untrained network and everything around it; weights from torch's global generator, which is seeded first."""
    training, configuration = setting.training, setting.configuration
    torch.manual_seed(training.seed + setting.sources["train"].order.fold_key)
    network = build(
        configuration.network,
        setting.plan.input_channels(setting.name),
        setting.labels.outputs,
        deep_supervision=training.deep_supervision,
    )
    network = network.to(setting.device).to(memory_format=setting.layout)
    if setting.compile:
        network.compile()  # in place, at its first call: names of weights stay
    return TrainingState(
        network=network,
        optimiser=make_optimiser(training.optimiser, network.parameters(), fused=torch.device(setting.device).type == "cuda"),
        scaler=grad_scaler(setting.precision, setting.device),
        plateau=Plateau(training.optimiser.lr),
        early_stop=EarlyStop(training.early_stop),
        average=None if training.weight_average is None else WeightAverage(network, training.weight_average),
    )


def about(setting: Setting, state: TrainingState, plan_digest: str) -> dict[str, Any]:
    """What the weights file says of itself, JSON-able."""
    cases = {case: open_case(setting.sources["train"].store, case).origin.content_key for case in setting.fold.train}
    return {
        "configuration": setting.name,
        "fold": str(setting.fold.name),
        "channels": list(setting.plan.dataset.channels),
        "inputs": list(input_names(setting)),
        "labels": {n: list(v) for n, v in zip(setting.labels.names, setting.labels.values, strict=True)},
        "outputs": list(output_names(setting.labels)),
        "regions": setting.labels.regions,
        "predict_with": setting.training.predict_with,
        "epochs": state.epochs,
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "plan": plan_digest,
        "cases": list(setting.fold.train),
        "trained_on": cases,
        "threads": torch.get_num_threads(),
    }


def input_names(setting: Setting) -> tuple[str, ...]:
    """The network's input channels by name, in order: those of the image, then of a cascade's first stage what it found."""
    previous = setting.plan.configurations[setting.name].previous_stage
    found = tuple(f"{previous}: {name}" for name in setting.labels.names) if previous else ()
    return (*setting.plan.dataset.channels, *found)


def output_names(labels: LabelSet) -> tuple[str, ...]:
    """The network's outputs by name, in order: background and classes, or regions."""
    return labels.names if labels.regions else ("background", *labels.names)


def _check(plan: Plan) -> None:
    training = plan.training
    augment.check(training.augmentation)
    if training.predict_with == "average" and training.weight_average is None:
        raise PlanError(
            "training.predict_with is average, but training.weight_average is null",
            remedy="Set weight_average, say to 0.999, or predict with last",
        )


def _check_loss(loss: Loss, store: Path, fold: Fold) -> None:
    """Refuse a loss of one's own that would take for background what a case of this fold does not annotate."""
    if knows_present(loss):
        return
    for case in (*fold.train, *fold.held_out):
        if open_case(store, case).annotated is not None:
            raise PlanError(
                f"training.loss.factory makes a loss without an argument `present`, and case {case} annotates only some classes",
                remedy="Give it `present=None`, as autoseg.training.tversky_cross_entropy has it, or leave such cases out",
            )


def _side_pairs(plan: Plan, labels: LabelSet) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """The pairs of sides as outputs, and as class indices, if the outputs are classes."""
    named = tuple((labels.names.index(left), labels.names.index(right)) for left, right in plan.dataset.side_pairs)
    if labels.regions:
        return named, ()
    classes = tuple((labels.region_indices[a][0], labels.region_indices[b][0]) for a, b in named)
    return classes, classes  # the output of a class has its index


def _sources(
    plan: Plan, name: str, fold: Fold, store: Path, side_pairs: tuple[tuple[int, int], ...], labels: LabelSet, batches: int
) -> dict[str, SampleSource]:
    """Where training samples come from, and where held-out patches do."""
    training, configuration = plan.training, plan.configurations[name].inside()
    order, rarity = configuration.transpose or (0, 1, 2), training.oversampling.by == "rarity"

    def source(cases: tuple[str, ...], rule: str, steps: int, augmented: bool) -> SampleSource:
        return SampleSource(
            store=store,
            order=CaseOrder(cases, rule, training.seed, fold_key(name, fold.name), configuration.batch_size, steps),
            patch=tuple(configuration.patch_size),
            oversampling=training.oversampling,
            augmentation=augment.inside(training.augmentation, order.index) if augmented else None,
            padding=configuration.padding.train,
            side_pairs=side_pairs,
            transpose=configuration.transpose,
            ignore=labels.ignore_index,
            class_cases=_class_cases(store, fold.train) if rarity else {},
            previous_stage=_previous_stage(plan, labels, augmented) if configuration.previous_stage else None,
        )

    sources = {"train": source(fold.train, training.case_order, training.steps_per_epoch, True)}
    if batches:
        sources["held_out"] = source(fold.held_out, "shuffled_queue", batches, training.validation.augment)
    return sources


def _previous_stage(plan: Plan, labels: LabelSet, augmented: bool) -> PreviousStage:
    changes = plan.training.augmentation.previous_stage if augmented else ()
    return PreviousStage(labels.region_indices, not labels.regions, plan.dataset.side_exchange(), tuple(changes))


def _class_cases(store: Path, cases: tuple[str, ...]) -> dict[int, int]:
    """How many of these cases show each class index, or region by its number."""
    shown = Counter()
    for case in cases:
        shown.update(c for c, voxels in open_case(store, case).locations.items() if len(voxels))
    return dict(shown)
