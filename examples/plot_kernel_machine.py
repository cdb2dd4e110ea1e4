"""
A kernel machine from few labels
================================

`NetworkKernel` is a kernel of scikit-learn, so that a support vector machine can learn from few
labels by what a network has learnt from many. Whether that helps depends on the question.

The network is one that somebody else trained on MNIST, with 60,000 labels. Here it meets the digits
of scikit-learn, written by other people and scanned in another way. Two questions are asked of
them. Which digit is it? That is what the network has been trained for, on other images. Is the
image upside down? Nobody has ever asked it that; and of a 0, a 1 or an 8 it can hardly be told.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import mnist_network, samples
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

TEST = 1_000
POOL = 700  # Images of which some are labelled.
LABELS = [20, 50, 100, 200, 500]
REPETITIONS = 5
COMPONENTS = 256
EMBEDDED = 400
GAMMAS = [0.003, 0.01, 0.03, 0.1, 0.3]
OF_DIGITS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2")
OF_DIGITS += ("#D55E00", "#CC79A7", "#888888", "#882255", "#999933")

network = mnist_network()
bunch = load_digits()
order = np.random.default_rng(0).permutation(len(bunch.target))[: TEST + POOL]
is_turned = np.random.default_rng(1).random(len(order)) < 0.5
pixels = {"Which digit?": bunch.images[order] / 16}
pixels["Upside down?"] = np.where(
    is_turned[:, None, None], pixels["Which digit?"][:, ::-1, ::-1], pixels["Which digit?"]
)
answers = {"Which digit?": bunch.target[order], "Upside down?": is_turned.astype(int)}


def enlarged(images):
    """Images of 8 x 8 as the network takes them: 20 x 20 in a frame of 4."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(images[:, None]), size=(20, 20), mode="bilinear"
    )
    return samples(255 * np.pad(large[:, 0], ((0, 0), (4, 4), (4, 4))), np.zeros(len(images)))


X = {question: enlarged(images).inputs for question, images in pixels.items()}
with torch.no_grad():
    seen = network(torch.from_numpy(X["Which digit?"])).argmax(dim=1).numpy()
own = (seen == answers["Which digit?"])[POOL:].mean()
print(f"The network's own answer to which digit it is: {own:.3f} right")

# %%
# As a user would write it
# ------------------------
# The kernel goes into ``SVC`` as it is, and is called once in ``fit`` and once in ``predict``. Or a
# linear classifier takes gradients as features: from landmarks, which need no labels. All with 100
# labels, and with settings that nobody has chosen.
#
# What is compared is the sum of all logits, or the largest one alone. The latter makes two images
# dissimilar in which the network sees different digits, and so keeps some of its mistakes.

labelled, test = slice(100), slice(POOL, None)
learnt, y = X["Which digit?"], answers["Which digit?"]
featurizer = GradientFeaturizer(network, output="sum", n_components=COMPONENTS, random_state=0)
featurizer.fit(learnt[:POOL])
machines = {
    "SVC, sum of logits": SVC(kernel=NetworkKernel(network, output="sum")),
    "SVC, largest logit": SVC(kernel=NetworkKernel(network, output="predicted")),
    "features, sum of logits": make_pipeline(
        FrozenEstimator(featurizer), LogisticRegression(C=100, max_iter=1_000)
    ),
}
for name, machine in machines.items():
    right = machine.fit(learnt[labelled], y[labelled]).score(learnt[test], y[test])
    print(f"{name:<24}{right:.3f}")

# %%
# Learning curves
# ---------------
# Against an ``SVC`` with a radial basis function of the pixels. C and, for the pixels, gamma are
# chosen by cross-validation among the labelled images alone. All similarities and features are
# computed once, before: the search goes through them again and again. Beside the kernel of the
# whole network is that of its last layer: similarities of the activities it takes in.


def described(question):
    """What each way knows of the images: features, or their similarities with all."""
    inputs = X[question]
    kernels = {
        "kernel, whole network": NetworkKernel(network, output="sum"),
        "kernel, last layer": NetworkKernel(network, output="sum", parameters="last_layer"),
    }
    return {
        "pixels": pixels[question].reshape(len(inputs), -1),
        "gradient features": featurizer.fit(inputs[:POOL]).transform(inputs),
        **{name: kernel(inputs) for name, kernel in kernels.items()},
    }


C = {"C": [1, 10, 100, 1_000]}
WAYS = {  # How each learns.
    "pixels": (SVC(), {**C, "gamma": GAMMAS}),
    "gradient features": (LogisticRegression(max_iter=1_000), C),
    "kernel, whole network": (SVC(kernel="precomputed"), C),
    "kernel, last layer": (SVC(kernel="precomputed"), C),
}


def share_right(way, values, y, train):
    """What a way answers rightly of the test images, from labels of some others."""
    machine, candidates = WAYS[way]
    columns = train if way.startswith("kernel") else slice(None)
    folds = np.clip(np.bincount(y[train]).min(), 2, 3)  # No more than images of a digit.
    search = GridSearchCV(machine, candidates, cv=folds)
    search.fit(values[train][:, columns], y[train])
    return search.score(values[POOL:][:, columns], y[POOL:])


found = {question: described(question) for question in X}
curves = {}
for question, ways in found.items():
    y, pool = answers[question], np.arange(POOL)
    for way, values in ways.items():
        for count in LABELS:
            for repetition in range(REPETITIONS):
                train, _ = train_test_split(
                    pool, train_size=count, stratify=y[pool], random_state=repetition
                )
                right = share_right(way, values, y, train)
                curves.setdefault((question, way), []).append(right)

# %%
# The line is the mean over several choices of the labelled images, the band one standard deviation.
#
# Which digit it is, the network's kernel knows from far fewer labels than the pixels do. They come
# close when there are some hundred. It also answers better than the network itself, which is often
# wrong about digits that are scanned like this: what it has learnt is of more use than its answers.
# Its last layer alone is about as good.
#
# Whether an image is upside down is better seen in the pixels. A network learns what matters for
# its labels and drops other things, and the last layer has dropped more than the whole network has.

colors = dict(zip(WAYS, ["#D55E00", "#009E73", "#0072B2", "#56B4E9"], strict=True))
figure, grid = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axes, question in zip(grid, found, strict=True):
    for way, color in colors.items():
        values = np.reshape(curves[question, way], (len(LABELS), REPETITIONS))
        mean, spread = values.mean(axis=1), values.std(axis=1)
        axes.plot(LABELS, mean, "o-", color=color, label=way, markersize=4)
        axes.fill_between(LABELS, mean - spread, mean + spread, color=color, alpha=0.15)
        print(f"{question} {way:<24}" + " ".join(f"{value:.3f}" for value in mean))
    axes.set(title=question, xlabel="labels", xscale="log")
    axes.set_xticks(LABELS, LABELS)
    axes.minorticks_off()
grid[0].axhline(own, color="black", linewidth=0.8, linestyle="--", label="the network itself")
grid[0].set_ylabel("share of test images right")
grid[0].legend()
plt.show()

# %%
# Without any label
# -----------------
# The same two kernels for ``KernelPCA`` and for ``SpectralClustering``, which get to see no labels.
# Both take rows only, so images are handed over flat, and ``input_shape`` gives them their shape
# back. The adjusted Rand index says how well ten clusters agree with the digits: 1 is perfect, and
# 0 is chance. For the pixels the best gamma is taken, chosen by looking at the digits. The network
# has learnt to tell digits apart, and so do clusters by its kernel.

rows = slice(POOL, POOL + EMBEDDED)
digits = answers["Which digit?"][rows]
gray, inputs = (of["Which digit?"][rows].reshape(len(digits), -1) for of in (pixels, X))
kernel = NetworkKernel(network, output="sum", input_shape=(1, 28, 28))


def agreement(values, **settings):
    """How well clusters agree with the digits."""
    clusters = SpectralClustering(10, random_state=0, **settings).fit_predict(values)
    return adjusted_rand_score(digits, clusters)


gamma = max(GAMMAS, key=lambda gamma: agreement(gray, gamma=gamma))
print(f"Clusters by pixels: adjusted Rand index {agreement(gray, gamma=gamma):.2f}")
print(f"Clusters by the network's kernel: {agreement(inputs, affinity=kernel):.2f}")

embeddings = {
    "pixels": KernelPCA(2, kernel="rbf", gamma=gamma).fit_transform(gray),
    "the network's kernel": KernelPCA(2, kernel=kernel).fit_transform(inputs),
}
figure, grid = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
for axes, (name, points) in zip(grid, embeddings.items(), strict=True):
    axes.scatter(*points.T, s=0)  # For the limits: a text does not move them.
    for point, digit in zip(points, digits, strict=True):
        axes.text(*point, str(digit), color=OF_DIGITS[digit], size=8, ha="center", va="center")
    axes.set(title=name, xticks=[], yticks=[])
plt.show()
