"""
Choosing the density's threshold by cross-validation
====================================================

`NetworkDensity` counts the samples that are similar to a query. A threshold, or the power that
similarities are raised to, sets how similar they must be. This example chooses both by
cross-validation of the log density, as one chooses the bandwidth of any density: the best value is
the one that makes held-out images most likely. The network is a CNN that a third party trained on
MNIST. The best power (32) reaches a higher held-out log density than the best threshold (0.7): 6.54
against 4.85 nats per image.

All images are test images of MNIST, because neither the network nor the density may have been
fitted on the images that are scored.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV

from sknetsim import NetworkDensity, NetworkKernel
from sknetsim.datasets import load_mnist, load_mnist_network

SAMPLES = 1_500
FRESH = 1_000
FOLDS = 5
THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
ALPHAS = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512]

network = load_mnist_network()
images = load_mnist("test", SAMPLES + FRESH)
test, fresh = images.select(slice(SAMPLES)), images.select(slice(SAMPLES, None))

# %%
# Computing the similarities once
# -------------------------------
# ``GridSearchCV(NetworkDensity(network, ...), ...)`` works, but repeats the same similarities for
# each candidate and fold. Here they are computed once. The rows of a square root of the gram matrix
# are features whose inner products are the similarities, without the error of shorter features.
# `NetworkDensity` accepts features in place of images.
#
# A density needs the intrinsic dimension of the data. It is also estimated once, so that all folds
# use the same value.

gram = NetworkKernel(network, output="predicted")(test.inputs)
# gram = V diag(values) V^T = F F^T with the features F = V diag(values)^(1/2)
values, vectors = np.linalg.eigh(gram)
features = vectors * np.sqrt(values.clip(0))
dimension = NetworkDensity("features", method="threshold").fit(features).dimension_
print(f"Intrinsic dimension: {dimension:.1f}")


def search_grid(method, parameter, candidates, dimension=dimension):
    """Return a fitted grid search over the parameter of a method, by held-out log density."""
    density = NetworkDensity("features", method=method, dimension=dimension)
    return GridSearchCV(density, {parameter: candidates}, cv=FOLDS).fit(features)


searches = {
    "threshold": search_grid("threshold", "threshold", THRESHOLDS),
    "alpha": search_grid("power", "alpha", ALPHAS),
}

# %%
# Held-out log density by threshold and power
# -------------------------------------------
# The line is the mean over the folds, per held-out image, and the band is one standard deviation of
# the folds. Samples that are spread evenly over the unit sphere of the gradients have the log
# density 0, so a threshold or power that is too large is worse than no density at all. The best
# power does better than the best threshold.

figure, grid = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for axes, (parameter, search) in zip(grid, searches.items(), strict=True):
    candidates = search.param_grid[parameter]
    folds = [search.cv_results_[f"split{fold}_test_score"] for fold in range(FOLDS)]
    folds = np.array(folds) / (SAMPLES / FOLDS)
    mean, spread, best = folds.mean(axis=0), folds.std(axis=0), search.best_index_
    axes.plot(candidates, mean, "o-", color="#0072B2", markersize=4)
    axes.fill_between(candidates, mean - spread, mean + spread, color="#0072B2", alpha=0.25)
    axes.plot(candidates[best], mean[best], "o", color="#D55E00", markersize=9)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel(parameter)
    print(
        f"Best {parameter}: {candidates[best]}, with a held-out log density of"
        f" {mean[best]:.2f} ± {spread[best]:.2f}"
    )
grid[1].set_xscale("log", base=2)
grid[0].set_ylabel("held-out log density (nats)")
plt.show()

# %%
# Images without neighbours above the threshold
# ---------------------------------------------
# The table shows how many other images are similar to an image at each threshold, and how many
# images have no similar one. With a small threshold, most images of the same digit count, whatever
# they look like. With a large one, some images have no neighbour. All of these get the same log
# density, the smallest possible one, however similar or dissimilar the next image is. Even the best
# threshold leaves some images without a neighbour.

neighbor_counts = {}
for threshold in THRESHOLDS:
    density = NetworkDensity(
        "features", method="threshold", threshold=threshold, dimension=dimension
    ).fit(features)
    neighbor_counts[threshold] = density.neighbor_count(features) - 1  # Without the image itself.
print("threshold   similar images: median, 90 % of images   images without any")
for threshold, counts in neighbor_counts.items():
    low, median, high = np.percentile(counts, [5, 50, 95])
    interval = f"{low:.0f} to {high:.0f}"
    print(f"{threshold:9.2f}{median:24.0f}{interval:>18}{(counts == 0).mean():19.1%}")

# %%
# Density with the best power
# ---------------------------
# The density is fitted on the images themselves with the best power, and scores other test images.
# Their mean can be compared with that of the folds, because network and output are the same. Scores
# of different networks or outputs cannot be compared (see ``docs/density.md``), so they cannot
# select a network either.

alpha = searches["alpha"].best_params_["alpha"]
density = NetworkDensity(
    network, output="predicted", method="power", alpha=alpha, dimension=dimension
).fit(test.inputs)
scores = density.score_samples(fresh.inputs)
with torch.no_grad():
    predictions = network(torch.from_numpy(fresh.inputs)).argmax(dim=1).numpy()
order, is_right = np.argsort(scores), predictions == fresh.labels
tenth = len(order) // 10
print(f"Mean log density of {len(scores):,} other images: {scores.mean():.2f}")
print(f"Accuracy on the tenth of lowest density: {is_right[order[:tenth]].mean():.1%}")
print(f"Accuracy on all others: {is_right[order[tenth:]].mean():.1%}")

# %%
# The two upper rows show the images of lowest density, the last row those of highest density. The
# captions give the label and the prediction; an orange caption marks a prediction that differs from
# the label. Many images of low density look odd to people as well, and the network errs more often
# on them. It still classifies most of them correctly: a low density is a hint that a prediction may
# be wrong, and not a proof.

extremes = np.concatenate([order[:24], order[-12:][::-1]])
figure, grid = plt.subplots(3, 12, figsize=(10, 3.6), layout="constrained")
for axes, index in zip(grid.flat, extremes, strict=False):
    axes.imshow(fresh.images[index], cmap="gray_r")
    color = "black" if is_right[index] else "#D55E00"
    axes.set_title(f"{fresh.labels[index]} → {predictions[index]}", color=color)
    axes.axis("off")
plt.show()

# %%
# Sensitivity to the intrinsic dimension
# --------------------------------------
# The dimension is an estimate, and log densities for different dimensions cannot be compared. If
# the data had more dimensions, the same similarity would be rarer by chance, and cross-validation
# would choose a greater power.

for factor in (0.5, 2):
    best = {
        **search_grid("threshold", "threshold", THRESHOLDS, factor * dimension).best_params_,
        **search_grid("power", "alpha", ALPHAS, factor * dimension).best_params_,
    }
    values = ", ".join(f"{name} {value}" for name, value in best.items())
    print(f"Best values with {factor} times the dimension: {values}")
