"""
Where does a network follow the noise, and where does it miss what labels say?
==============================================================================

Three perceptrons learn two periods of a sine from labels with noise. `FitDiagnostics` looks at the
labels and predictions of the nearest neighbours of each sample in the network's own eyes, and knows
neither the sine nor other data. Predictions that vary among neighbours as labels do follow the
noise: overfit. Residuals that neighbours have in common are no noise: underfit.

**Trained too short**, the network misses the extremes, and there 47 % of the samples lie in
underfit regions; **well**, none; **too long on too little**, it runs through the labels, and 63 %
lie in overfit ones. All three estimate noise that is .09 to .13 of the labels' variance; it is .15.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import FitDiagnostics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NOISE = 0.3
#: Samples, width of the hidden layers, epochs.
NETWORKS = {"trained too short": (500, 64, 3), "well": (500, 64, 30), "too long": (60, 256, 2_000)}
COLORS = {"fit": "#56B4E9", "overfit": "#D55E00", "underfit": "#CC79A7"}


def circle(angles):
    """Points of a circle; a network sees the end of it next to its beginning."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def noisy_sine(samples, seed=0):
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.uniform(0, 2 * np.pi, samples))
    noise = generator.normal(scale=NOISE, size=samples)
    return angles, (np.sin(2 * angles) + noise).astype("float32")[:, None]


def trained(X, y, width, epochs, seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Linear(2, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
    )
    return NeuralNetRegressor(
        module,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=epochs,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    ).fit(X, y)


def draw(axes, angles, y, net, diagnostics):
    """Labels by their region, the sine they come from, and what the network says."""
    for name, color in COLORS.items():
        inside = diagnostics.region_ == name
        axes.plot(angles[inside], y[inside], ".", color=color, markersize=5, label=name)
    grid = np.linspace(0, 2 * np.pi, 500)
    axes.plot(grid, np.sin(2 * grid), color="0.6", linewidth=3, alpha=0.6, label="sine")
    axes.plot(grid, net.predict(circle(grid)), color="black", linewidth=1, label="network")
    axes.set(xlabel="angle", ylim=(-2.2, 2.2))


def main():
    figure, row = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
    for axes, (name, (samples, width, epochs)) in zip(row, NETWORKS.items(), strict=True):
        angles, y = noisy_sine(samples)
        net = trained(circle(angles), y, width, epochs)
        diagnostics = FitDiagnostics(net).fit(circle(angles), y)
        draw(axes, angles, y, net, diagnostics)
        axes.set_title(f"{name}\n{samples} samples, width {width}, {epochs:,} epochs")
        found = ", ".join(f"{key} {value:.2f}" for key, value in diagnostics.summary().items())
        print(f"{name:<20}{found}")
    row[0].legend(loc="lower left", fontsize=8)
    output = Path(__file__).resolve().parent / "output"
    output.mkdir(exist_ok=True)
    figure.savefig(output / "fit.png", dpi=120)
    print(f"\nWritten: {output / 'fit.png'}")


if __name__ == "__main__":
    main()
