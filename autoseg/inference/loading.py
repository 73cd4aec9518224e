"""From a WORK folder to one plan and the networks of its folds, refusing what does not belong together or is not safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoseg.data.choices import Choices, kept_choices
from autoseg.errors import ModelError
from autoseg.files import FoldFolder, Work
from autoseg.network.build import build
from autoseg.network.factory import is_foreign
from autoseg.network.weights import load_weights
from autoseg.planning.keeping import disagreement
from autoseg.planning.plan_file import read_plan
from autoseg.planning.schema import Plan

FoldName = int | str


@dataclass(frozen=True)
class LoadedFold:
    """One fold's network, still on the CPU.

    trained_on: content keys of the images that it was trained on.
    """

    name: FoldName
    network: nn.Module
    trained_on: frozenset[str]


@dataclass(frozen=True)
class LoadedModel:
    """What a model folder held.

    plan: the folds' own, with `prediction` and `postprocessing` of WORK/plan.json, where they may be changed after training.
    notices: what was left out, in words.
    choices: how the files that it learnt from were read, and so others are.
    """

    plan: Plan
    configuration: str
    folds: tuple[LoadedFold, ...]
    notices: tuple[str, ...]
    choices: Choices


def load_folder(path: Path, *, folds: Sequence[FoldName] | None, configurations: Sequence[str] | None, trust_code: bool) -> LoadedModel:
    """Read a WORK folder's plan, and the plans and weights of one configuration's folds; see `autoseg.inference.model.load_model`.

    Of a cascade this is one stage: the one that is asked for.
    """
    work = Work(path)
    if not work.plan.is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) if path.is_dir() else "no such folder"
        raise ModelError(
            f"{path.name} is no model: it holds no plan.json (found: {found or 'nothing'})", remedy="Give a WORK folder with trained folds"
        )
    written = read_plan(work.plan)
    configuration = _one_configuration(written, configurations)
    names, notices = _there(work, configuration, written.folds.count, folds)
    plans = {name: read_plan(work.fold(configuration, name).plan) for name in names}
    plan = _joined(plans, configuration)
    factory = plan.configurations[configuration].network.factory
    if is_foreign(factory) and not trust_code:
        raise ModelError(
            f"its network comes from {factory!r}, code outside autoseg, which would run here",
            remedy="If you trust who made the model, repeat with --trust-code (trust_code=True)",
        )
    loaded = tuple(_load(work.fold(configuration, name), name, plans[name], configuration) for name in names)
    plan = plan.model_copy(update={"prediction": written.prediction, "postprocessing": written.postprocessing})
    return LoadedModel(plan, configuration, loaded, notices, kept_choices(work.dataset))


def _one_configuration(plan: Plan, wanted: Sequence[str] | None) -> str:
    names = list(wanted or plan.default_configurations)
    for name in names:
        if name not in plan.configurations:
            raise ModelError(f"it has no configuration {name!r}", remedy=f"Choose one of {', '.join(sorted(plan.configurations))}")
    if len(names) != 1:
        raise ModelError(f"configurations {', '.join(names)} cannot be joined in one prediction", remedy="Name one with --config")
    return names[0]


def _there(work: Work, configuration: str, count: int, wanted: Sequence[FoldName] | None) -> tuple[list[FoldName], tuple[str, ...]]:
    """The folds to join: those asked for, or those of 0 .. count - 1 that have finished, and a notice of the others."""

    def is_trained(name: FoldName) -> bool:
        folder = work.fold(configuration, name)
        return folder.weights.is_file() and folder.plan.is_file()

    asked = list(dict.fromkeys(wanted)) if wanted is not None else list(range(count))
    missing = [name for name in asked if not is_trained(name)]
    if missing and (wanted is not None or len(missing) == len(asked)):
        found = sorted(folder.name.removeprefix("fold_") for folder in work.models(configuration).glob("fold_*"))
        finished = [name for name in found if is_trained(name)]
        raise ModelError(
            f"{configuration} has no trained fold {', '.join(map(str, missing))} (trained: {', '.join(finished) or 'none'})",
            remedy=f"Train them, or ask for --fold {' '.join(finished)}" if finished else "Run autoseg train first",
        )
    notice = f"{configuration}: fold {', '.join(map(str, missing))} of {count} not trained yet and left out"
    return [name for name in asked if name not in missing], (notice,) if missing else ()


def _joined(plans: dict[FoldName, Plan], configuration: str) -> Plan:
    """The first fold's plan, once all agree in what networks and prepared images depend on."""
    (first, plan), *others = plans.items()
    for name, other in others:
        if key := disagreement(plan, other, configuration):
            raise ModelError(
                f"fold {name} was trained by another plan than fold {first}: {key} differs",
                remedy="Predict with the folds of one plan (--fold), or train the others again",
            )
    return plan


def _load(folder: FoldFolder, name: FoldName, plan: Plan, configuration: str) -> LoadedFold:
    state, about = load_weights(folder.weights)
    part = plan.configurations[configuration].inside()
    outputs = plan.dataset.label_set().outputs
    network = build(part.network, plan.input_channels(configuration), outputs, deep_supervision=plan.training.deep_supervision)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"the weights of fold {name} do not fit the network of its plan.json ({str(error).splitlines()[-1].strip()})",
            file=folder.weights,
            remedy="Restore the plan.json that the fold was trained by, or train it again",
        ) from error
    return LoadedFold(name, network, frozenset(about.get("trained_on", {}).values()))
