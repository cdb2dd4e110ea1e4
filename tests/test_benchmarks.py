"""Benchmark scripts: their imports exist, and their results are named and worded as they say."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))
FILES = sorted(BENCHMARKS.rglob("*.py"))
RESULTS = sorted(BENCHMARKS.glob("results/*.md"))
TEXTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "examples/*.py") for path in ROOT.glob(pattern)
)
#: Scripts that no target of make runs, because they need another checkout.
NOT_IN_MAKE = {"engine"}


def parametrize_paths(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def parse(path):
    return ast.parse(path.read_text(), str(path))


def test_make_runs_every_script():
    names = re.findall(r"benchmarks/(\w+)\.py", (ROOT / "Makefile").read_text())
    assert sorted(names) == sorted({path.stem for path in SCRIPTS} - NOT_IN_MAKE)


def names_in(path):
    """Return the names that a module defines or imports."""
    names = set()
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names.update(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    return names


def list_imports(path, package):
    """Yield the modules and names that a file imports from a package."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield from ((node.module, alias.name) for alias in node.names)


@parametrize_paths(FILES)
def test_names_imported_from_the_shared_modules_exist(path):
    for module, name in list_imports(path, "lib"):
        folder = BENCHMARKS.joinpath(*module.split("."))
        if folder.is_dir():
            is_module = (folder / f"{name}.py").exists() or (folder / name).is_dir()
            assert is_module or name in names_in(folder / "__init__.py"), f"{module}.{name}"
        else:
            assert name in names_in(folder.with_suffix(".py")), f"{module}.{name}"


@parametrize_paths(FILES)
def test_names_imported_from_the_package_exist(path):
    for module, name in list_imports(path, "sknetsim"):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@parametrize_paths(TEXTS)
def test_scripts_and_results_that_texts_name_exist(path):
    names = re.findall(r"benchmarks/[\w/]+\.(?:py|md|png|txt)\b", path.read_text())
    assert not [name for name in names if not (ROOT / name).exists()]


@parametrize_paths(RESULTS)
def test_results_name_the_script_that_wrote_them(path):
    (name,) = re.findall(r"^Written by `benchmarks/(\w+)\.py`\.$", path.read_text(), re.MULTILINE)
    assert name == path.stem
    assert (BENCHMARKS / f"{name}.py").exists()


@cache
def list_templates(path):
    """Return patterns of the texts of a file; a replacement field matches any text.

    Texts with few letters of their own would match everything and are left out.
    """
    patterns = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            patterns.append(re.escape(node.value))
        elif isinstance(node, ast.JoinedStr):
            constants = [part for part in node.values if isinstance(part, ast.Constant)]
            if sum(len(part.value) for part in constants) > 10:
                parts = (
                    re.escape(part.value) if isinstance(part, ast.Constant) else ".+"
                    for part in node.values
                )
                patterns.append("".join(parts))
    return [re.compile(pattern) for pattern in patterns]


@parametrize_paths(RESULTS)
def test_prose_of_results_is_that_of_the_script(path):
    sources = [BENCHMARKS / f"{path.stem}.py", *BENCHMARKS.glob("lib/**/*.py")]
    templates = [pattern for source in sources for pattern in list_templates(source)]
    lines = [line for line in path.read_text().splitlines() if line]
    title, *others = lines
    prose = [line for line in others if not line.startswith(("#", "|", "!", "Measured on"))]
    heads = [
        lines[row - 1].strip("| ").split(" | ")
        for row, line in enumerate(lines)
        if line.startswith("|---")
    ]
    # A cell with a number or a separator is put together from several texts.
    cells = [cell for head in heads for cell in head if not re.search(r"\d|: |, ", cell)]
    for text in (title.removeprefix("# "), *prose, *cells):
        assert any(pattern.fullmatch(text) for pattern in templates), text
