"""
Where does a network follow the noise, and where does it miss what labels say?
==============================================================================

Three perceptrons learn two periods of a sine from labels with noise. `FitDiagnostics` looks at the
labels and predictions of the nearest neighbours of each sample in the network's own eyes, and knows
neither the sine nor other data. Predictions that vary among neighbours as labels do follow the
noise: overfit. Residuals that neighbours have in common are no noise: underfit.

``benchmarks/results/fit_diagnostics.md`` has more networks and seeds, and houses in
place of the sine.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import FitDiagnostics

NOISE = 0.3
#: Samples, width of the hidden layers, epochs.
NETWORKS = {
    "trained too short": (500, 64, 3),
    "trained well": (500, 64, 30),
    "trained too long": (60, 256, 2_000),
}
COLORS = {"fit": "#56B4E9", "overfit": "#D55E00", "underfit": "#CC79A7"}


def circle(angles):
    """Points of a circle; a network sees the end of it next to its beginning."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def noisy_sine(samples):
    """Angles in order, and labels with noise."""
    generator = np.random.default_rng(0)
    angles = np.sort(generator.uniform(0, 2 * np.pi, samples))
    noise = generator.normal(scale=NOISE, size=samples)
    return angles, (np.sin(2 * angles) + noise).astype("float32")[:, None]


def trained(X, y, width, epochs):
    """A perceptron of two hidden layers after so many epochs."""
    torch.manual_seed(0)
    layers = [nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return NeuralNetRegressor(
        nn.Sequential(*layers, nn.Linear(width, 1)),
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=epochs,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    ).fit(X, y)


# %%
# What the diagnostics say
# ------------------------
# Overfit and underfit are shares: 0 where all is well, 1 where predictions follow the noise, or
# where neighbours have all of their residuals in common. The regions are the shares of samples that
# lie where either is large. The noise is the share of the labels' variance that neighbours do not
# explain. All three networks estimate it somewhat below the true share, which is printed first.

print(f"true share of noise {NOISE**2 / (0.5 + NOISE**2):.2f}")
fits = {}
for name, (samples, width, epochs) in NETWORKS.items():
    angles, y = noisy_sine(samples)
    net = trained(circle(angles), y, width, epochs)
    diagnostics = FitDiagnostics(net).fit(circle(angles), y)
    fits[name] = angles, y, net, diagnostics.region_
    found = ", ".join(f"{key} {value:.2f}" for key, value in diagnostics.summary().items())
    print(f"{name:<20}{found}")

# %%
# Where it happens
# ----------------
# Trained too short, the network misses the extremes, and the underfit regions are there. Trained
# well, it has neither kind. Trained for too long on too little, it runs through the labels, and
# most samples lie in overfit regions.

figure, row = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
grid = np.linspace(0, 2 * np.pi, 500)
for axes, (name, (angles, y, net, region)) in zip(row, fits.items(), strict=True):
    for kind, color in COLORS.items():
        inside = region == kind
        axes.plot(angles[inside], y[inside], ".", color=color, markersize=5, label=kind)
    axes.plot(grid, np.sin(2 * grid), color="0.6", linewidth=3, alpha=0.6, label="sine")
    axes.plot(grid, net.predict(circle(grid)), color="black", linewidth=1, label="network")
    samples, width, epochs = NETWORKS[name]
    axes.set_title(f"{name}\n{samples} samples, width {width}, {epochs:,} epochs")
    axes.set(xlabel="angle", ylim=(-2.2, 2.2))
row[0].set_ylabel("label")
row[0].legend(loc="lower left", fontsize=8)
plt.show()
