"""
Neighbour counts and the frequency of the target function
=========================================================

This example measures how the number of similar samples depends on the function that a network has
learnt. A perceptron learns sin(2 pi f a) from the point (cos 2 pi a, sin 2 pi a) of the unit
circle. This is the toy problem of [1]_ with its network, data and loss, and with 960 steps at a
decaying learning rate of 1e-3 in place of 160,000 at 1e-4.

The higher the frequency f, the fewer neighbours a sample has, by every way to count. For a given
frequency, neighbours are also fewer in the bends of the curve, but which way to count shows this
depends on f.

.. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural Network
   Perspective", NeurIPS 2019.
"""

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
N_SAMPLES = 2_048
EPOCHS = 30
#: Processes that share the runs; -1: one per core.
JOBS = -1
#: Ways to count. The dimension is 1 and not estimated, because the inputs lie on a curve.
COUNTS = {
    "soft": {"method": "soft"},
    "power 2": {"method": "power", "alpha": 2.0, "dimension": 1.0},
    "threshold .7": {"method": "threshold", "threshold": 0.7, "dimension": 1.0},
    "threshold .95": {"method": "threshold", "threshold": 0.95, "dimension": 1.0},
}
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
#: Ways to count that are drawn along the curve.
DRAWN = ("soft", "threshold .95")

# %%
# Curves and network
# ------------------
# The samples lie on the circle or, for comparison, on a line. The curvature of the target function
# is known: abs(y'') / (1 + y'^2)^(3/2).


def map_to_circle(locations):
    """Return points of the unit circle for locations in [0, 1)."""
    return np.stack([np.cos(2 * np.pi * locations), np.sin(2 * np.pi * locations)], axis=1)


def map_to_line(locations):
    """Return the locations, rescaled to [-1, 1)."""
    return 2 * locations[:, None] - 1


def make_sine(frequency, n_samples=N_SAMPLES, map_inputs=map_to_circle):
    """Return sorted locations in [0, 1) of a Sobol sequence, with their inputs and labels."""
    locations = np.sort(qmc.Sobol(1, scramble=False).random(n_samples)[:, 0])
    y = np.sin(2 * np.pi * frequency * locations)[:, None]
    return locations, map_inputs(locations).astype(np.float32), y.astype(np.float32)


def compute_curvature(frequency, locations):
    """Return the curvature of y = sin(2 pi f a)."""
    rate = 2 * np.pi * frequency
    slope = rate * np.cos(rate * locations)
    # abs(y'') / (1 + y'^2)^(3/2)
    return rate**2 * np.abs(np.sin(rate * locations)) / (1 + slope**2) ** 1.5


def make_perceptron(n_inputs, n_hidden=6, width=64):
    """Return an untrained perceptron; on the circle it has 21,057 parameters, as in the paper."""
    layers = [nn.Linear(n_inputs, width), nn.ReLU()]
    for _ in range(n_hidden - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def train(X, y, epochs, seed):
    """Train a perceptron without changing the caller's random state."""
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
        # Batches of tensors are made faster than batches of arrays.
        return net.fit(torch.as_tensor(X), torch.as_tensor(y))


def run(
    frequency, seed, n_samples=N_SAMPLES, epochs=EPOCHS, counts=COUNTS, map_inputs=map_to_circle
):
    """Return the training error of one network, and its neighbours by each way to count."""
    _, X, y = make_sine(frequency, n_samples, map_inputs)
    net = train(X, y, epochs, seed)
    neighbors = {
        name: NetworkDensity(net, **options).fit(X).neighbor_count(X)
        for name, options in counts.items()
    }
    return np.abs(net.predict(X) - y).mean(), neighbors


# %%
# Neighbour counts and curvature
# ------------------------------
# The table shows the mean number of neighbours by each way to count, and Spearman's correlation of
# the number with the curvature, which is negative if neighbours are fewer in the bends. The values
# are the median and the range of the runs. The last task has the same curve, learnt from the
# location a itself.


def compute_mean_counts(runs, name):
    """Return the mean number of neighbours of each run."""
    return np.array([neighbors[name].mean() for _, neighbors in runs])


def compute_correlations(frequency, runs, name):
    """Return Spearman's correlation of neighbours and curvature of each run."""
    counts = [neighbors[name] for _, neighbors in runs]
    curvature = compute_curvature(frequency, make_sine(frequency, len(counts[0]))[0])
    return np.array([spearmanr(count, curvature).statistic for count in counts])


def format_range(values, form):
    """Format the median and the range of some values."""
    return f"{np.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def print_table(task, frequency, runs):
    """Print a row for each way to count."""
    print(f"\n{task}: training error {format_range([error for error, _ in runs], '.4f')}")
    for name in COUNTS:
        means = format_range(compute_mean_counts(runs, name), ",.0f")
        correlations = format_range(compute_correlations(frequency, runs, name), "+.2f")
        print(f"    {name:<16}{means:<24}{correlations}")


if __name__ == "__main__":
    tasks = {f"f = {frequency}": (frequency, map_to_circle) for frequency in FREQUENCIES}
    tasks["f = 1, learnt from a itself"] = (1, map_to_line)
    results = {}
    for task, (frequency, map_inputs) in tasks.items():
        jobs = (delayed(run)(frequency, seed, map_inputs=map_inputs) for seed in range(RUNS))
        results[task] = Parallel(n_jobs=JOBS)(jobs)
        print_table(task, frequency, results[task])
    on_circle = {frequency: results[f"f = {frequency}"] for frequency in FREQUENCIES}

# %%
# Neighbour counts by frequency
# -----------------------------
# Neighbours become fewer as the frequency rises, by every way to count.

if __name__ == "__main__":
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, color, marker in zip(COUNTS, COLORS, "osD^", strict=True):
        means = np.array([compute_mean_counts(runs, name) for runs in on_circle.values()])
        median = np.median(means, axis=1)
        extent = [median - means.min(axis=1), means.max(axis=1) - median]
        axes.errorbar(FREQUENCIES, median, extent, color=color, marker=marker, capsize=4)
        end = (FREQUENCIES[-1], median[-1])
        axes.annotate(name, end, (10, 0), textcoords="offset points", va="center")
    axes.set(xscale="log", yscale="log", xlim=(0.9, 14), xlabel="frequency f")
    axes.set_xticks(FREQUENCIES, FREQUENCIES)
    axes.set_yticks((50, 100, 200, 500, 1000), ("50", "100", "200", "500", "1,000"))
    axes.minorticks_off()
    axes.set_ylabel(f"mean number of neighbours among {N_SAMPLES:,} samples")
    axes.set_title(f"Median and range of {RUNS} runs")
    plt.show()

# %%
# Neighbour counts along the curve
# --------------------------------
# The soft count is lower in the bends for the lower frequencies, but not for the higher ones. It
# sums the similarities to all samples of the circle. As f rises, more and more of this sum comes
# from samples that are not close, and it varies slowly along the circle, with the initial weights.
# For f = 4 there are still narrow dips on these waves.
#
# Close neighbours, with a similarity of at least .95, are fewer in the bends for the higher
# frequencies, but not for f = 1. There the label is a coordinate of the input, so the network can
# output it without bending. If it has to learn the same curve from a itself, as in the last task of
# the table, close neighbours are fewer in the bends, while the soft count no longer shows this.
#
# A caution: on a sine, the curvature grows with abs(y), so that no rank correlation can distinguish
# the two. The soft count for f = 1 seems to follow abs(y): samples with labels near 0 are similar
# both to samples with labels near 1 and to samples with labels near -1, which have little in
# common.


def plot_location(axes, frequency, runs, name):
    """Draw the neighbours of each sample in front of the curvature."""
    locations = make_sine(frequency)[0]
    counts = np.array([neighbors[name] for _, neighbors in runs])
    background = axes.twinx()
    background.fill_between(locations, compute_curvature(frequency, locations), color="0.85")
    background.set(yscale="log", ylabel="curvature", ylim=(1e-2, 1e4))
    axes.set_zorder(background.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(locations, counts.T, color=COLORS[0], linewidth=0.6, alpha=0.5)
    axes.plot(locations, np.median(counts, axis=0), color="black", linewidth=1.5)
    correlation = format_range(compute_correlations(frequency, runs, name), "+.2f")
    axes.set_title(f"f = {frequency}, {name}: Spearman {correlation}", fontsize=10)
    axes.set_ylabel("neighbours")


if __name__ == "__main__":
    size = {"figsize": (11, 2.5 * len(FREQUENCIES))}
    figure, grid = plt.subplots(len(FREQUENCIES), 2, sharex=True, layout="constrained", **size)
    for row, (frequency, runs) in zip(grid, on_circle.items(), strict=True):
        for axes, name in zip(row, DRAWN, strict=True):
            plot_location(axes, frequency, runs, name)
    for axes in grid[-1]:
        axes.set_xlabel("location a")
    figure.suptitle("Neighbours of a sample: each run (blue), median (black); curvature (grey)")
    plt.show()
