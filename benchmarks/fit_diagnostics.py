"""Over- and underfit as FitDiagnostics sees them, where it is known from clean or held-out labels.

Writes ``benchmarks/fit_diagnostics.md``. With ``--quick`` it only prints, one seed.
"""

import numpy as np
import torch
from lib import report
from lib.data.tables import california
from sklearn.metrics import r2_score
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import FitDiagnostics

SEEDS = 3
COLUMNS = ("R² on its labels", "R² held out", "noise", "overfit", "underfit", "regions")
NOISE = 0.3
#: Rows, hidden width, epochs.
SWEEP = [
    *((500, 64, epochs) for epochs in (1, 3, 10, 30, 100, 300)),
    *((500, width, 300) for width in (1, 2, 4, 16, 256)),
    *((60, width, 2_000) for width in (4, 16, 64, 256)),
]
CALIFORNIA = [
    *((4_000, 64, epochs) for epochs in (1, 3, 10, 30, 100, 300)),
    *((4_000, width, 100) for width in (1, 2, 8, 256)),
]


def sine(rows, generator):
    """Points of a circle, two periods of a sine with noise, and the same without for others."""
    X, clean = wave(generator.uniform(0, 2 * np.pi, rows))
    noisy = clean + generator.normal(scale=NOISE, size=clean.shape)
    return (X, noisy), wave(generator.uniform(0, 2 * np.pi, 1_000))


def wave(angles):
    """Points, and the sine of twice their angle."""
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points, np.sin(2 * angles)[:, None]


def houses(rows, generator):
    """Rows of California housing, and others; inputs beyond three standard deviations cut off."""
    X, y = california()
    X = X.clip(-3, 3)
    order = generator.permutation(len(X))
    train, test = order[:rows], order[-5_000:]
    return (X[train], y[train]), (X[test], y[test])


def trained(X, y, width, epochs, seed):
    """A perceptron of two hidden layers after some epochs at a constant rate."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(X.shape[1], width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
    )
    return NeuralNetRegressor(
        network,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
    ).fit(X, y)


def measured(make, rows, width, epochs, seed):
    """R² on its own labels and on others, and the summary."""
    parts = make(rows, np.random.default_rng(seed))
    (X, y), (others, labels) = ([a.astype(np.float32) for a in part] for part in parts)
    net = trained(X, y, width, epochs, seed)
    found = FitDiagnostics(net).fit(X, y).summary()
    return [r2_score(y, net.predict(X)), r2_score(labels, net.predict(others)), *found.values()]


def table(make, sweep, seeds):
    """A line for each network."""
    yield from report.head(["rows, width, epochs", *COLUMNS])
    for rows, width, epochs in sweep:
        runs = np.array([measured(make, rows, width, epochs, seed) for seed in range(seeds)])
        means, spreads = runs.mean(axis=0), runs.std(axis=0)
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(means[:5], spreads, strict=False)]
        regions = f"{means[5]:.0%} over, {means[6]:.0%} under"
        yield report.row(f"{rows:,}, {width}, {epochs:,}", *cells, regions)


def lines(quick):
    """The whole text, line by line."""
    seeds = 1 if quick else SEEDS
    yield "# Over- and underfit"
    yield ""
    yield f"{report.setting(['scikit-learn', 'skorch', 'numpy'])}."
    yield ""
    yield (
        "Perceptrons of two hidden layers (Adam, 2e-3, no decay) that are too small, trained for"
        " too short, well, or for too long on too little. What is held out says which: R² on the"
        " network's own labels far above that on others is overfit, both low is underfit. The other"
        " columns are of FitDiagnostics, which sees the network's own labels alone: `summary()`."
        f" Means ± standard deviations of {SEEDS} seeds."
    )
    yield from ["", "## Sine of two periods", ""]
    yield (
        f"Labels with noise of variance {NOISE**2:.2f}, a share of"
        f" {NOISE**2 / (0.5 + NOISE**2):.2f} of theirs; held-out ones are clean."
    )
    yield ""
    yield from table(sine, SWEEP, seeds)
    yield from [
        "",
        "## California housing",
        "",
        "Inputs are cut off at three standard deviations. Held out: 5,000 other blocks.",
        "",
    ]
    yield from table(houses, CALIFORNIA, seeds)


if __name__ == "__main__":
    report.run(__file__, __doc__, "one seed", lines)
