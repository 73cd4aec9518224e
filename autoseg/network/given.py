"""Given weights from wherever they lie: our weights file, fold folder or WORK; the peer's checkpoint or model folder. No code is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.errors import ModelError
from autoseg.files import FoldFolder, Work
from autoseg.network.peer import PeerCheckpoint, from_peer, read_checkpoint
from autoseg.network.transfer import GivenWeights
from autoseg.network.weights import content_key, load_weights
from autoseg.planning.plan_file import read_plan

PEER_CHECKPOINT = "checkpoint_final.pth"


def read_given(path: Path, configuration: str, fold: int | str) -> GivenWeights:
    """The weights at `path`.

    Of a WORK: the configuration of the same name, else its default one; of that, and of the peer's model folder, the fold of the same
    name, else the model of all cases (`full`, the peer's `all`), else the first fold that is trained.

    Args:
        path: a .safetensors file or a checkpoint (.pth) of the peer's, a fold folder, a WORK, or a model folder of the peer's.
        configuration, fold: those that will start from them.

    Raises:
        ModelError: it is none of these, is damaged, or holds more than weights and plain values.
    """
    if path.is_file():
        return _of_ours(path) if path.suffix == ".safetensors" else _of_peer(path)
    if FoldFolder(path).weights.is_file():
        return _of_ours(FoldFolder(path).weights)
    if Work(path).plan.is_file():
        return _of_ours(_fold_of_work(Work(path), configuration, fold).weights)
    for folder in (path, *_peer_folds(path, fold)):
        if (folder / PEER_CHECKPOINT).is_file():
            return _of_peer(folder / PEER_CHECKPOINT)
    found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) if path.is_dir() else "no such file or folder"
    raise ModelError(
        f"{path.name} holds no weights (found: {found or 'nothing'})",
        remedy="Give a weights.safetensors, a fold folder, a WORK, or nnU-Net's checkpoint_final.pth or model folder",
    )


def _fold_of_work(work: Work, configuration: str, fold: int | str) -> FoldFolder:
    names = (configuration, *read_plan(work.plan).default_configurations)
    name = next((n for n in names if any(work.models(n).glob("fold_*/weights.safetensors"))), None)
    if name is None:
        raise ModelError(f"{work.path.name} has no trained fold", remedy="Train it first, or give other weights")
    trained = sorted(p.parent for p in work.models(name).glob("fold_*/weights.safetensors"))
    wanted = [work.fold(name, fold).path, work.fold(name, "full").path, trained[0]]
    return FoldFolder(next(folder for folder in wanted if folder in trained))


def _peer_folds(path: Path, fold: int | str) -> list[Path]:
    """The folds of a model folder of the peer's, the wanted one first."""
    if not path.is_dir():
        return []
    named = [path / f"fold_{'all' if fold == 'full' else fold}", path / "fold_all"]
    return [folder for folder in dict.fromkeys((*named, *sorted(path.glob("fold_*")))) if (folder / PEER_CHECKPOINT).is_file()]


def _of_ours(path: Path) -> GivenWeights:
    state, about = load_weights(path)
    inputs, outputs = about.get("inputs", about.get("channels")), about.get("outputs")
    return GivenWeights(
        key=content_key(state),
        source=f"{path.name} of {about.get('configuration', 'an unnamed configuration')} fold {about.get('fold', '?')}",
        state=state,
        channels=None if inputs is None else tuple(inputs),
        outputs=None if outputs is None else tuple(outputs),
        regions=about.get("regions"),
        trained_on=frozenset(about["trained_on"].values()) if "trained_on" in about else None,
    )


def _of_peer(path: Path) -> GivenWeights:
    found: PeerCheckpoint = read_checkpoint(path)
    state = from_peer(found.weights, levels=found.levels, deep_supervision=True)
    channels = _in_order(found.dataset.get("channel_names", found.dataset.get("modality")))
    outputs, regions = _peer_outputs(found.dataset.get("labels"))
    return GivenWeights(
        key=content_key(state),
        source=f"nnU-Net's {path.name}" + (f" of {found.configuration} fold {found.fold}" if found.configuration else ""),
        state=state,
        channels=channels,
        outputs=outputs,
        regions=regions,
        trained_on=None,
    )


def _in_order(names: Mapping[str, str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names[key] for key in sorted(names, key=int))


def _peer_outputs(labels: Mapping[str, Any] | None) -> tuple[tuple[str, ...] | None, bool | None]:
    """The outputs in the peer's order: classes by value, or regions as they stand; `ignore` and, of regions, background aside."""
    if labels is None:
        return None, None
    if any(isinstance(value, list | tuple) and len(value) > 1 for value in labels.values()):
        return tuple(name for name in labels if name not in ("background", "ignore")), True
    values = {name: value[0] if isinstance(value, list | tuple) else value for name, value in labels.items() if name != "ignore"}
    return tuple(sorted(values, key=lambda name: int(values[name]))), False
