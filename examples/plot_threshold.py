"""
How similar is similar? Choosing a threshold
============================================

`NetworkDensity` counts the samples that are similar to one, and somebody has to say how similar
they must be: by a threshold, or by the power that similarities are raised to. The log density that
comes of it can be cross-validated, as the bandwidth of any density: the best value is the one by
which images that were left out are the most likely.

The network is one that somebody else trained on MNIST. All images here are of MNIST's test part:
neither the network nor the density may have seen those that are scored.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import mnist, mnist_network
from sklearn.model_selection import GridSearchCV

from sknetsim import NetworkDensity, NetworkKernel

SAMPLES = 1_500
FRESH = 1_000
FOLDS = 5
THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
ALPHAS = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512]

network = mnist_network()
images = mnist("test", SAMPLES + FRESH)
test, fresh = images.at(slice(SAMPLES)), images.at(slice(SAMPLES, None))

# %%
# The similarities, once
# ----------------------
# ``GridSearchCV(NetworkDensity(network, ...), ...)`` works as it stands, and asks the network for
# the same similarities again for each candidate and fold. Here they are computed once. The rows of
# a root of their matrix are features with these similarities as products, without the error that
# fewer features have, and densities take features in place of images.
#
# A density needs the intrinsic dimension of the data. It is estimated once, too, so that all folds
# share it.

gram = NetworkKernel(network, output="predicted")(test.inputs)
values, vectors = np.linalg.eigh(gram)
features = vectors * np.sqrt(values.clip(0))
dimension = NetworkDensity("features", method="threshold").fit(features).dimension_
print(f"Intrinsic dimension: {dimension:.1f}")


def searched(method, parameter, candidates, dimension=dimension):
    """A grid search for one method's own parameter, by held-out log density."""
    density = NetworkDensity("features", method=method, dimension=dimension)
    return GridSearchCV(density, {parameter: candidates}, cv=FOLDS).fit(features)


searches = {
    "threshold": searched("threshold", "threshold", THRESHOLDS),
    "alpha": searched("power", "alpha", ALPHAS),
}

# %%
# The held-out log density
# ------------------------
# The line is the mean over the folds, for each held-out image, and the band one standard deviation
# of the folds. 0 is the log density of samples spread evenly over the sphere that the gradients lie
# on: too large a threshold or power is worse than no density at all. The best power does better
# than the best threshold.

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
        f"The best {parameter}: {candidates[best]}, with a held-out log density of"
        f" {mean[best]:.2f} ± {spread[best]:.2f}"
    )
grid[1].set_xscale("log", base=2)
grid[0].set_ylabel("held-out log density (nats)")
plt.show()

# %%
# What a threshold leaves
# -----------------------
# How many others an image is similar to, by each threshold, and how many images have none at all.
# Small thresholds count most images of the same digit, whatever they look like. Large ones leave
# images without a neighbour, and all of these get the same log density, the least that there is,
# however near or far the next image may be. Even the best threshold leaves some.

others = {}
for threshold in THRESHOLDS:
    density = NetworkDensity(
        "features", method="threshold", threshold=threshold, dimension=dimension
    ).fit(features)
    others[threshold] = density.neighbor_count(features) - 1  # Without the image itself.
print("threshold   similar others: median, 90 % of images   images without any")
for threshold, count in others.items():
    low, median, high = np.percentile(count, [5, 50, 95])
    most = f"{low:.0f} to {high:.0f}"
    print(f"{threshold:9.2f}{median:24.0f}{most:>18}{(count == 0).mean():21.1%}")

# %%
# The density that was chosen
# ---------------------------
# It is fitted with the best power, to the images themselves, and scores other test images. Their
# mean can be compared with that of the folds: it is the same network, and the same output. Scores
# of different networks or outputs do not compare, see ``docs/density.md``; nor can a network be
# chosen by them.

alpha = searches["alpha"].best_params_["alpha"]
density = NetworkDensity(
    network, output="predicted", method="power", alpha=alpha, dimension=dimension
).fit(test.inputs)
scores = density.score_samples(fresh.inputs)
with torch.no_grad():
    seen = network(torch.from_numpy(fresh.inputs)).argmax(dim=1).numpy()
order, is_right = np.argsort(scores), seen == fresh.labels
tenth = len(order) // 10
print(f"Mean log density of {len(scores):,} other images: {scores.mean():.2f}")
print(f"Right in the least dense tenth: {is_right[order[:tenth]].mean():.1%}")
print(f"Right in all others: {is_right[order[tenth:]].mean():.1%}")

# %%
# In the upper rows are the images that are the least dense, in the last row the densest ones.
# Above each its label, and what the network says; in orange where they differ. Many of the least
# dense are odd to people, too, and the network errs more often there. It is right about most of
# them all the same: a low density is a hint, and not a verdict.

shown = np.concatenate([order[:24], order[-12:][::-1]])
figure, grid = plt.subplots(3, 12, figsize=(10, 3.6), layout="constrained")
for axes, row in zip(grid.flat, shown, strict=False):
    axes.imshow(fresh.images[row], cmap="gray_r")
    color = "black" if is_right[row] else "#D55E00"
    axes.set_title(f"{fresh.labels[row]} → {seen[row]}", color=color)
    axes.axis("off")
plt.show()

# %%
# What the choice rests on
# ------------------------
# The dimension is an estimate, and values of different dimensions do not compare, either. If the
# data had more dimensions, the same similarity would be rarer by chance, and a greater power would
# be chosen.

for factor in (0.5, 2):
    found = [
        searched("threshold", "threshold", THRESHOLDS, factor * dimension).best_params_,
        searched("power", "alpha", ALPHAS, factor * dimension).best_params_,
    ]
    best = ", ".join(f"{name} {value}" for one in found for name, value in one.items())
    print(f"{factor} times the dimension: best {best}")
