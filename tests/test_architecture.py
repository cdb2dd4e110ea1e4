"""Folders of the package: their imports, their sizes, and the table that lists them."""

import ast
import functools
import io
import re
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sknetsim

pytestmark = pytest.mark.once

PACKAGE = Path(sknetsim.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})

#: Folders and modules at the top of the package by level, lowest first: a level imports only from
#: those before it.
LEVELS = [
    ["exceptions", "datasets"],
    ["_kernels"],
    ["_networks", "rules"],
    ["_gradients", "_passes"],
    ["_features", "_curvature", "losses", "testing"],
    ["estimators", "training"],
    ["labels", "active"],
    ["attribution"],
    ["displays", "adapters"],
    ["__init__"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

#: The only module that imports a package.
HOME = {
    "skorch": "_networks/network.py",
    "skactiveml": "adapters/_skactiveml.py",
    "faiss": "_features/indexes.py",
    "pynndescent": "_features/indexes.py",
}

#: Largest file, in lines of code: docstrings, comments and blank lines are not counted.
LINES_OF_CODE = 220
FILES_IN_A_FOLDER = 12
ENTRIES_AT_THE_TOP = 20


def format_path(path):
    return str(path.relative_to(PACKAGE))


@functools.cache
def list_import_nodes(path):
    """Return the nodes of the imports of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imported_files(path):
    """Yield the files of this package from which a file imports."""
    for node in list_import_nodes(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                candidates = (
                    base / f"{alias.name}.py",
                    base / alias.name / "__init__.py",
                    base.with_suffix(".py"),
                    base / "__init__.py",
                )
                yield next(file for file in candidates if file.exists())


def top_name(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def absolute_imports(path):
    for node in list_import_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=format_path)
def test_folders_import_only_from_lower_levels(path):
    own = top_name(path)
    others = {top_name(file) for file in imported_files(path)} - {own}
    assert [other for other in others if LEVEL[other] >= LEVEL[own]] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=format_path)
def test_modules_of_a_folder_form_no_cycle(folder):
    graph = {
        path: {file for file in imported_files(path) if file.parent == folder}
        for path in folder.glob("*.py")
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(path.name for path in error.args[1]))


@pytest.mark.parametrize(("package", "home"), HOME.items(), ids=HOME)
def test_a_package_is_imported_in_one_module(package, home):
    importing = {
        format_path(path)
        for path in FILES
        if package in {name.split(".")[0] for name in absolute_imports(path)}
    }
    assert importing - {home} == set()


def lines_of_code(text):
    """Count the lines of code, without docstrings, comments and blank lines."""
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing and token.string:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_lines_of_code_are_counted_without_docstrings_and_comments():
    assert (
        lines_of_code('"""One."""\n\n# Two.\nx = [\n    1,\n]\n\n\ndef f():\n    """Three."""\n')
        == 4
    )


@pytest.mark.parametrize("path", FILES, ids=format_path)
def test_files_stay_readable(path):
    assert lines_of_code(path.read_text()) <= LINES_OF_CODE


@pytest.mark.parametrize("folder", FOLDERS, ids=format_path)
def test_folders_stay_readable(folder):
    if folder == PACKAGE:
        entries = [path for path in folder.iterdir() if path.name != "__pycache__"]
        assert len(entries) <= ENTRIES_AT_THE_TOP
    else:
        assert len(set(folder.glob("*.py")) - {folder / "__init__.py"}) <= FILES_IN_A_FOLDER


@pytest.mark.parametrize("path", FILES, ids=format_path)
def test_no_global_seed_and_no_default_device(path):
    text = path.read_text()
    assert "random.seed" not in text
    assert "manual_seed_all" not in text
    assert '= "cuda"' not in text.replace('== "cuda"', "")


def test_contributing_lists_each_folder_with_its_purpose():
    """The table has one line for each folder and module, from high to low, with its docstring."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d) \| `([\w/.]+)` \| (.*) \|$", text, flags=re.MULTILINE)
    expected = [
        (str(level), format_entry(path), purpose(path))
        for level, names in reversed(list(enumerate(LEVELS)))
        for name in names
        for path in files_of(name)
    ]
    assert rows == expected


def files_of(name):
    """Return the file that says the purpose of a folder and of each folder in it."""
    if (PACKAGE / f"{name}.py").exists():
        return [PACKAGE / f"{name}.py"]
    return sorted((PACKAGE / name).rglob("__init__.py"))


def format_entry(path):
    is_folder = path.name == "__init__.py" and path.parent != PACKAGE
    return f"{format_path(path.parent)}/" if is_folder else format_path(path)


def purpose(path):
    return ast.get_docstring(ast.parse(path.read_text())).split("\n")[0]
