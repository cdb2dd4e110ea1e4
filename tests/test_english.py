"""Sentences that a program can check: summaries of docstrings, messages, and names."""

import ast
import re
from pathlib import Path

import pytest

import sknetsim

pytestmark = pytest.mark.once

PACKAGE = Path(sknetsim.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
CODE = sorted(
    path
    for folder in ("sknetsim", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])

#: Words that begin a clause, and not a sentence.
CLAUSE = re.compile(
    r"(What|Of|Where|How|Whether|By|From|Those|Some|So|As|For|Which|That|To|In|With|None)\b"
)
#: Old metaphors for the network that is studied, the parts of the package, and what it computes.
METAPHOR = re.compile(
    r"\b(guests?|shadows?|storeys?|rooms?|somebody else|in its eyes|have a say|whom they ask)\b",
    flags=re.IGNORECASE,
)


def format_path(path):
    return str(path.relative_to(ROOT))


def summaries(path):
    """Yield the line and the summary of each docstring of a function, class or module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.split("\n")[0]


def strings(path):
    """Yield the line and the text of each string, docstrings included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("path", CODE, ids=format_path)
def test_summaries_are_sentences(path):
    """A function begins with a verb (ruff, D401), and no summary begins with a bare clause."""
    fragments = [(line, text) for line, text in summaries(path) if CLAUSE.match(text)]
    assert fragments == []


@pytest.mark.parametrize("path", FILES, ids=format_path)
def test_messages_say_what_must_be(path):
    """The form is "`n_neighbors` must be ...; got .... Ask for fewer neighbours."."""
    old = [(line, text) for line, text in strings(path) if re.search(r"\ballowed (are|is)\b", text)]
    assert old == []


@pytest.mark.parametrize("path", CODE, ids=format_path)
def test_results_are_named_for_what_they_are(path):
    names = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "found"
    ]
    assert names == []


@pytest.mark.parametrize("path", [*CODE, *TEXTS], ids=format_path)
def test_nothing_is_said_in_old_metaphors(path):
    assert METAPHOR.findall(path.read_text()) == []
