"""Runs of all examples in a short form: their constants are set to smaller values."""

import ast
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot

from sknetsim import datasets

from .real import load_or_skip

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
#: Constants that make each example short.
SHORT = {
    "plot_active_learning.py": {"SEEDS": 2, "ROUNDS": 1, "EPOCHS": 2, "JOBS": 1},
    "plot_attribution.py": {"TRAINING": 200, "EPOCHS": 5, "RETRAININGS": 1, "SHOWN": 1},
    "plot_films.py": {"TRAINING": 500, "EPOCHS": 1, "SHOWN": 2},
    "plot_fit.py": {"NETWORKS": {"short": (100, 16, 1), "long": (30, 16, 5), "other": (50, 16, 2)}},
    "plot_denoising.py": {"SAMPLES": 200, "QUERIES": 50, "EPOCHS": 2, "DRAWS": 1},
    "plot_invariance.py": {
        "SEEDS": 1,
        "IMAGES": 128,
        "TESTED": 200,
        "COMPARED": 100,
        "EPOCHS": 1,
        "JOBS": 1,
    },
    "plot_leaving_out.py": {"STEPS": 5, "GROUPS": 2, "SIZES": (1, 2)},
    "plot_kernel_machine.py": {
        "TEST": 60,
        "POOL": 100,
        "LABELS": [40, 60],
        "REPETITIONS": 1,
        "GAMMAS": [0.03],
        "COMPONENTS": 32,
        "EMBEDDED": 60,
    },
    "plot_label_issues.py": {"SAMPLES": 300, "EPOCHS": (1, 2)},
    "plot_quickstart.py": {"TRAINING": 100, "TEST": 500},
    "plot_reasons.py": {"TRAINING": 200, "RANKED": 50, "COMPARED": 20},
    "plot_retrieval.py": {"SIDE": 48, "EPOCHS": 1, "SEEDS": 1, "QUERIES": 2},
    "plot_reviews.py": {"TRAINING": 200, "TEST": 50, "EPOCHS": 1, "WORDS": 200, "SHOWN": 2},
    "plot_sequences.py": {"TRAINING": 300, "TEST": 100, "EPOCHS": 1, "PAIRS": 40},
    "plot_similarity_training.py": {
        "SEEDS": 2,
        "STEPS": 2,
        "IMAGES": 1_000,
        "TESTED": 50,
        "JOBS": 1,
    },
    "plot_sine_density.py": {"FREQUENCIES": (1, 2), "RUNS": 1, "N_SAMPLES": 256, "JOBS": 1},
    "plot_threshold.py": {"SAMPLES": 200, "FRESH": 50},
    "plot_words.py": {"WORDS": 60, "COMPARED": 20, "MISSPELLINGS": {"recieved": "received"}},
}

#: Loaders of the data of an example; the other examples need `IMAGES` at most.
LOADERS = {
    "plot_films.py": [datasets.load_films],
    "plot_reviews.py": [datasets.load_clothing_reviews],
    "plot_words.py": [datasets.load_clothing_reviews, datasets.load_pronunciation_network],
}
IMAGES = [
    lambda: datasets.load_mnist("test", 1),
    datasets.load_mnist_network,
    datasets.load_aerial_photographs,
]

mpl.use("Agg")


def shorten(name):
    """Return the example's code with other values of its constants."""
    tree = ast.parse((FOLDER / name).read_text())
    remaining = dict(SHORT[name])
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            constant = statement.targets[0].id
            if constant in remaining:
                statement.value = ast.parse(repr(remaining.pop(constant)), mode="eval").body
    assert not remaining, f"{name} has no constants {sorted(remaining)}"
    return compile(ast.fix_missing_locations(tree), name, "exec")


def read_gallery_order():
    """Return the list EXAMPLES of docs/conf.py, which needs Sphinx to be imported."""
    for statement in ast.parse((ROOT / "docs" / "conf.py").read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "EXAMPLES":
            return ast.literal_eval(statement.value)
    raise AssertionError("docs/conf.py has no list EXAMPLES")


def test_each_example_has_a_short_form():
    assert set(SHORT) == {path.name for path in FOLDER.glob("plot_*.py")}


def test_the_gallery_names_each_example_once():
    assert sorted(read_gallery_order()) == sorted(SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_it_draws(name, monkeypatch, tmp_path):
    for load in LOADERS.get(name, IMAGES):
        load_or_skip(load)
    # The example must run from any folder, as a downloaded one does.
    monkeypatch.chdir(tmp_path)
    pyplot.close("all")
    exec(shorten(name), {"__name__": "__main__", "__file__": str(tmp_path / name)})
    assert pyplot.get_fignums(), "nothing was drawn"
    pyplot.close("all")
