"""Grid searches over densities: the best parameters, and the cost of a grid.

Writes ``benchmarks/results/density_grids.md``. With ``--quick`` it only prints, on a fifth of the
samples.
"""

import tempfile

import numpy as np
import torch
from lib.data.tables import read_california
from lib.processes import measure_seconds
from lib.report import format_header, format_row, format_title, write_report
from lib.training import Perceptron, train_digits_network
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity
from sknetsim.datasets import load_mnist, load_mnist_network

QUICK = 5
SEEDS = (0, 1)
GRIDS = {
    "threshold": np.array([0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.99, 0.999]),
    "alpha": np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], dtype=float),
}
METHODS = {"threshold": "threshold", "alpha": "power"}
FOLDS, SETTINGS, SAMPLES, GRID_SAMPLES, COMPONENTS = 5, 20, 2_000, 5_000, 256


def train_housing_network():
    """Return a network 8-128-128-1, and housing blocks that it was not trained on."""
    torch.manual_seed(0)
    table = torch.tensor(read_california().to_numpy(dtype=np.float32))
    table = table[torch.randperm(len(table))]
    table = (table - table.mean(dim=0)) / table.std(dim=0)
    X, y = table[:, :-1], table[:, -1:]
    network = Perceptron(8, 128, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(30):
        for part in torch.randperm(15_000).split(256):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(X[part]), y[part]).backward()
            optimizer.step()
    return network.eval(), X[15_000:].numpy()


def load_held_out_digits():
    """Return a network, and digits that it was not trained on."""
    network, _, held_out = train_digits_network()
    return network, held_out.numpy()


CASES = {
    "digits, MLP 64-128-128-10": (load_held_out_digits, "predicted"),
    "digits, MLP 64-128-128-10, all outputs": (load_held_out_digits, "all"),
    "California housing, MLP 8-128-128-1": (train_housing_network, "all"),
}


def compute_scores(network, output, X, parameter, seed):
    """Return the mean log density of held-out samples for each value of a parameter."""
    density = NetworkDensity(network, output, method=METHODS[parameter], random_state=seed)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(density, {parameter: GRIDS[parameter]}, cv=folds, refit=False).fit(X)
    return search.cv_results_["mean_test_score"] / (len(X) / FOLDS)


def generate_rows(quick):
    """Yield the rows of the table of scores."""
    for name, (load, output) in CASES.items():
        network, X = load()
        X = X[: SAMPLES // QUICK if quick else SAMPLES]
        for parameter, grid in GRIDS.items():
            runs = [compute_scores(network, output, X, parameter, seed) for seed in SEEDS]
            best = int(runs[0].argmax())
            cells = [f"{value:g}: {score:.2f}" for value, score in zip(grid, runs[0], strict=True)]
            cells[best] = f"**{cells[best]}**"
            yield format_row(
                name,
                f"{len(X):,}",
                parameter,
                ", ".join(cells),
                "yes" if 0 < best < len(grid) - 1 else "no",
                "yes" if np.array_equal(*runs) else "no",
            )


def make_density_pipeline(network, folder):
    """Make a pipeline of features, which are cached in a folder, and a density over them."""
    featurizer = GradientFeaturizer(
        network, "predicted", n_components=COMPONENTS, memory=folder, random_state=0
    )
    return make_pipeline(featurizer, NetworkDensity("features", method="threshold"))


def measure_grid(quick):
    """Return the seconds of one pass for each fold and of a whole grid, and the sample count.

    The grid begins with an empty cache; the passes have none.
    """
    network = load_mnist_network()
    X = load_mnist("train", GRID_SAMPLES // QUICK if quick else GRID_SAMPLES).inputs
    grid = {"networkdensity__threshold": np.linspace(0.5, 0.975, SETTINGS)}

    def featurize_folds():
        for train, test in KFold(FOLDS).split(X):
            featurizer = make_density_pipeline(network, None)[0]
            featurizer.fit_transform(X[train])
            featurizer.transform(X[test])

    def search_grid(folder):
        pipeline = make_density_pipeline(network, folder)
        GridSearchCV(pipeline, grid, cv=FOLDS, refit=False).fit(X)

    folds_seconds = measure_seconds(featurize_folds)
    with tempfile.TemporaryDirectory() as folder:
        grid_seconds = measure_seconds(search_grid, folder)
    return folds_seconds, grid_seconds, len(X)


def generate_report(quick):
    """Yield the report, line by line."""
    yield from format_title(__file__, "Grid searches over densities", ("scikit-learn", "numpy"))
    yield (
        f"Mean log density (nats) of the held-out samples in {FOLDS} folds; the network was trained"
        " on none of the samples. An inner optimum is a best value that is neither the first nor"
        " the last of the grid. The last column compares `random_state` 0 and 1."
    )
    yield ""
    yield from format_header(
        (
            "network and data",
            "samples",
            "parameter",
            "scores",
            "inner optimum",
            "equal for two seeds",
        )
    )
    yield from generate_rows(quick)
    folds_seconds, grid_seconds, count = measure_grid(quick)
    yield ""
    yield (
        f"A grid of {SETTINGS} thresholds x {FOLDS} folds on {count:,} images of MNIST,"
        f" {COMPONENTS} features of the third-party CNN's predicted logit, with"
        f" `GradientFeaturizer(memory=...)`: {grid_seconds:.1f} s; fitting and transforming each"
        f" fold once: {folds_seconds:.1f} s; ratio {grid_seconds / folds_seconds:.2f}."
    )


if __name__ == "__main__":
    write_report(__file__, __doc__, "a fifth of the samples", generate_report)
