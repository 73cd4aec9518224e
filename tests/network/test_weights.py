"""Weights in files: what goes in comes out, and what is damaged is named."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from autoseg.errors import ModelError
from autoseg.network import build
from autoseg.network.weights import load_weights, save_weights

ABOUT = {"fold": 3, "channels": ["CT"], "training_loss": 0.383, "note": "Lünge"}


@pytest.fixture
def saved(tmp_path, peer_plan):
    """A small network's file and state."""
    plan = peer_plan([4, 8], [(1, 1, 1), (2, 2, 2)], norm={"name": "batch", "momentum": 0.1, "eps": 1e-5})
    state = build(plan, 1, 2).to(memory_format=torch.channels_last_3d).state_dict()
    path = tmp_path / "weights.safetensors"
    save_weights(path, state, ABOUT)
    return path, state


def test_weights_and_description_come_back_as_they_were(saved):
    path, state = saved
    found, about = load_weights(path)
    assert about == ABOUT
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], state[k]) and found[k].dtype == state[k].dtype for k in state)


def test_half_floats_shared_memory_and_scalars_come_back(tmp_path):
    base = torch.arange(6, dtype=torch.bfloat16)
    state = {"a": base, "b": base, "part": base[2:4], "count": torch.tensor(7), "empty": torch.zeros(0, 3)}
    save_weights(tmp_path / "w.safetensors", state, {})
    found, _ = load_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(found[k], state[k]) and found[k].shape == state[k].shape for k in state)


def test_the_file_holds_tensors_and_json_and_nothing_that_runs(saved):
    path, _ = saved
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8 : 8 + length])
    assert head["__metadata__"]["schema"] == "autoseg.weights/1"
    assert json.loads(head["__metadata__"]["about"]) == ABOUT


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_a_truncated_file_is_named(saved, keep):
    path, _ = saved
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(keep * len(raw))])
    with pytest.raises(ModelError, match=path.name):
        load_weights(path)


def test_a_changed_byte_is_noticed(saved):
    path, _ = saved
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelError, match="changed since it was written"):
        load_weights(path)


def test_files_that_are_something_else_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.safetensors"):
        load_weights(tmp_path / "absent.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    with pytest.raises(ModelError, match=r"pickle\.safetensors"):
        load_weights(tmp_path / "pickle.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors", metadata={"schema": "autoseg.weights/99"})
    with pytest.raises(ModelError, match=r"autoseg\.weights/99"):
        load_weights(tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match="none"):
        load_weights(tmp_path / "bare.safetensors")


def test_a_failed_write_leaves_the_former_file(saved, monkeypatch):
    path, state = saved
    before = path.read_bytes()

    def fail(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(Exception, match="no room"):
        save_weights(path, state, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
