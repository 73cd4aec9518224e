"""The page that explains a plan: complete, in order, without rows of numbers."""

from __future__ import annotations

import re

import pytest

from autoseg.planning.explain import explain


@pytest.fixture(params=["auto", "nnunet"])
def plan(planned, request):
    return planned(request.param, shape=(16, 256, 256), spacing=(8.0, 1.0, 1.0))


def test_each_reason_is_on_the_page_with_its_key_and_what_would_change_it(plan):
    page = " ".join(explain(plan).split())
    assert plan.reasons
    for reason in plan.reasons:
        assert " ".join(f"{reason.because}.".split()) in page
        assert " ".join(f"{reason.would_change_if}. [{reason.decision}]".split()) in page


def test_the_page_goes_from_question_to_question(plan):
    questions = [line for line in explain(plan).splitlines() if line.endswith("?") and not line.startswith(" ")]
    assert questions[:8] == [
        "What are the images?",
        "At what detail are they looked at?",
        "What does the network see at once?",
        "How is brightness treated?",
        "How is it trained?",
        "How are left and right kept apart?",
        "How are cases split?",
        "What does it need?",
    ]


def test_no_line_is_wider_than_a_terminal_and_none_is_a_row_of_numbers(plan):
    page = explain(plan)
    assert max(map(len, page.splitlines())) <= 100
    assert not re.search(r"\[\[|(\d+, ){4}", page)
