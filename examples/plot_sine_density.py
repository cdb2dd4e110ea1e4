"""
The faster a function turns, the fewer neighbours
=================================================

A network learns sin(2 pi f a) from the point (cos 2 pi a, sin 2 pi a) of the unit circle. How many
of its samples does it then find similar to each other? This is the toy problem of [1]_, with its
network, data and loss, and 960 steps at a decaying rate of 1e-3 in place of 160,000 at 1e-4.

**The higher f, the fewer neighbours**, by every way to count: softly 1,297, 1,122, 805 and 650 of
2,048 for f = 1, 2, 4 and 8. An untrained network finds nearly all of them similar.

**Within one f, fewer neighbours where the curve bends**: which way to count shows it depends on f.

- The soft count shows it for f = 1 and 2 (Spearman correlation with the curvature -0.99 and -0.86)
  and not for f = 4 and 8 (-0.04 and +0.05). It adds up similarities with the whole circle, more
  and more of them with samples that are not close; their sum varies slowly along the circle, with
  the initial weights. For f = 4 there still are narrow dips on the waves, for f = 8 none.
- Close neighbours, of a similarity of at least .95, show it for f = 2, 4 and 8 (-0.84, -0.88 and
  -0.58) and not for f = 1 (+0.73). There the label is a coordinate of the input, and a network
  need not bend to give it. If it has to learn the same curve from a itself, close neighbours are
  fewer where it bends (-0.75), while the soft count no longer shows it (-0.02).

A caution: on a sine the curvature grows with abs(y), so that no rank correlation can tell the two
apart. The soft count for f = 1 seems to follow abs(y): samples with labels near 0 are similar both
to those near 1 and to those near -1, which have little in common.

.. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural Network
   Perspective", NeurIPS 2019.
"""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.stats import qmc, spearmanr
from skorch import NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn

from sknetsim import NetworkDensity

FREQUENCIES = (1, 2, 4, 8)
RUNS = 5
N_SAMPLES = 2048
EPOCHS = 30

#: Ways to count. Inputs lie on a curve: its dimension need not be estimated.
COUNTS = {
    "soft": {"method": "soft"},
    "power 2": {"method": "power", "alpha": 2.0, "dimension": 1.0},
    "threshold .7": {"method": "threshold", "threshold": 0.7, "dimension": 1.0},
    "threshold .95": {"method": "threshold", "threshold": 0.95, "dimension": 1.0},
}
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
CORRELATED = ("soft", "threshold .95")


def circle(locations):
    return np.stack([np.cos(2 * np.pi * locations), np.sin(2 * np.pi * locations)], axis=1)


def line(locations):
    return 2 * locations[:, None] - 1


def make_sine(frequency, n_samples=N_SAMPLES, inputs=circle):
    """Locations in [0, 1) of a Sobol sequence, sorted, with their inputs and labels."""
    locations = np.sort(qmc.Sobol(1, scramble=False).random(n_samples)[:, 0])
    y = np.sin(2 * np.pi * frequency * locations)[:, None]
    return locations, inputs(locations).astype(np.float32), y.astype(np.float32)


def curvature(frequency, locations):
    """|y''| / (1 + y'^2)^(3/2) of y = sin(2 pi f a)."""
    rate = 2 * np.pi * frequency
    slope = rate * np.cos(rate * locations)
    return rate**2 * np.abs(np.sin(rate * locations)) / (1 + slope**2) ** 1.5


def make_perceptron(n_inputs, n_hidden=6, width=64):
    """On the circle 21,057 parameters, as in the paper."""
    layers = [nn.Linear(n_inputs, width), nn.ReLU()]
    for _ in range(n_hidden - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def train(X, y, epochs, seed):
    net = NeuralNetRegressor(
        make_perceptron,
        module__n_inputs=X.shape[1],
        criterion=nn.L1Loss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=1e-3,
        batch_size=64,
        iterator_train__shuffle=True,
        max_epochs=epochs,
        train_split=None,
        callbacks=[LRScheduler("CosineAnnealingLR", T_max=epochs)],
        verbose=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return net.fit(torch.as_tensor(X), torch.as_tensor(y))  # Quicker to batch than arrays.


def run(frequency, seed, n_samples=N_SAMPLES, epochs=EPOCHS, counts=COUNTS, inputs=circle):
    """The error of one network on its samples, and their neighbours by each way to count."""
    _, X, y = make_sine(frequency, n_samples, inputs)
    net = train(X, y, epochs, seed)
    neighbors = {
        name: NetworkDensity(net, **options).fit(X).neighbor_count(X)
        for name, options in counts.items()
    }
    return np.abs(net.predict(X) - y).mean(), neighbors


def mean_counts(runs, name):
    """Mean number of neighbours, a value per run."""
    return np.array([neighbors[name].mean() for _, neighbors in runs])


def correlations(frequency, runs, name):
    """Spearman's correlation of neighbours and curvature, a value per run."""
    counts = [neighbors[name] for _, neighbors in runs]
    expected = curvature(frequency, make_sine(frequency, len(counts[0]))[0])
    return np.array([spearmanr(count, expected).statistic for count in counts])


def spread(values, form):
    return f"{np.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def print_table(task, frequency, runs):
    print(f"\n{task}: training error {spread([error for error, _ in runs], '.4f')}")
    for name in COUNTS:
        means = spread(mean_counts(runs, name), ",.0f")
        print(f"    {name:<16}{means:<24}{spread(correlations(frequency, runs, name), '+.2f')}")


def plot_means(results):
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, color, marker in zip(COUNTS, COLORS, "osD^", strict=True):
        means = np.array([mean_counts(runs, name) for runs in results.values()])
        middle = np.median(means, axis=1)
        extent = [middle - means.min(axis=1), means.max(axis=1) - middle]
        axes.errorbar(FREQUENCIES, middle, extent, color=color, marker=marker, capsize=4)
        axes.annotate(name, (8, middle[-1]), (10, 0), textcoords="offset points", va="center")
    axes.set(xscale="log", yscale="log", xlim=(0.9, 14), xlabel="frequency f")
    axes.set_xticks(FREQUENCIES, FREQUENCIES)
    axes.set_yticks((50, 100, 200, 500, 1000), ("50", "100", "200", "500", "1,000"))
    axes.minorticks_off()
    axes.set_ylabel(f"mean number of neighbours among {N_SAMPLES:,}")
    axes.set_title(f"Median and range of {RUNS} runs")
    return figure


def plot_locations(results):
    figure, grid = plt.subplots(4, 2, figsize=(11, 10), sharex=True, layout="constrained")
    for row, (frequency, runs) in zip(grid, results.items(), strict=True):
        for axes, name in zip(row, CORRELATED, strict=True):
            plot_location(axes, frequency, runs, name)
    for axes in grid[-1]:
        axes.set_xlabel("location a")
    figure.suptitle("Neighbours of a sample: each run (blue) and their median; curvature (grey)")
    return figure


def plot_location(axes, frequency, runs, name):
    locations = make_sine(frequency)[0]
    counts = np.array([neighbors[name] for _, neighbors in runs])
    behind = axes.twinx()
    behind.fill_between(locations, curvature(frequency, locations), color="0.85")
    behind.set(yscale="log", ylabel="curvature", ylim=(1e-2, 1e4))
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(locations, counts.T, color=COLORS[0], linewidth=0.6, alpha=0.5)
    axes.plot(locations, np.median(counts, axis=0), color="black", linewidth=1.5)
    rank = spread(correlations(frequency, runs, name), "+.2f")
    axes.set(ylabel="neighbours", title=f"f = {frequency}, {name}: Spearman {rank}")


def main():
    matplotlib.use("Agg")
    output = Path(__file__).resolve().parent / "output"
    output.mkdir(exist_ok=True)
    print(f"Mean number of neighbours among {N_SAMPLES:,} samples, and Spearman correlation of the")
    print(f"number with the curvature: median and range of {RUNS} runs.")
    tasks = {f"f = {frequency}": (frequency, circle) for frequency in FREQUENCIES}
    tasks["f = 1, learnt from a itself"] = (1, line)
    results = {}
    for task, (frequency, inputs) in tasks.items():
        jobs = (delayed(run)(frequency, seed, inputs=inputs) for seed in range(RUNS))
        results[task] = Parallel(n_jobs=-1)(jobs)
        print_table(task, frequency, results[task])
    on_circle = {frequency: results[f"f = {frequency}"] for frequency in FREQUENCIES}
    plot_means(on_circle).savefig(output / "sine_density_by_frequency.png", dpi=150)
    plot_locations(on_circle).savefig(output / "sine_density_by_location.png", dpi=150)


if __name__ == "__main__":
    main()
