"""How near features of rows that no fit has seen come to the similarity."""

import math
import statistics
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from sknetsim._kernel_error import off_diagonal_error
from torch import nn

from lib.data.images import mnist, mnist_network
from lib.report import head, row, spread
from sknetsim import GradientFeaturizer, NetworkKernel

SEEDS = (0, 1, 2)
QUICK_SIZE = 64
NEIGHBOURS = 10
METHODS = ("nystroem", "sketch")
PARTS = (("train", 5000), ("test", 1000))
# Bytes of exact features, and rows of a Gaussian matrix, that are held at a time.
EXACT_BYTES = 2**31
MATRIX_ROWS = 4096
COLUMNS = (
    "network and data",
    "output",
    "m",
    "features",
    "kernel RMSE",
    "stated",
    "times Gaussian",
    "recall@10",
)
TEXT = """\
Features are fitted on 1,000 digits, which the MLP was trained on, or on 5,000 training images of \
MNIST; figures are of rows that no fit has seen: pairs of different held-out digits (797) or test \
images (1,000), and the ten most similar of four fifths of these \
rows for each of the others. Errors are against `NetworkKernel`; the stated one is the \
estimator's `kernel_error_`. The Gaussian projection multiplies exact features by a matrix such \
as scikit-learn's `GaussianRandomProjection` draws; its rows are also scaled to the length that \
exact ones have. Means over three seeds, with the least and the most."""


@dataclass(frozen=True)
class Case:
    """A network, rows that features are fitted on, and rows that they have never seen."""

    name: str
    network: nn.Module
    fitted: torch.Tensor
    held_out: torch.Tensor
    output: str
    sizes: tuple
    seeds: tuple = SEEDS

    def quick(self):
        """With fewer rows, one size and one seed."""
        held_out = self.held_out[: len(self.held_out) // 5]
        return replace(self, held_out=held_out, sizes=(QUICK_SIZE,), seeds=SEEDS[:1])

    @property
    def queries(self):
        """The number of held-out rows that neighbours are found for, among the others."""
        return len(self.held_out) // 5


def digits():
    """Rows to fit on, rows held out, and a network 64-128-128-10 trained on the former."""
    images, labels = load_digits(return_X_y=True)
    torch.manual_seed(0)
    order = torch.randperm(len(images))
    X = torch.as_tensor(images / 16, dtype=torch.float32)[order]
    y = torch.as_tensor(labels)[order]
    network = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(X[:1000]), y[:1000]).backward()
        optimizer.step()
    return network.eval(), X[:1000], X[1000:]


def cases():
    """Networks, data and outputs."""
    network, fitted, held_out = digits()
    name = "MLP 64-128-128-10, digits"
    for output in ("predicted", "all"):
        yield Case(name, network, fitted, held_out, output, (64, 256))
    network, name = mnist_network(), "foreign CNN, MNIST"
    fitted, held_out = (torch.as_tensor(mnist(*part).inputs) for part in PARTS)
    yield Case(name, network, fitted, held_out, "predicted", (64, 256, 512))


def projections(case):
    """Exact features times a Gaussian matrix for each seed, of shape (seeds, n, largest m)."""
    exact = GradientFeaturizer(case.network, case.output).fit(case.held_out[:1])
    step = max(1, EXACT_BYTES // (4 * exact.n_components_))
    parts = [projected(exact.transform(rows), case) for rows in case.held_out.split(step)]
    return np.concatenate(parts, axis=1)


def projected(features, case):
    """With matrices that are drawn again for each part of the rows, chunk by chunk."""
    size = max(case.sizes)
    found = torch.zeros(len(case.seeds), len(features), size)
    for seed, total in zip(case.seeds, found, strict=True):
        generator = torch.Generator().manual_seed(seed)
        for columns in torch.from_numpy(features).split(MATRIX_ROWS, dim=1):
            total += columns @ torch.randn(columns.shape[1], size, generator=generator)
    return found.numpy()


def gaussian(projection, size):
    """The first m columns are a Gaussian projection to m features."""
    return projection[:, :size] / math.sqrt(size)


def units(features):
    """Rows of length 1, as those of exact features are."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def ours(case, method, size):
    """Features of the held-out rows, and the error that the estimator states, for each seed."""
    for seed in case.seeds:
        featurizer = GradientFeaturizer(
            case.network, case.output, n_components=size, method=method, random_state=seed
        )
        features = featurizer.fit(case.fitted).transform(case.held_out)
        yield features, featurizer.kernel_error_


def nearest(gram, queries):
    """The most similar of the other rows for each query."""
    return np.argpartition(-gram[:queries, queries:], NEIGHBOURS - 1)[:, :NEIGHBOURS]


def recall(gram, exact, queries):
    """How many of the exact neighbours are found."""
    pairs = zip(nearest(gram, queries), nearest(exact, queries), strict=True)
    return statistics.mean(len(np.intersect1d(*pair)) for pair in pairs) / NEIGHBOURS


def contestants(case, size, gaussians):
    """Names, with features and the error stated for each seed."""
    plain = [gaussian(projection, size) for projection in gaussians]
    yield "Gaussian projection", [(features, None) for features in plain]
    yield "Gaussian projection, rows of length 1", [(units(features), None) for features in plain]
    for method in METHODS:
        yield method, list(ours(case, method, size))


def figure(values, form):
    """The mean over the seeds, and how far they go."""
    return f"{statistics.mean(values):{form}} ({spread(values, form)})"


def rows(case):
    """The lines of a case."""
    exact = NetworkKernel(case.network, case.output)(case.held_out)
    gaussians = projections(case)
    for size in case.sizes:
        yardstick = None
        for name, found in contestants(case, size, gaussians):
            grams = [features.astype(float) @ features.T.astype(float) for features, _ in found]
            errors = [off_diagonal_error(gram - exact) for gram in grams]
            recalls = [recall(gram, exact, case.queries) for gram in grams]
            stated = [error for _, error in found if error is not None]
            yardstick = yardstick or statistics.mean(errors)
            yield row(
                case.name,
                case.output,
                str(size),
                name,
                figure(errors, ".4f"),
                figure(stated, ".4f") if stated else "–",
                f"{statistics.mean(errors) / yardstick:.2f}",
                figure(recalls, ".2f"),
            )


def table(quick):
    """The table, line by line."""
    yield from head(COLUMNS)
    for case in cases():
        yield from rows(case.quick() if quick else case)
