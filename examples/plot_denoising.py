"""
Estimating label noise that a network averages out
==================================================

This example measures how much of the noise of its labels a network averages out. A CNN learns how
far a patch of an aerial photograph was displaced, from labels whose noise has a standard deviation
of four pixels. Its predictions are far better than these labels, as if it had averaged the noise
over patches that are similar to it.

`LabelDenoiser` computes this average explicitly. It estimates how much of the noise remains from
the similarities only, without any true label. Here the noise is known, and the estimate agrees well
with the observed noise if some of the noise remains.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from sknetsim import LabelDenoiser
from sknetsim.datasets import load_aerial_photographs, make_displaced_patches

SIDE, REACH = 24, 4  # Side of a patch and largest displacement, in pixels.
NOISE = 4.0  # Standard deviation of the labels' noise, in pixels.
SAMPLES = 3_000
QUERIES = 300  # Samples whose labels are averaged.
EPOCHS = 15
DRAWS = 2


photographs = load_aerial_photographs().values()
images = [photograph.image.mean(axis=2) / 255 for photograph in photographs]
generator = np.random.default_rng(0)
X, clean = make_displaced_patches(images, SAMPLES, generator, SIDE, REACH)
noise = generator.normal(scale=NOISE, size=clean.shape).astype(np.float32)
y = clean + noise

# %%
# Training on noisy displacements
# -------------------------------
# Two convolutions and two linear layers map a patch and the displaced patch to the two numbers of
# the displacement. The learning rate falls to nearly zero, because the identity below holds at a
# stationary point of the training loss.

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
    """Return the root mean square over all rows and columns."""
    return np.sqrt(np.square(values).mean())


predictions = net.predict(X)
X_new, clean_new = make_displaced_patches(images, 1_000, generator, SIDE, REACH)
print("Root mean squares, in pixels:")
print(f"    noise of the labels                      {root_mean_square(noise):.2f}")
print(f"    error of the predictions                 {root_mean_square(predictions - clean):.2f}")
error_new = root_mean_square(net.predict(X_new) - clean_new)
print(f"    error of the predictions, other patches  {error_new:.2f}")

# %%
# Weighted means of the labels
# ----------------------------
# Labels are averaged around some of the samples. The weights of the method "unnormalized" are inner
# products of gradients. At a stationary point of the squared error, the mean of the predictions
# with these weights equals the mean of the labels. The error of a prediction, compared with the
# mean of the true labels, is therefore the sum of
#
# - the noise that remains in the mean of the labels, and
# - the shift: the prediction minus the mean of the predictions around it.
#
# The weights of the method "power" are powers of the similarities. The higher the power, the more
# the mean is restricted to close neighbours.
#
# The table shows for each method the error of the means of labels; their difference from the means
# of predictions; the shift; and the true shift, which is the prediction minus the mean of the true
# labels. Means are linear in the labels: the mean of the true labels is the mean of the noisy
# labels minus the mean of their noise.

METHODS = {
    "unnormalized": {"method": "unnormalized"},
    "power 8": {"method": "power", "alpha": 8},
    "power 16": {"method": "power", "alpha": 16},
    "power 32": {"method": "power", "alpha": 32},
}
queries, true_labels = X[:QUERIES], clean[:QUERIES]


def fit_denoiser(name, labels):
    """Fit one of METHODS on some labels; the distance from a stationary point is printed below."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LabelDenoiser(net, **METHODS[name]).fit(X, labels)


fitted = {name: fit_denoiser(name, y) for name in METHODS}
denoised = {name: fitted[name].denoising(queries) for name in METHODS}
remaining = {name: fit_denoiser(name, noise).transform(queries) for name in METHODS}
print("Root mean squares, in pixels:    error of means    from predictions    shift    true shift")
for name, means in denoised.items():
    # mean of true labels = mean of labels - mean of noise
    true_shift = predictions[:QUERIES] - (means.labels - remaining[name])
    values = (means.labels - true_labels, means.labels - means.predictions, means.shift, true_shift)
    cells = [f"{root_mean_square(value):.2f}" for value in values]
    print(f"    {name:<29}{cells[0]:>13}{cells[1]:>20}{cells[2]:>9}{cells[3]:>14}")
print(f"Distance from a stationary point: {fitted['unnormalized'].stationarity_:.2f}")

# %%
# With the unnormalized weights, the means of labels and of predictions nearly agree; at a
# stationary point they would be equal. The difference between a prediction and the mean of the true
# labels is therefore hardly noise but shift, which is computed without true labels and is as large
# as the true shift. These weights smooth far more than the network does, however, and their means
# are much worse than its predictions.
#
# A power of 16 smooths about as much as the network does. A smaller power smooths too much, and
# with a larger one the mean contains little more than the label of the sample itself.

errors = {
    "labels": y[:QUERIES] - true_labels,
    "means of labels, unnormalized": denoised["unnormalized"].labels - true_labels,
    "means of labels, power 16": denoised["power 16"].labels - true_labels,
    "predictions": predictions[:QUERIES] - true_labels,
}
figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
axes.set_prop_cycle(color=["#999999", "#009E73", "#0072B2", "#D55E00"])
for name, error in errors.items():
    axes.plot(np.sort(np.hypot(*error.T)), np.linspace(0, 1, QUERIES), label=name)
axes.set(xlim=(0, 3 * NOISE), xlabel="error (pixels)", ylabel="share of samples up to this error")
axes.legend()
plt.show()

# %%
# Predicted and observed noise of the means
# -----------------------------------------
# `Denoising.variance_factor` estimates the share of the noise's variance that remains in a mean,
# from the similarities only. The mean of the noise itself gives the observed share: for the noise
# that the network has learnt from, and for new noise of the same size.
#
# The predicted and observed shares of the standard deviation agree well if some of the noise
# remains. If nearly all of it averages out, they agree in order of magnitude, because a share this
# small differs from draw to draw. ``benchmarks/results/denoising.md`` contains a network for film
# reviews and a power with which several times as much noise remains as predicted. This concerns the
# noise that the network has learnt from, and not new noise.

predicted = [np.sqrt(means.variance_factor.mean()) for means in denoised.values()]
learnt = [root_mean_square(means) / root_mean_square(noise) for means in remaining.values()]
draws = [generator.normal(scale=NOISE, size=clean.shape) for _ in range(DRAWS)]
new = [
    [
        root_mean_square(fit_denoiser(name, draw).transform(queries)) / root_mean_square(draw)
        for draw in draws
    ]
    for name in METHODS
]
print("Share of the noise:    predicted    learnt    new")
figure, axes = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
for name, *shares in zip(METHODS, predicted, learnt, new, strict=True):
    print(f"    {name:<19}{shares[0]:>9.3f}{shares[1]:>10.3f}", *(f"{x:8.3f}" for x in shares[2]))
    axes.annotate(name, shares[:2], (8, -12), textcoords="offset points")
axes.plot(np.repeat(predicted, DRAWS), np.ravel(new), "o", mfc="none", mec="#0072B2", label="new")
axes.plot(predicted, learnt, "x", color="#D55E00", label="used for training")
axes.axline((0.1, 0.1), slope=1, color="black", linewidth=0.8)
axes.set(xscale="log", yscale="log", xlim=(0.01, 3))
axes.set(xlabel="predicted share of the noise", ylabel="observed share of the noise")
axes.legend(title="noise")
plt.show()
