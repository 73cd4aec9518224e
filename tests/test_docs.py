"""The reference pages are what the code says, and the pages name no machine."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_pages_equal_the_code():
    for name, text in _generator().pages().items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == text, f"run python docs/generate.py ({name})"


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_files_named_in_the_method_page_exist():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:autoseg|plans|tests)/[\w/.-]+)`", text))
    assert named, "method.md says where each item is implemented"
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_plan_page_has_every_dotted_key():
    from autoseg.planning.schema import Plan

    page = (ROOT / "docs" / "reference" / "plan.md").read_text(encoding="utf-8")
    for key in ("training.loss.tversky.fn_weight", "configurations.NAME.network.features", "prediction.overlap", "folds.source"):
        assert f"`{key}`" in page
    assert all(f"`{name}`" in page for name in Plan.model_fields)
