"""The texts: links that hold, and every public name in the reference."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
REFERENCE = (ROOT / "docs" / "api.rst").read_text()
MODULES = ["", ".adapters", ".displays", ".losses", ".testing", ".training"]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    name = f"sknetsim{module}"
    listed = []
    for part in REFERENCE.split(".. currentmodule:: ")[1:]:
        if part.split("\n")[0] == name:
            listed += re.findall(r"^   (\w+)$", part, flags=re.MULTILINE)
    assert sorted(listed) == sorted(importlib.import_module(name).__all__)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(path):
    links = re.findall(
        r"\]\((?!https?:|#)([^)\s#]+)", re.sub(r"(?s)```.*?```", "", path.read_text())
    )
    assert [link for link in links if not (path.parent / link).exists()] == []
