"""Retrieval of similar patches of an aerial photograph: NetworkKernel and PerceptualKernel.

Writes ``retrieval.md`` and ``retrieval.png`` in ``benchmarks/results``. With ``--quick`` it only
prints, after one seed, and draws nothing.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from lib import report
from lib.registration import SIDE, make_registration_task
from lib.training import make_net
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import NetworkKernel, PerceptualKernel
from sknetsim.datasets import cut_patches, load_aerial_photographs

plt.switch_backend("agg")
SEEDS = 3
NEIGHBORS = 5
#: Photograph whose patches are retrieved; the classifier is trained on the others.
PHOTOGRAPH = "2019_YELL_2_541000_4977000_image_crop"
PICTURE = report.RESULTS / "retrieval.png"


class Classifier(nn.Module):
    """Two convolutional and two linear layers that classify a patch as tree or background."""

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
        """Return logits (n, 2)."""
        return self.layers(images)


def normalize(images):
    """Scale patches (n, channels, side, side) to mean 0 and standard deviation 1 each."""
    centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
    scaled = centred / (centred.std(axis=(1, 2, 3), keepdims=True) + 1e-6)
    return scaled.astype(np.float32)


def prepare_colours(patches):
    """Return the inputs of the classifier."""
    return normalize(np.moveaxis(patches.images, -1, 1) / 255)


def prepare_pairs(patches):
    """Return the inputs of the displacement network: pairs of a patch with itself."""
    grey = patches.images.mean(axis=-1)[:, None] / 255
    return normalize(np.concatenate([grey, grey], axis=1))


def train_displacement_network(seed, quick):
    """Train a network on noisy displacements, without labels of trees."""
    data = make_registration_task(seed, quick)
    torch.manual_seed(seed)
    return clone(data.net).fit(data.X, data.noisy)


def train_tree_network(seed, quick):
    """Train a network on trees and background of the other photographs."""
    photographs = load_aerial_photographs()
    del photographs[PHOTOGRAPH]
    parts = [cut_patches(photograph, SIDE) for photograph in photographs.values()]
    X = np.concatenate([prepare_colours(part) for part in parts])
    y = np.concatenate([part.labels for part in parts])
    torch.manual_seed(seed)
    settings = {"criterion": nn.CrossEntropyLoss, "batch_size": 64}
    epochs = 2 if quick else 15
    net = make_net(NeuralNetClassifier, Classifier, epochs, rate=1e-3, **settings)
    return net.fit(X, y)


NETWORKS = {
    "displacements": (train_displacement_network, prepare_pairs),
    "trees of other photographs": (train_tree_network, prepare_colours),
}
KERNELS = {
    "network, k^C": NetworkKernel,
    "network, k^C, last layer": lambda net: NetworkKernel(net, parameters="last_layer"),
    "perceptual, all layers": PerceptualKernel,
    "perceptual, second convolution": lambda net: PerceptualKernel(net, layers="layers.2"),
    "perceptual, last layer": lambda net: PerceptualKernel(net, layers="layers.7"),
}
#: Kernels and number of queries in the picture.
SHOWN, SHOWN_QUERIES = ("network, k^C", "perceptual, all layers"), 7


def find_nearest(gram):
    """Return the indices of the most similar other patches of each patch."""
    np.fill_diagonal(gram, -np.inf)
    return np.argsort(-gram, axis=1)[:, :NEIGHBORS]


def score_retrieval(indices, labels):
    """Return the share of patches with the query's label, averaged over tree and background."""
    same = labels[indices] == labels[:, None]
    return np.mean([same[labels == label].mean() for label in (0, 1)])


def generate_report(quick):
    """Yield the report, line by line."""
    patches = cut_patches(load_aerial_photographs()[PHOTOGRAPH], SIDE)
    packages = ["scikit-learn", "skorch", "numpy", "deepforest"]
    yield from report.format_title(__file__, "Patch retrieval", packages)
    yield (
        f"The data are {len(patches.labels):,} patches of {SIDE} x {SIDE} pixels of an aerial"
        f" photograph. {patches.labels.mean():.0%} of them are trees (at least half inside boxes"
        " that people drew) and the others background (outside of all boxes). For each patch, the"
        f" {NEIGHBORS} most similar other patches are retrieved. Cells contain the share with the"
        " same label, averaged over both classes (.5 by chance), as means ± standard deviations of"
        f" {SEEDS} seeds. The displacement network was trained to estimate by how far a patch was"
        " moved, and not on trees."
    )
    yield ""
    yield from report.format_header(["", *NETWORKS])
    runs = {name: retrieve(patches, *network, quick) for name, network in NETWORKS.items()}
    for kernel in (*KERNELS, "pixels"):
        shares = [
            [score_retrieval(indices, patches.labels) for indices in by_kernel[kernel]]
            for by_kernel in runs.values()
        ]
        yield report.format_row(kernel, *(f"{np.mean(s):.3f} ± {np.std(s):.3f}" for s in shares))
    if not quick:
        draw(patches, {kernel: runs["displacements"][kernel][0] for kernel in SHOWN})
        yield from ["", f"![Nearest patches]({PICTURE.name})"]


def retrieve(patches, train, prepare, quick):
    """Return the nearest patches of each patch by each kernel, for each seed."""
    nets = [train(seed, quick) for seed in range(1 if quick else SEEDS)]
    X = prepare(patches)
    runs = {
        name: [find_nearest(make_kernel(net)(X)) for net in nets]
        for name, make_kernel in KERNELS.items()
    }
    pixels = X.reshape(len(X), -1)
    unit = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    return runs | {"pixels": [find_nearest(unit @ unit.T)]}


def draw(patches, indices_by_kernel):
    """Draw some patches, and the nearest patches of each by some kernels, side by side."""
    queries = np.random.default_rng(0).choice(len(patches.labels), SHOWN_QUERIES, replace=False)
    figure = plt.figure(figsize=(11, 6.5), layout="constrained")
    widths = [1.4, *[NEIGHBORS] * len(indices_by_kernel)]
    parts = figure.subfigures(1, 1 + len(indices_by_kernel), width_ratios=widths)
    draw_images(parts[0], "patch", patches.images[queries][:, None])
    for part, (name, indices) in zip(parts[1:], indices_by_kernel.items(), strict=True):
        draw_images(part, name, patches.images[indices[queries]])
    figure.savefig(PICTURE, dpi=110)


def draw_images(figure, title, images):
    """Draw a grid of images under a title."""
    figure.suptitle(title)
    axes = figure.subplots(*images.shape[:2], squeeze=False)
    for axis, image in zip(axes.flat, images.reshape(-1, SIDE, SIDE, 3), strict=True):
        axis.imshow(image)
        axis.set_axis_off()


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "one seed, no picture", generate_report)
