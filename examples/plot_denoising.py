"""
A network that is better than its labels
========================================

A network learns by how far a patch of an aerial photograph was moved, from labels that are off by
several pixels. Its predictions are far better than these labels, as if it had averaged out their
noise over patches that it finds similar.

`LabelDenoiser` does this average in the open. It tells from the similarities alone, without any
true label, how much of the noise is left in it. Here the noise is known, and that can be checked.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from _aerial import PHOTOGRAPHS, displaced, photograph
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from sknetsim import LabelDenoiser

SIDE, REACH = 24, 4  # Of a patch, and how far its copy is moved at most, in pixels.
NOISE = 4.0  # Standard deviation of the labels' noise, in pixels.
SAMPLES = 3_000
QUERIES = 300  # Samples around which means are taken.
EPOCHS = 15
DRAWS = 2


images = [photograph(name).image.mean(axis=2) / 255 for name in PHOTOGRAPHS]
generator = np.random.default_rng(0)
X, clean = displaced(images, SAMPLES, generator, SIDE, REACH)
noise = generator.normal(scale=NOISE, size=clean.shape).astype(np.float32)
y = clean + noise

# %%
# Better than the labels
# ----------------------
# Two convolutions and two layers, from a patch and its copy to the two numbers of the displacement.
# The learning rate falls to nearly nothing: the identity below holds where training has come to
# rest.

torch.manual_seed(0)
convolutions = [nn.Conv2d(2, 24, 7, 2, 3), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU()]
head = [nn.Flatten(), nn.Linear(32 * (SIDE // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 2)]
net = NeuralNetRegressor(
    nn.Sequential(*convolutions, *head),
    optimizer=torch.optim.Adam,
    lr=1e-3,
    max_epochs=EPOCHS,
    batch_size=64,
    iterator_train__shuffle=True,
    train_split=None,
    callbacks=[("decay", LRScheduler(LinearLR, end_factor=0.01, total_iters=EPOCHS))],
    callbacks__print_log=None,
    verbose=0,
).fit(X, y)


def root_mean_square(values):
    """Over all rows and columns."""
    return np.sqrt(np.square(values).mean())


predictions = net.predict(X)
X_new, clean_new = displaced(images, 1_000, generator, SIDE, REACH)
print("Root mean squares, in pixels:")
print(f"    noise of the labels           {root_mean_square(noise):.2f}")
print(f"    error of the predictions      {root_mean_square(predictions - clean):.2f}")
print(f"    the same for other patches    {root_mean_square(net.predict(X_new) - clean_new):.2f}")

# %%
# Means of labels
# ---------------
# A mean of labels is taken around some of the samples. With "unnormalized" the weights are products
# of gradients. At a stationary point of the squared error the mean of the predictions is then the
# mean of the labels, so that a prediction errs, against the mean of the true labels, by
#
# - the noise that is left in the mean of labels, and
# - the shift: the prediction less the mean of the predictions around it.
#
# With "power" the weights are powers of the similarities, and close neighbours count alone, the
# more so the higher the power.
#
# Of each method: the error of the means of labels; how far they are from the means of predictions;
# the shift; and the shift as it truly is, the prediction less the mean of the true labels. Means
# are linear in the labels: that of the true ones is that of the labels, less that of their noise.

METHODS = {
    "unnormalized": {"method": "unnormalized"},
    "power 8": {"method": "power", "alpha": 8},
    "power 16": {"method": "power", "alpha": 16},
    "power 32": {"method": "power", "alpha": 32},
}
queries, truth = X[:QUERIES], clean[:QUERIES]


def denoiser(name, labels):
    """One of METHODS, with such labels; how far training is from its end is printed below."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LabelDenoiser(net, **METHODS[name]).fit(X, labels)


fitted = {name: denoiser(name, y) for name in METHODS}
found = {name: fitted[name].denoising(queries) for name in METHODS}
left = {name: denoiser(name, noise).transform(queries) for name in METHODS}
print("Root mean squares, in pixels:    error of means    from predictions    shift    true shift")
for name, means in found.items():
    true_shift = predictions[:QUERIES] - (means.labels - left[name])
    values = (means.labels - truth, means.labels - means.predictions, means.shift, true_shift)
    cells = [f"{root_mean_square(value):.2f}" for value in values]
    print(f"    {name:<29}{cells[0]:>13}{cells[1]:>20}{cells[2]:>9}{cells[3]:>14}")
print(f"Distance from a stationary point: {fitted['unnormalized'].stationarity_:.2f}")

# %%
# By the unnormalized weights the means of labels and of predictions nearly agree; at a stationary
# point they would be equal. So what separates a prediction from the mean of the true labels is
# hardly noise, but shift: known without true labels, and as large as it truly is. But these weights
# smooth far more than the network does, and their means are much worse than its predictions.
#
# A power of 16 does about what the network does. A smaller one smooths too much, a larger one
# leaves each sample nearly alone with its label.

errors = {
    "labels": y[:QUERIES] - truth,
    "means of labels, unnormalized": found["unnormalized"].labels - truth,
    "means of labels, power 16": found["power 16"].labels - truth,
    "predictions": predictions[:QUERIES] - truth,
}
figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
axes.set_prop_cycle(color=["#999999", "#009E73", "#0072B2", "#D55E00"])
for name, error in errors.items():
    axes.plot(np.sort(np.hypot(*error.T)), np.linspace(0, 1, QUERIES), label=name)
axes.set(
    xlim=(0, 3 * NOISE), xlabel="error, in pixels", ylabel="share of samples with at most this"
)
axes.legend()
plt.show()

# %%
# Predicted and observed noise
# ----------------------------
# `Denoising.variance_factor` says how much of the noise's variance a mean keeps, from the
# similarities alone. The mean of the noise by itself shows how much it is: of the noise that the
# network has learnt from, and of fresh noise of the same size.
#
# Predicted and observed shares of the standard deviation agree well where some of the noise is
# left. Where nearly all of it averages out they agree in order of magnitude: so small a share
# differs from draw to draw. In ``benchmarks/results/denoising.md`` there is a network of
# film reviews and a power by which several times as much is left as predicted of the noise that
# it has learnt from, though not of fresh noise.

predicted = [np.sqrt(means.variance_factor.mean()) for means in found.values()]
learnt = [root_mean_square(means) / root_mean_square(noise) for means in left.values()]
draws = [generator.normal(scale=NOISE, size=clean.shape) for _ in range(DRAWS)]
fresh = [
    [
        root_mean_square(denoiser(name, draw).transform(queries)) / root_mean_square(draw)
        for draw in draws
    ]
    for name in METHODS
]
print("Share of the noise:    predicted    learnt    fresh")
figure, axes = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
for name, *shares in zip(METHODS, predicted, learnt, fresh, strict=True):
    print(f"    {name:<19}{shares[0]:>9.3f}{shares[1]:>10.3f}", *(f"{x:8.3f}" for x in shares[2]))
    axes.annotate(name, shares[:2], (8, -12), textcoords="offset points")
axes.plot(
    np.repeat(predicted, DRAWS), np.ravel(fresh), "o", mfc="none", mec="#0072B2", label="fresh"
)
axes.plot(predicted, learnt, "x", color="#D55E00", label="the network has learnt from it")
axes.axline((0.1, 0.1), slope=1, color="black", linewidth=0.8)
axes.set(xscale="log", yscale="log", xlim=(0.01, 3))
axes.set(xlabel="predicted share of the noise", ylabel="observed share of the noise")
axes.legend(title="noise")
plt.show()
