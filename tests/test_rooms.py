"""One concept in one room, and imports only go down."""

import ast
from pathlib import Path

import pytest

import sknetsim

PACKAGE = Path(sknetsim.__file__).parent

#: Rooms by storey, lowest first.
STOREYS = [
    [
        "exceptions",
        "_precision",
        "_kernels",
        "_labels",
        "_inputs",
        "_default_network",
        "_layouts",
        "_cache",
        "_neighborhoods",
        "_contributions",
    ],
    [
        "_appearance",
        "_blocks",
        "_fingerprint",
        "_active_loop",
        "_matrix_roots",
        "_shards",
        "_zero_gradients",
    ],
    ["_guest", "_position_blocks", "_kernel_error"],
    ["_network", "_factored_blocks", "_embedding_blocks", "_landmarks"],
    ["rules", "_persistence"],
    ["_outputs", "_parameters", "_jacobian", "_parallel"],
    ["_fallback", "_selfcheck"],
    ["_capture"],
    ["_memory"],
    ["_base_engine"],
    ["_gradients", "_activities", "_passes"],
    ["_feature_rows", "_pairs", "_predictions", "_contribution_pass", "strategies", "_live"],
    ["_reductions"],
    ["_nystroem", "_sketch", "_pair_sums", "_tasks", "_base_loss"],
    ["_indexes", "_projections", "_nearest", "_row_cache", "_local_means"],
    ["_base", "_kernel_protocol"],
    ["_graphs", "_outliers", "_base_kernel", "_sampling", "_label_means"],
    [
        "featurizer",
        "density",
        "neighbors",
        "kernel",
        "perceptual",
        "active",
        "denoising",
        "diagnostics",
        "losses",
    ],
    ["active_curve", "_skactiveml", "training", "store", "testing"],
    ["adapters", "displays"],
    ["explorer"],
    ["__init__"],
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms of this package that a file imports from."""
    relative = path.relative_to(PACKAGE)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        inside = node.level == 1 and len(relative.parts) > 1
        if inside:
            continue
        first = (node.module or "").split(".")[0]
        yield from [first] if first else [alias.name for alias in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    own = LEVEL[room_of(path)]
    assert [room for room in imported_rooms(path) if LEVEL[room] >= own] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
@pytest.mark.parametrize(
    ("package", "room"), [("skorch", "_network"), ("skactiveml", "_skactiveml")]
)
def test_a_package_is_known_in_one_room(path, package, room):
    mentions = package in {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _absolute_imports(node)
    }
    assert not mentions or room_of(path) == room


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 320


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_global_seed_and_no_default_device(path):
    text = path.read_text()
    assert "random.seed" not in text
    assert "manual_seed_all" not in text
    assert '= "cuda"' not in text.replace('== "cuda"', "")


def _absolute_imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module]
    return []
