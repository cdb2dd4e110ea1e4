"""
Few-label classification with a network kernel
==============================================

`NetworkKernel` is a scikit-learn kernel, so a support vector machine can learn from few labels with
the help of a network that was trained on many. This example shows how, and when it helps. The
network is a CNN that a third party trained on MNIST with 60,000 labels. The data are scikit-learn's
digits, which were written by other people and scanned in another way.

Two tasks are compared. The first is to classify the digits, which the network was trained for, on
other images. There the network kernel needs far fewer labels than pixels do. The second is to
detect images that are upside down, which the network was not trained for and which is hardly
possible for a 0, a 1 or an 8. There pixels do better.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.cluster import SpectralClustering
from sklearn.datasets import load_digits
from sklearn.decomposition import KernelPCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from sknetsim import GradientFeaturizer, NetworkKernel
from sknetsim.datasets import load_mnist_network, normalize_mnist

TEST = 1_000
POOL = 700  # Images that labelled ones are drawn from.
LABELS = [20, 50, 100, 200, 500]
REPETITIONS = 5
COMPONENTS = 256
EMBEDDED = 400
GAMMAS = [0.003, 0.01, 0.03, 0.1, 0.3]
DIGIT_COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2")
DIGIT_COLORS += ("#D55E00", "#CC79A7", "#888888", "#882255", "#999933")

network = load_mnist_network()
bunch = load_digits()
order = np.random.default_rng(0).permutation(len(bunch.target))[: TEST + POOL]
is_turned = np.random.default_rng(1).random(len(order)) < 0.5
pixels = {"digit": bunch.images[order] / 16}
pixels["orientation"] = np.where(
    is_turned[:, None, None], pixels["digit"][:, ::-1, ::-1], pixels["digit"]
)
targets = {"digit": bunch.target[order], "orientation": is_turned.astype(int)}


def make_inputs(images):
    """Return images of 8 x 8 as inputs of the network: 20 x 20 inside a border of 4."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(images[:, None]), size=(20, 20), mode="bilinear"
    )
    return normalize_mnist(255 * np.pad(large[:, 0], ((0, 0), (4, 4), (4, 4))))


X = {task: make_inputs(images) for task, images in pixels.items()}
with torch.no_grad():
    predictions = network(torch.from_numpy(X["digit"])).argmax(dim=1).numpy()
network_accuracy = (predictions == targets["digit"])[POOL:].mean()
print(f"Accuracy of the network itself on the digits: {network_accuracy:.3f}")

# %%
# Network kernels in an SVC and in a pipeline
# -------------------------------------------
# ``SVC`` accepts the kernel as its ``kernel`` and calls it once in ``fit`` and once in ``predict``.
# Alternatively, a linear classifier uses gradients as features; these come from landmarks, which
# need no labels. Each classifier learns from 100 labels with settings that were not tuned.
#
# The kernel compares either the sum of all logits or only the largest one. With the largest logit,
# two images are dissimilar if the network predicts different digits for them, so the classifier
# keeps some of the network's mistakes.

labelled, test = slice(100), slice(POOL, None)
inputs, y = X["digit"], targets["digit"]
featurizer = GradientFeaturizer(network, output="sum", n_components=COMPONENTS, random_state=0)
featurizer.fit(inputs[:POOL])
classifiers = {
    "SVC, sum of logits": SVC(kernel=NetworkKernel(network, output="sum")),
    "SVC, largest logit": SVC(kernel=NetworkKernel(network, output="predicted")),
    "features, sum of logits": make_pipeline(
        FrozenEstimator(featurizer), LogisticRegression(C=100, max_iter=1_000)
    ),
}
for name, classifier in classifiers.items():
    accuracy = classifier.fit(inputs[labelled], y[labelled]).score(inputs[test], y[test])
    print(f"{name:<24}{accuracy:.3f}")

# %%
# Accuracy by the number of labels
# --------------------------------
# The baseline is an ``SVC`` with a radial basis function of the pixels. C and, for the pixels,
# gamma are chosen by cross-validation within the labelled images. The search uses all similarities
# and features many times, so they are computed once, before the search. A further method is the
# kernel of the last layer, which compares the activations of that layer.


def represent_images(task):
    """Return for each method the features of all images, or their similarities to all images."""
    inputs = X[task]
    kernels = {
        "kernel, whole network": NetworkKernel(network, output="sum"),
        "kernel, last layer": NetworkKernel(network, output="sum", parameters="last_layer"),
    }
    return {
        "pixels": pixels[task].reshape(len(inputs), -1),
        "gradient features": featurizer.fit(inputs[:POOL]).transform(inputs),
        **{name: kernel(inputs) for name, kernel in kernels.items()},
    }


C = {"C": [1, 10, 100, 1_000]}
METHODS = {  # Classifier and parameter grid of each method.
    "pixels": (SVC(), {**C, "gamma": GAMMAS}),
    "gradient features": (LogisticRegression(max_iter=1_000), C),
    "kernel, whole network": (SVC(kernel="precomputed"), C),
    "kernel, last layer": (SVC(kernel="precomputed"), C),
}


def measure_accuracy(method, values, y, train):
    """Return the accuracy on the test images after training on the images ``train``."""
    classifier, candidates = METHODS[method]
    columns = train if method.startswith("kernel") else slice(None)
    folds = np.clip(np.bincount(y[train]).min(), 2, 3)  # At most the images of the rarest class.
    search = GridSearchCV(classifier, candidates, cv=folds)
    search.fit(values[train][:, columns], y[train])
    return search.score(values[POOL:][:, columns], y[POOL:])


curves = {}
for task in X:
    y, pool = targets[task], np.arange(POOL)
    for method, values in represent_images(task).items():
        for count in LABELS:
            for repetition in range(REPETITIONS):
                train, _ = train_test_split(
                    pool, train_size=count, stratify=y[pool], random_state=repetition
                )
                accuracy = measure_accuracy(method, values, y, train)
                curves.setdefault((task, method), []).append(accuracy)

# %%
# The line is the mean over several choices of the labelled images, and the band is one standard
# deviation.
#
# To classify digits, the network kernel needs far fewer labels than the pixels. With some hundred
# labels, the pixels come close. The kernel machine is also more accurate than the network itself,
# which often misclassifies digits that are scanned in this way: the features that it has learnt are
# more useful than its predictions. The kernel of the last layer is about as good.
#
# Upside-down images are better detected from pixels. A network learns what matters for its labels
# and discards other properties, and the last layer has discarded more than the whole network has.

colors = dict(zip(METHODS, ["#D55E00", "#009E73", "#0072B2", "#56B4E9"], strict=True))
figure, grid = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axes, task in zip(grid, X, strict=True):
    for method, color in colors.items():
        values = np.reshape(curves[task, method], (len(LABELS), REPETITIONS))
        mean, spread = values.mean(axis=1), values.std(axis=1)
        axes.plot(LABELS, mean, "o-", color=color, label=method, markersize=4)
        axes.fill_between(LABELS, mean - spread, mean + spread, color=color, alpha=0.15)
        print(f"{task:<12}{method:<24}" + " ".join(f"{value:.3f}" for value in mean))
    axes.set(title=f"Task: classify the {task}", xlabel="number of labels", xscale="log")
    axes.set_xticks(LABELS, LABELS)
    axes.minorticks_off()
grid[0].axhline(
    network_accuracy, color="black", linewidth=0.8, linestyle="--", label="the network itself"
)
grid[0].set_ylabel("accuracy on the test images")
grid[0].legend()
plt.show()

# %%
# Clustering and kernel PCA without labels
# ----------------------------------------
# ``KernelPCA`` and ``SpectralClustering`` use the same two kernels without any label. Both accept
# only two-dimensional arrays, so images are passed flat, and ``input_shape`` restores their shape.
# The adjusted Rand index measures how well ten clusters agree with the digits: 1 is perfect
# agreement, 0 is chance. For the pixels, the gamma with the highest index is used, which requires
# the true digits. The network was trained to separate digits, and the clusters of its kernel
# separate them as well.

embedded = slice(POOL, POOL + EMBEDDED)
digits = targets["digit"][embedded]
flat_pixels, flat_inputs = (
    values["digit"][embedded].reshape(len(digits), -1) for values in (pixels, X)
)
kernel = NetworkKernel(network, output="sum", input_shape=(1, 28, 28))


def compute_rand_index(values, **settings):
    """Return the adjusted Rand index of ten clusters and the digits."""
    clusters = SpectralClustering(10, random_state=0, **settings).fit_predict(values)
    return adjusted_rand_score(digits, clusters)


gamma = max(GAMMAS, key=lambda gamma: compute_rand_index(flat_pixels, gamma=gamma))
indices = {
    "pixels": compute_rand_index(flat_pixels, gamma=gamma),
    "network kernel": compute_rand_index(flat_inputs, affinity=kernel),
}
for name, index in indices.items():
    print(f"Adjusted Rand index, {name}: {index:.2f}")

embeddings = {
    "Pixels": KernelPCA(2, kernel="rbf", gamma=gamma).fit_transform(flat_pixels),
    "Network kernel": KernelPCA(2, kernel=kernel).fit_transform(flat_inputs),
}
figure, grid = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
for axes, (name, points) in zip(grid, embeddings.items(), strict=True):
    axes.scatter(*points.T, s=0)  # Sets the limits of the axes, which text does not change.
    for point, digit in zip(points, digits, strict=True):
        axes.text(*point, str(digit), color=DIGIT_COLORS[digit], size=8, ha="center", va="center")
    axes.set(title=name, xticks=[], yticks=[])
plt.show()
