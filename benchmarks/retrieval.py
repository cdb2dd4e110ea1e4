"""Which patches of an aerial photograph look alike: to a network, and to the perceptual kernel.

Writes ``benchmarks/retrieval.md`` and the picture ``docs/images/retrieval.png``. With ``--quick``
it only prints, one seed, and draws nothing.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from denoising import SIDE, registration
from lib import report
from lib.active_learning.loops import decaying
from lib.data.aerial import PHOTOGRAPHS, patches, photograph
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkKernel, PerceptualKernel

plt.switch_backend("agg")
SEEDS = 3
NEIGHBORS = 5
#: Where patches are looked for; the others train the classifier.
PHOTOGRAPH = PHOTOGRAPHS[2]
PICTURE = report.RESULTS / "retrieval.png"


class Classifier(nn.Module):
    """Two convolutions and two layers, from a patch to tree or background."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (SIDE // 4) ** 2, 64),
            nn.ReLU(),
            nn.Linear(64, 2),
        )

    def forward(self, images):
        """Logits."""
        return self.layers(images)


def normalized(images):
    """Patches (n, channels, side, side), each of mean 0 and standard deviation 1."""
    centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
    scaled = centred / (centred.std(axis=(1, 2, 3), keepdims=True) + 1e-6)
    return scaled.astype(np.float32)


def colours(found):
    """What the classifier takes."""
    return normalized(np.moveaxis(found.images, -1, 1) / 255)


def still_pairs(found):
    """What the network of displacements takes: each patch with itself."""
    grey = found.images.mean(axis=-1)[:, None] / 255
    return normalized(np.concatenate([grey, grey], axis=1))


def displacement_network(seed, quick):
    """Trained on noisy displacements; it has never heard of trees."""
    data = registration(seed, quick)
    torch.manual_seed(seed)
    return clone(data.net).fit(data.X, data.noisy)


def tree_network(seed, quick):
    """Trained on trees and background of the other photographs."""
    parts = [patches(photograph(name), SIDE, SIDE) for name in PHOTOGRAPHS if name != PHOTOGRAPH]
    X = np.concatenate([colours(part) for part in parts])
    y = np.concatenate([part.labels for part in parts])
    torch.manual_seed(seed)
    settings = {"criterion": nn.CrossEntropyLoss, "batch_size": 64}
    epochs = 2 if quick else 15
    net = decaying(NeuralNetClassifier, Classifier, epochs, rate=1e-3, **settings)
    return net.fit(X, y)


NETWORKS = {
    "displacements": (displacement_network, still_pairs),
    "trees of other photographs": (tree_network, colours),
}
KERNELS = {
    "network, k^C": NetworkKernel,
    "network, k^C, last layer": lambda net: NetworkKernel(net, parameters="last_layer"),
    "perceptual, all layers": PerceptualKernel,
    "perceptual, second convolution": lambda net: PerceptualKernel(net, layers="layers.2"),
    "perceptual, last layer": lambda net: PerceptualKernel(net, layers="layers.7"),
}
#: What the picture shows.
SHOWN, SHOWN_QUERIES = ("network, k^C", "perceptual, all layers"), 7


def nearest(gram):
    """The most similar others of each row."""
    np.fill_diagonal(gram, -np.inf)
    return np.argsort(-gram, axis=1)[:, :NEIGHBORS]


def same_label(indices, labels):
    """Share of the retrieved with the query's label, the mean of tree and background."""
    same = labels[indices] == labels[:, None]
    return np.mean([same[labels == label].mean() for label in (0, 1)])


def lines(quick):
    """The whole text, line by line."""
    found = patches(photograph(PHOTOGRAPH), SIDE, SIDE)
    yield "# Patch retrieval"
    yield ""
    yield f"{report.setting(['scikit-learn', 'skorch', 'numpy', 'deepforest'])}."
    yield ""
    yield (
        f"{len(found.labels):,} patches of {SIDE} x {SIDE} pixels of an aerial photograph,"
        f" {found.labels.mean():.0%} of them trees (at least half in boxes that people drew), the"
        f" others background (outside of all boxes). The {NEIGHBORS} most similar others of each:"
        " the share with the same label, the mean of both classes, .5 by chance; means ± standard"
        f" deviations of {SEEDS} seeds. The network of displacements learnt by how far a patch was"
        " moved and has no notion of a tree."
    )
    yield ""
    yield from report.head(["", *NETWORKS])
    chosen = {name: retrieved(found, *ways, quick) for name, ways in NETWORKS.items()}
    for kernel in (*KERNELS, "pixels"):
        shares = [[same_label(i, found.labels) for i in runs[kernel]] for runs in chosen.values()]
        yield report.row(kernel, *(f"{np.mean(s):.3f} ± {np.std(s):.3f}" for s in shares))
    if not quick:
        draw(found, {kernel: chosen["displacements"][kernel][0] for kernel in SHOWN})
        yield from ["", "![Nearest patches](retrieval.png)"]


def retrieved(found, make, prepare, quick):
    """The nearest of each patch by each kernel, for each seed."""
    nets = [make(seed, quick) for seed in range(1 if quick else SEEDS)]
    X = prepare(found)
    runs = {name: [nearest(kernel(net)(X)) for net in nets] for name, kernel in KERNELS.items()}
    rows = X.reshape(len(X), -1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return runs | {"pixels": [nearest(unit @ unit.T)]}


def draw(found, chosen):
    """Some patches, and the nearest of each by some kernels, side by side."""
    queries = np.random.default_rng(0).choice(len(found.labels), SHOWN_QUERIES, replace=False)
    figure = plt.figure(figsize=(11, 6.5), layout="constrained")
    parts = figure.subfigures(1, 1 + len(chosen), width_ratios=[1.4, *[NEIGHBORS] * len(chosen)])
    show(parts[0], "patch", found.images[queries][:, None])
    for part, (name, indices) in zip(parts[1:], chosen.items(), strict=True):
        show(part, name, found.images[indices[queries]])
    figure.savefig(PICTURE, dpi=110)


def show(part, title, images):
    """Rows of patches under a title."""
    part.suptitle(title)
    axes = part.subplots(*images.shape[:2], squeeze=False)
    for axis, image in zip(axes.flat, images.reshape(-1, SIDE, SIDE, 3), strict=True):
        axis.imshow(image)
        axis.set_axis_off()


if __name__ == "__main__":
    report.run(__file__, __doc__, "one seed, no picture", lines)
