"""
Diagnosing over- and underfitting per sample
============================================

This example finds the samples at which a network follows the noise of its labels (overfit) or
misses their structure (underfit). Three perceptrons learn two periods of a sine from noisy labels:
one is trained too briefly, one well, and one too long on too few samples. `FitDiagnostics` compares
the labels and predictions of each sample with those of its nearest neighbours, according to the
network's similarity. It uses neither the true sine nor other data. It reports underfit for the
first network, overfit for the third, and neither for the second.

If predictions vary among neighbours as much as labels do, the network follows the noise: overfit.
If neighbours have residuals in common, these are not noise: underfit.
``benchmarks/results/fit_diagnostics.md`` contains more networks and seeds, and house prices in
place of the sine.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sknetsim import FitDiagnostics

NOISE = 0.3
#: Number of samples, width of the hidden layers, number of epochs.
NETWORKS = {
    "trained too briefly": (500, 64, 3),
    "trained well": (500, 64, 30),
    "trained too long": (60, 256, 2_000),
}
COLORS = {"fit": "#56B4E9", "overfit": "#D55E00", "underfit": "#CC79A7"}


def map_to_circle(angles):
    """Return points of the unit circle, so that the angles 0 and 2 pi are the same input."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def make_noisy_sine(samples):
    """Return sorted angles and labels with noise."""
    generator = np.random.default_rng(0)
    angles = np.sort(generator.uniform(0, 2 * np.pi, samples))
    noise = generator.normal(scale=NOISE, size=samples)
    return angles, (np.sin(2 * angles) + noise).astype("float32")[:, None]


def train(X, y, width, epochs):
    """Train a perceptron with two hidden layers."""
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
# Noise, overfit and underfit of each network
# -------------------------------------------
# Overfit and underfit are shares. Overfit is 0 if predictions do not follow the noise and 1 if they
# follow it fully. Underfit is 0 if the residuals of neighbours have nothing in common and 1 if they
# are all in common. A region is the share of samples at which overfit or underfit is large. The
# noise is the share of the labels' variance that neighbours do not explain. All three networks
# estimate it somewhat below the true share, which is printed first.

print(f"True share of noise: {NOISE**2 / (0.5 + NOISE**2):.2f}")
fits = {}
for name, (samples, width, epochs) in NETWORKS.items():
    angles, y = make_noisy_sine(samples)
    net = train(map_to_circle(angles), y, width, epochs)
    diagnostics = FitDiagnostics(net).fit(map_to_circle(angles), y)
    fits[name] = angles, y, net, diagnostics.region_
    summary = ", ".join(f"{key} {value:.2f}" for key, value in diagnostics.summary().items())
    print(f"{name:<20}{summary}")

# %%
# Overfit and underfit regions along the sine
# -------------------------------------------
# The network that was trained too briefly misses the extremes of the sine, and the underfit regions
# are there. The network that was trained well has no region of either kind. The network that was
# trained too long on too few samples passes through the labels, and most samples lie in overfit
# regions.

figure, row = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
grid = np.linspace(0, 2 * np.pi, 500)
for axes, (name, (angles, y, net, region)) in zip(row, fits.items(), strict=True):
    for kind, color in COLORS.items():
        inside = region == kind
        axes.plot(angles[inside], y[inside], ".", color=color, markersize=5, label=kind)
    axes.plot(grid, np.sin(2 * grid), color="0.6", linewidth=3, alpha=0.6, label="true sine")
    axes.plot(grid, net.predict(map_to_circle(grid)), color="black", linewidth=1, label="network")
    samples, width, epochs = NETWORKS[name]
    axes.set_title(f"{name}\n{samples} samples, width {width}, {epochs:,} epochs")
    axes.set(xlabel="angle", ylim=(-2.2, 2.2))
row[0].set_ylabel("label")
row[0].legend(loc="lower left", fontsize=8)
plt.show()
