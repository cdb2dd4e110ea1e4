"""Links of the texts lead to files and headings, and the reference lists every public name."""

import importlib
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
REFERENCE = (ROOT / "docs" / "api.rst").read_text()
#: Modules whose public names are all in the reference; of the rules, only some are.
MODULES = ["", ".adapters", ".datasets", ".displays", ".losses", ".testing", ".training"]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    name = f"sknetsim{module}"
    listed = []
    for part in REFERENCE.split(".. currentmodule:: ")[1:]:
        if part.split("\n")[0] == name:
            listed += re.findall(r"^   (\w+)$", part, flags=re.MULTILINE)
    assert sorted(listed) == sorted(importlib.import_module(name).__all__)


#: Folder that only the build of the site creates.
BUILT = "auto_examples/"


def list_headings(path):
    """Return the anchors of the headings of a text."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_existing_files_and_headings(path):
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", path.read_text())
    for link, _, anchor in re.findall(r"\]\((?!https?:)([^)\s#]*)(#([^)\s]+))?\)", text):
        target = path.parent / link if link else path
        assert target.exists() or link.startswith(BUILT), link
        assert not anchor or anchor in list_headings(target), f"{link}#{anchor}"
