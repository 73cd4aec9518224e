"""Given weights from every place where they lie, and from none where code would run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from autoseg.errors import ModelError
from autoseg.network import build
from autoseg.network.given import _peer_outputs, read_given
from autoseg.network.weights import save_weights


def about(**changes) -> dict:
    return {
        "configuration": "3d_fullres",
        "fold": "0",
        "channels": ["CT"],
        "inputs": ["CT"],
        "outputs": ["background", "lung"],
        "regions": False,
        "trained_on": {"a": "key_a"},
        **changes,
    }


def state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"heads.0.weight": torch.randn(2, 3)}


def fold(work: Path, name: int | str, seed: int, configuration: str = "3d_fullres") -> Path:
    folder = work / "models" / configuration / f"fold_{name}"
    save_weights(folder / "weights.safetensors", state(seed), about(fold=str(name), configuration=configuration))
    return folder


def test_a_file_and_a_fold_folder(tmp_path):
    folder = fold(tmp_path, 0, 0)
    one, other = read_given(folder, "2d", 3), read_given(folder / "weights.safetensors", "2d", 3)
    assert one.key == other.key and torch.equal(one.state["heads.0.weight"], state(0)["heads.0.weight"])
    assert (one.channels, one.outputs, one.regions, one.trained_on) == (("CT",), ("background", "lung"), False, {"key_a"})
    assert "3d_fullres fold 0" in one.source and str(tmp_path) not in one.source
    assert read_given(fold(tmp_path, 1, 1), "2d", 0).key != one.key


def test_of_a_work_the_fold_of_the_same_name_else_full_else_the_first(tmp_path, monkeypatch):
    from autoseg.network import given
    from autoseg.planning.schema import Plan

    monkeypatch.setattr(given, "read_plan", lambda path: Plan.model_construct(default_configurations=["3d_fullres"]))
    (tmp_path / "plan.json").write_text("{}")
    for name, seed in ((1, 1), (2, 2)):
        fold(tmp_path, name, seed)
    key = {name: read_given(tmp_path / "models" / "3d_fullres" / f"fold_{name}", "x", 0).key for name in (1, 2)}
    assert read_given(tmp_path, "3d_fullres", 2).key == key[2]
    assert read_given(tmp_path, "another", 4).key == key[1]
    full = read_given(fold(tmp_path, "full", 9), "x", 0).key
    assert read_given(tmp_path, "3d_fullres", 4).key == full
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(ModelError, match="no trained fold"):
        read_given(tmp_path, "3d_fullres", 0)


def test_the_peers_model_folder_and_checkpoint(shared_data, peer_plan):
    folder = shared_data("nnunet_model")
    given = read_given(folder, "3d_fullres", 4)  # it has fold 0 alone
    assert given.channels == ("MRI",) and given.outputs == ("background", "anterior", "posterior") and given.regions is False
    assert given.trained_on is None and "3d_fullres fold 0" in given.source
    assert read_given(folder / "fold_0" / "checkpoint_final.pth", "x", 0).key == given.key == read_given(folder / "fold_0", "x", 0).key
    arch = json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network = build(peer_plan(arch["features_per_stage"], arch["strides"], arch["kernel_sizes"]), 1, 3, deep_supervision=True)
    assert set(given.state) == set(network.state_dict())


def test_the_peers_outputs_stand_in_its_order():
    assert _peer_outputs({"b": 2, "background": 0, "a": 1, "ignore": 3}) == (("background", "a", "b"), False)
    assert _peer_outputs({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}) == (("whole", "core"), True)
    assert _peer_outputs(None) == (None, None)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"network_weights": {"encoder.stages.0.0.convs.0.conv.weight": torch.zeros(1)}, "more": Evil()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "c.pth").write_bytes(b"rubbish")
    torch.save({"state_dict": {}}, tmp_path / "d.pth")
    for name in "abcd":
        with pytest.raises(ModelError, match=f"{name}.pth"):
            read_given(tmp_path / f"{name}.pth", "x", 0)
    assert not (tmp_path / "ran").exists()


def test_what_holds_no_weights_is_named(tmp_path):
    (tmp_path / "image.nii.gz").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"holds no weights \(found: image.nii.gz\)"):
        read_given(tmp_path, "x", 0)
