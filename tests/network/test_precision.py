"""What `auto` becomes is decided by the instruction set."""

from __future__ import annotations

import pytest
import torch

from autoseg.errors import ResourceError
from autoseg.network import precision


@pytest.fixture
def processor(monkeypatch):
    """Pretend to a processor with these features."""

    def pretend(*features: str) -> None:
        monkeypatch.setattr(precision, "cpu_features", lambda: frozenset(features))

    return pretend


@pytest.mark.parametrize(
    ("features", "expected"), [((), "float32"), (("avx512_bf16",), "bfloat16"), (("amx_bf16",), "bfloat16"), (("amx_fp16",), "float32")]
)
def test_auto_on_a_cpu_is_bfloat16_only_where_it_computes_in_it(processor, features, expected):
    processor(*features)
    assert precision.resolve_precision("auto", "cpu") == expected


def test_a_machine_that_lacks_the_folds_precision_refuses(processor):
    processor()
    with pytest.raises(ResourceError, match="bfloat16"):
        precision.resolve_precision("bfloat16", "cpu")
    processor("avx512_bf16")
    assert precision.resolve_precision("bfloat16", "cpu") == "bfloat16"
    assert precision.resolve_precision("float32", "cpu") == "float32"


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_auto_on_a_gpu_is_half_as_the_gpu_has_it(monkeypatch, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    assert precision.resolve_precision("auto", "cuda:1") == expected


def test_what_linux_says_of_the_processor_is_read(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 amx_tile amx_bf16\nbugs\t: none\n")
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "cpuinfo")
    assert precision.cpu_features.__wrapped__() == {"avx512_bf16", "amx_bf16"}


def test_where_linux_is_not_torch_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "Path", lambda _: tmp_path / "absent")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert "avx512_bf16" in precision.cpu_features.__wrapped__()


def test_layouts_have_torchs_names():
    assert precision.resolve_memory_layout("contiguous", "cpu") == "contiguous"
    assert precision.resolve_memory_layout("auto", "cpu") == "channels_last"
    assert precision.resolve_memory_layout("auto", "mps") == "contiguous"
    assert precision.memory_format("channels_last", 2) is torch.channels_last
    assert precision.memory_format("channels_last", 3) is torch.channels_last_3d
    assert precision.memory_format("contiguous", 3) is torch.contiguous_format


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast_computes_in_the_precision_and_keeps_the_weights(name, dtype):
    layer = torch.nn.Conv3d(1, 2, 3)
    with precision.autocast(name, "cpu"):
        assert layer(torch.rand(1, 1, 4, 4, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert not precision.grad_scaler(name, "cpu").is_enabled()
