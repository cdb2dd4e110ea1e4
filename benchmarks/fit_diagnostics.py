"""Over- and underfit according to FitDiagnostics, compared with clean or held-out labels.

Writes ``benchmarks/results/fit_diagnostics.md``. With ``--quick`` it only prints, after one seed.
"""

import numpy as np
import torch
from lib import report
from lib.data.tables import load_california
from lib.training import Perceptron
from sklearn.metrics import r2_score
from skorch import NeuralNetRegressor

from sknetsim import FitDiagnostics

SEEDS = 3
COLUMNS = ("R² on its labels", "R² held out", "noise", "overfit", "underfit", "regions")
NOISE = 0.3
#: Samples, hidden width, epochs.
SINE = [
    *((500, 64, epochs) for epochs in (1, 3, 10, 30, 100, 300)),
    *((500, width, 300) for width in (1, 2, 4, 16, 256)),
    *((60, width, 2_000) for width in (4, 16, 64, 256)),
]
CALIFORNIA = [
    *((4_000, 64, epochs) for epochs in (1, 3, 10, 30, 100, 300)),
    *((4_000, width, 100) for width in (1, 2, 8, 256)),
]


def make_sine(count, generator):
    """Make points on a circle with a noisy sine of two periods, and other points without noise."""
    X, clean = evaluate_sine(generator.uniform(0, 2 * np.pi, count))
    noisy = clean + generator.normal(scale=NOISE, size=clean.shape)
    return (X, noisy), evaluate_sine(generator.uniform(0, 2 * np.pi, 1_000))


def evaluate_sine(angles):
    """Return the points (n, 2) at some angles, and the sine of twice the angles (n, 1)."""
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points, np.sin(2 * angles)[:, None]


def sample_california(count, generator):
    """Return some blocks of California housing, and others, clipped at 3 standard deviations."""
    X, y = load_california()
    X = X.clip(-3, 3)
    order = generator.permutation(len(X))
    train, test = order[:count], order[-5_000:]
    return (X[train], y[train]), (X[test], y[test])


def train(X, y, width, epochs, seed):
    """Train a perceptron with two hidden layers at a constant rate."""
    torch.manual_seed(seed)
    return NeuralNetRegressor(
        Perceptron(X.shape[1], width, 1),
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
    ).fit(X, y)


def measure(make, count, width, epochs, seed):
    """Return R² on the training labels and on others, and the values of the summary."""
    parts = make(count, np.random.default_rng(seed))
    (X, y), (X_test, y_test) = ([a.astype(np.float32) for a in part] for part in parts)
    net = train(X, y, width, epochs, seed)
    summary = FitDiagnostics(net).fit(X, y).summary()
    scores = [r2_score(y, net.predict(X)), r2_score(y_test, net.predict(X_test))]
    return [*scores, *summary.values()]


def generate_table(make, networks, seeds):
    """Yield a table with one row for each network."""
    yield from report.format_header(["samples, width, epochs", *COLUMNS])
    for count, width, epochs in networks:
        runs = np.array([measure(make, count, width, epochs, seed) for seed in range(seeds)])
        means, deviations = runs.mean(axis=0), runs.std(axis=0)
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(means[:5], deviations, strict=False)]
        regions = f"{means[5]:.0%} over, {means[6]:.0%} under"
        yield report.format_row(f"{count:,}, {width}, {epochs:,}", *cells, regions)


def generate_report(quick):
    """Yield the report, line by line."""
    seeds = 1 if quick else SEEDS
    packages = ["scikit-learn", "skorch", "numpy"]
    yield from report.format_title(__file__, "Over- and underfit", packages)
    yield (
        "The networks are perceptrons with two hidden layers (Adam, 2e-3, no decay) that are too"
        " small, trained too briefly, trained well, or trained too long on too few samples. The"
        " held-out labels show"
        " which: if R² on the network's own labels is far above R² on the held-out labels, the"
        " network overfits; if both are low, it underfits. The other columns are"
        " `FitDiagnostics.summary()`, which uses only the network's own labels. Cells contain means"
        f" ± standard deviations of {SEEDS} seeds."
    )
    yield from ["", "## Sine of two periods", ""]
    yield (
        f"The labels have noise of variance {NOISE**2:.2f}, a share of"
        f" {NOISE**2 / (0.5 + NOISE**2):.2f} of their variance; the held-out labels are clean."
    )
    yield ""
    yield from generate_table(make_sine, SINE, seeds)
    yield from ["", "## California housing", ""]
    yield "Inputs are clipped at three standard deviations; 5,000 other blocks are held out."
    yield ""
    yield from generate_table(sample_california, CALIFORNIA, seeds)


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "one seed", generate_report)
