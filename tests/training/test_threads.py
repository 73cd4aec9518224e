"""Data threads: the same samples whatever their number, errors that name their case at once, hung ones that hold nothing up."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from autoseg.errors import TrainingError, UnreadableFileError
from autoseg.training.threads import SampleThreads


class Maker:
    """ticket -> its square and the thread that made it; `bad` are the tickets that go wrong."""

    def __init__(self, how="square", bad=()):
        self.how, self.bad = how, tuple(bad)
        self.released = threading.Event()

    def __reduce__(self):
        return _remade, (self,)

    def place_of(self, ticket):
        return f"case_{ticket}", Path("store") / f"case_{ticket}.b2nd"

    def __call__(self, ticket):
        if self.how == "uneven":
            time.sleep(0.02 * (ticket % 3))
        if ticket in self.bad:
            if self.how == "raise":
                return {}["a missing key"]
            if self.how == "name":
                raise UnreadableFileError("it is truncated", case="case_x", file="/data/x.nii.gz", remedy="Restore it")
            self.released.wait(60)
        return ticket**2, threading.current_thread().name


def _remade(maker):
    made = Maker(maker.how, maker.bad)
    made.released = maker.released
    return made


def pool(make, tickets, workers, *, ahead=4, timeout=60.0) -> SampleThreads:
    return SampleThreads(make, iter(tickets), workers=workers, ahead=ahead, timeout=timeout)


def data_threads():
    return [t for t in threading.enumerate() if t.name.startswith("autoseg-data")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_samples_come_in_the_order_of_their_tickets(workers):
    with pool(Maker("uneven"), range(12), workers) as samples:
        values = list(samples)
    assert [v for v, _ in values] == [n**2 for n in range(12)]
    assert ("MainThread" in {name for _, name in values}) == (workers == 0)
    assert not data_threads()


def test_no_more_is_asked_for_than_agreed():
    asked = []

    def tickets():
        for n in range(100):
            asked.append(n)
            yield n

    with pool(Maker(), tickets(), 2, ahead=5) as samples:
        for _ in range(3):
            next(samples)
        time.sleep(0.3)
        assert len(asked) == 3 + 5


def test_an_exception_arrives_within_a_second_with_its_case_file_and_traceback():
    with pool(Maker("raise", bad=[5]), range(50), 2, ahead=2) as samples:
        assert next(samples)[0] == 0
        began = time.monotonic()
        with pytest.raises(TrainingError) as caught:
            list(samples)
        assert time.monotonic() - began < 1.0
    text = str(caught.value)
    assert "case_5" in text and "case_5.b2nd" in text and "KeyError" in text and "a missing key" in text
    assert any('return {}["a missing key"]' in note for note in caught.value.__notes__)
    assert not data_threads()


def test_a_named_error_keeps_its_own_case_file_and_remedy():
    with pool(Maker("name", bad=[0]), range(3), 1) as samples, pytest.raises(TrainingError) as caught:
        next(samples)
    assert (caught.value.case, Path(caught.value.file).name, caught.value.remedy) == ("case_x", "x.nii.gz", "Restore it")


def test_tickets_that_fail_are_the_next_samples_error():
    def tickets():
        yield 0
        raise ValueError("no such epoch")

    with pool(Maker(), tickets(), 1) as samples, pytest.raises(ValueError, match="no such epoch"):
        list(samples)


def test_a_hung_thread_is_named_and_holds_nothing_up(monkeypatch):
    monkeypatch.setattr("autoseg.training.threads._LAST_SAMPLE", 0.2)
    make, began = Maker("hang", bad=[3]), time.monotonic()
    with pool(make, range(50), 2, timeout=1.0) as samples, pytest.raises(TrainingError, match=r"case_3.*hung.*1 s"):
        list(samples)
    assert time.monotonic() - began < 10
    hung = data_threads()
    assert len(hung) == 1 and hung[0].daemon  # it ends with the program
    make.released.set()
    hung[0].join(5)


@pytest.mark.parametrize("how", ["ends", "raises", "interrupted"])
def test_no_thread_remains(how):
    error = {"ends": None, "raises": ValueError, "interrupted": KeyboardInterrupt}[how]
    try:
        with pool(Maker("uneven"), range(50), 2) as samples:
            assert len(data_threads()) == 2
            next(samples)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert not data_threads()


def test_each_thread_works_with_its_own_copy():
    """Open files of a stored case are not shared."""
    makers = []

    class Noting(Maker):
        def __reduce__(self):
            return Noting, ()

        def __call__(self, ticket):
            makers.append((threading.current_thread().name, self))
            time.sleep(0.02)
            return ticket

    make = Noting()
    with pool(make, range(10), 2) as samples:
        list(samples)
    by_thread = dict(makers)
    assert len(by_thread) == 2 and len({id(m) for m in by_thread.values()} | {id(make)}) == 3
