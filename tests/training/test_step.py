"""One step: split batches, memory that runs out, numbers that are read late."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.errors import ResourceError
from autoseg.training import history, loop, session, step
from autoseg.training.targets import overlap_counts


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def short_of_memory(monkeypatch):
    """The network says that memory has run out whenever it sees more than so many samples; `raised` counts."""
    raised = []

    def arrange(samples: int, error=torch.OutOfMemoryError) -> list:
        real = loop.fresh_state

        def fresh(setting):
            state = real(setting)
            forward = state.network.forward

            def call(image):
                if state.network.training and len(image) > samples:
                    raised.append(len(image))
                    raise error("CUDA out of memory. Tried to allocate 20.00 GiB")
                return forward(image)

            state.network.forward = call
            return state

        monkeypatch.setattr(loop, "fresh_state", fresh)
        return raised

    return arrange


def batch_of_four(made, **changes):
    """No batch norm, no dropout: then parts give what the whole gives."""
    content = made.again("x", **changes).content
    part = content["configurations"]["net"]
    part["batch_size"] = 4
    part["network"] |= {"norm": {"name": "instance", "momentum": 0.1, "eps": 1e-5}, "dropout": 0}
    return made.again("whole", **changes), content


def with_content(made, name, content):
    from dataclasses import replace

    return replace(made.again(name), content=content)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_memory_that_runs_out_splits_the_batch_and_gives_the_same_step(make_fold, short_of_memory, error, monkeypatch):
    made = make_fold()
    _, content = batch_of_four(made, optimiser__name="sgd", optimiser__lr=0.02, schedule__name="constant", schedule__warmup=0)
    whole, split = with_content(made, "one", content), with_content(made, "two", content)
    whole.train()
    with monkeypatch.context():
        raised = short_of_memory(1, error)
        assert split.train().finished
    assert raised == [4, 2], "said twice, then obeyed for the rest of the run"
    for name, weight in whole.weights().items():
        torch.testing.assert_close(split.weights()[name], weight, rtol=2e-3, atol=2e-5)
    told = [m for m in split.messages if "memory ran out at step 1" in m]
    assert len(told) == 2 and "each batch of 4 is split into 4 parts" in told[1] and "now see a part" not in told[1]
    rows, others = (history.read_rows(m.folder.history) for m in (whole, split))
    assert others[-1]["loss"] == pytest.approx(rows[-1]["loss"], rel=1e-3)
    assert others[0]["changes"][-1] == {"step": 0, "rate_factor": 1.0, "parts": 4}


def test_what_depends_on_the_whole_batch_is_said(make_fold, short_of_memory):
    made = make_fold()
    content = made.again("x", loss__cross_entropy__top_k=0.5).content
    content["configurations"]["net"]["pool_loss_over_batch"] = True
    made = with_content(made, "pooled", content)
    short_of_memory(1)
    made.train()
    (told,) = [m for m in made.messages if "memory ran out" in m]
    assert "Batch norm and the loss pooled over the batch and the hardest voxels of top_k now see a part at a time" in told


def test_parts_are_kept_on_resuming(make_fold, short_of_memory, monkeypatch):
    made = make_fold().again("whole")
    raised = short_of_memory(1)
    made.train()
    other = made.again("torn")

    def stop(path, row, real=history.append_row):
        real(path, row)
        raise loop.Stopped

    with monkeypatch.context() as patched:
        patched.setattr(loop.history, "append_row", stop)
        with pytest.raises(KeyboardInterrupt):
            other.train()
    raised.clear()
    other.train()
    assert not raised and same(made.weights(), other.weights())


def test_a_sample_that_does_not_fit_is_a_resource_error(make_fold, short_of_memory):
    short_of_memory(0)
    with pytest.raises(ResourceError, match="one sample of 8 x 16 x 16 voxels does not fit") as raised:
        make_fold().train()
    assert "patch_size" in raised.value.remedy


def test_another_runtime_error_is_no_lack_of_memory():
    assert not step.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert step.is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes"))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Numbers are not read at once, as on a device that computes ahead."""
    for module in (step, session):
        monkeypatch.setattr(module, "reads_at_once", lambda device: False)


def test_numbers_read_late_are_the_same_numbers(make_fold, as_on_a_gpu, monkeypatch):
    late = make_fold().again("late", epochs=2)
    late.train()
    monkeypatch.undo()
    at_once = late.again("at_once")
    at_once.train()
    keep = ("step", "steps", "loss", "tversky", "cross_entropy", "dice", "val_loss", "val_dice", "lr")
    rows, others = ([{k: r[k] for k in keep} for r in history.read_rows(m.folder.history)] for m in (late, at_once))
    assert rows == others and same(late.weights(), at_once.weights())


def test_a_loss_that_is_not_finite_and_found_late_still_goes_back_and_names_its_own_cases(make_fold, as_on_a_gpu, monkeypatch):
    made = make_fold().again("late", epochs=2)
    real, seen = loop.train_step, []

    def bad(setting, state, batch, message):
        seen.append(batch.cases)
        if len(seen) == 3:
            batch = type(batch)(batch.image * float("nan"), batch.target, batch.cases)
        return real(setting, state, batch, message)

    monkeypatch.setattr(loop, "train_step", bad)
    assert made.train().finished
    (told,) = [m for m in made.messages if "not finite" in m]
    assert "not finite at step 3" in told and ", ".join(seen[2]) in told and "back at step 0" in told
    assert len(seen) == 4 + 8, "the epoch went on until it was read"
    assert all(torch.isfinite(v).all() for v in made.weights().values())


class Reads(TorchDispatchMode):
    """Counts what makes a GPU's host wait: numbers read, masks turned into indices, bins counted."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "is_nonzero", "equal") or (
            name in ("index", "index_put") and any(i is not None and i.dtype == torch.bool for i in args[1])
        ):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("regions", [False, True])
def test_nothing_in_a_step_waits_for_the_device(make_fold, as_on_a_gpu, monkeypatch, regions):
    """Seen on a CPU with the paths that a GPU takes; the GPU's own kernels are not seen."""
    from autoseg.training import targets

    if not regions:
        monkeypatch.setattr(
            targets, "_class_counts", lambda logits, target, ignore: targets._counts_by_class(
                logits.argmax(1).flatten(1), target.flatten(1), logits.shape[1], ignore
            )
        )  # fmt: skip
    real, found = loop.train_step, []

    def watched(*arguments):
        with Reads() as reads:
            outcome = real(*arguments)
        found.append(reads.found)
        return outcome

    monkeypatch.setattr(loop, "train_step", watched)
    make_fold(3, 1, regions).again("x", optimiser__name="sgd", epochs=1).train()
    assert len(found) == 4 and not any(found)


@pytest.mark.parametrize("ignore", [None, 3])
def test_counts_by_comparison_are_the_counts(ignore):
    from autoseg.training.targets import _counts_by_class

    torch.manual_seed(0)
    logits, target = torch.randn(3, 3, 5, 6), torch.randint(0, 4 if ignore else 3, (3, 5, 6))
    counted = _counts_by_class(logits.argmax(1).flatten(1), target.flatten(1), 3, ignore).sum(0)
    assert torch.equal(counted, overlap_counts(logits, target, ignore))
    by_hand = []
    known = target != ignore if ignore else torch.ones_like(target, dtype=torch.bool)
    for c in (1, 2):
        p, t = (logits.argmax(1) == c)[known], (target == c)[known]
        by_hand.append([int((p & t).sum()), int((p & ~t).sum()), int((~p & t).sum())])
    assert counted.tolist() == by_hand
