"""Difference between the similarities of features and the exact ones, on samples not fitted."""

import math
import statistics
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from lib.report import format_header, format_range, format_row
from lib.training import train_digits_network
from sknetsim import GradientFeaturizer, NetworkKernel
from sknetsim.datasets import load_mnist, load_mnist_network

SEEDS = (0, 1, 2)
QUICK_SIZE = 64
NEIGHBOURS = 10
METHODS = ("nystroem", "sketch")
PARTS = (("train", 5000), ("test", 1000))
# Bytes of exact features, and rows of a Gaussian matrix, that are in memory at a time.
EXACT_BYTES = 2**31
MATRIX_ROWS = 4096
COLUMNS = (
    "network and data",
    "output",
    "features",
    "method",
    "kernel RMSE",
    "stated error",
    "ratio to Gaussian",
    "recall@10",
)
TEXT = """\
Features are fitted on 1,000 digits, on which the MLP was trained, or on 5,000 training images of \
MNIST. They are tested on samples that were not fitted: 797 held-out digits or 1,000 test images. \
Errors are differences from `NetworkKernel`, over all pairs of different samples. The recall is \
that of the ten most similar samples: the samples of one fifth are the queries, and the other four \
fifths are searched. The stated error is the estimator's `kernel_error_`. The Gaussian projection \
multiplies exact features by a matrix as drawn by scikit-learn's `GaussianRandomProjection`; in a \
second variant the projected features are scaled to length 1, the length of the exact ones. Cells \
contain the mean over three seeds, with the smallest and the largest value."""


@dataclass(frozen=True)
class Case:
    """A network with samples to fit features on and samples that are not fitted."""

    name: str
    network: nn.Module
    fitted: torch.Tensor
    held_out: torch.Tensor
    output: str
    sizes: tuple
    seeds: tuple = SEEDS

    def shorten(self):
        """Return the case with fewer samples, one size and one seed."""
        held_out = self.held_out[: len(self.held_out) // 5]
        return replace(self, held_out=held_out, sizes=(QUICK_SIZE,), seeds=SEEDS[:1])

    @property
    def queries(self):
        """Number of held-out samples whose neighbours among the others are searched."""
        return len(self.held_out) // 5


def make_cases():
    """Yield the cases."""
    network, fitted, held_out = train_digits_network()
    name = "MLP 64-128-128-10, digits"
    for output in ("predicted", "all"):
        yield Case(name, network, fitted, held_out, output, (64, 256))
    network, name = load_mnist_network(), "third-party CNN, MNIST"
    fitted, held_out = (torch.as_tensor(load_mnist(*part).inputs) for part in PARTS)
    yield Case(name, network, fitted, held_out, "predicted", (64, 256, 512))


def project_held_out(case):
    """Return exact features times a Gaussian matrix per seed, (seeds, n, largest size)."""
    exact = GradientFeaturizer(case.network, case.output).fit(case.held_out[:1])
    step = max(1, EXACT_BYTES // (4 * exact.n_components_))
    parts = [project(exact.transform(part), case) for part in case.held_out.split(step)]
    return np.concatenate(parts, axis=1)


def project(features, case):
    """Multiply exact features by the Gaussian matrix of each seed.

    The matrix is too large for memory: it is drawn again for each part of the samples, a few rows
    at a time.
    """
    size = max(case.sizes)
    products = torch.zeros(len(case.seeds), len(features), size)
    for seed, product in zip(case.seeds, products, strict=True):
        generator = torch.Generator().manual_seed(seed)
        for columns in torch.from_numpy(features).split(MATRIX_ROWS, dim=1):
            product += columns @ torch.randn(columns.shape[1], size, generator=generator)
    return products.numpy()


def select_projection(projection, size):
    """Return a Gaussian projection to ``size`` features: the first columns, scaled."""
    return projection[:, :size] / math.sqrt(size)


def scale_to_unit_length(features):
    """Scale features to length 1, the length of exact features."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def featurize_held_out(case, method, size):
    """Yield the features of the held-out samples and the stated error for each seed."""
    for seed in case.seeds:
        featurizer = GradientFeaturizer(
            case.network, case.output, n_components=size, method=method, random_state=seed
        )
        features = featurizer.fit(case.fitted).transform(case.held_out)
        yield features, featurizer.kernel_error_


def compute_error(gram, exact):
    """Return the root mean square difference of two gram matrices off the diagonal."""
    squares = (gram - exact) ** 2
    np.fill_diagonal(squares, 0)
    return math.sqrt(squares.sum() / (len(squares) * (len(squares) - 1)))


def find_neighbours(gram, queries):
    """Return the most similar of the other samples for each query."""
    return np.argpartition(-gram[:queries, queries:], NEIGHBOURS - 1)[:, :NEIGHBOURS]


def compute_recall(gram, exact, queries):
    """Return the share of the exact neighbours that are among those of the features."""
    pairs = zip(find_neighbours(gram, queries), find_neighbours(exact, queries), strict=True)
    return statistics.mean(len(np.intersect1d(*pair)) for pair in pairs) / NEIGHBOURS


def compute_features(case, size, projections):
    """Yield each method with its features and its stated error (or None) for each seed."""
    plain = [select_projection(projection, size) for projection in projections]
    yield "Gaussian projection", [(features, None) for features in plain]
    scaled = [(scale_to_unit_length(features), None) for features in plain]
    yield "Gaussian projection, scaled to length 1", scaled
    for method in METHODS:
        yield method, list(featurize_held_out(case, method, size))


def format_mean(values, form):
    """Format the mean over the seeds with the smallest and the largest."""
    return f"{statistics.mean(values):{form}} ({format_range(values, form)})"


def generate_rows(case):
    """Yield the rows of a case."""
    exact = NetworkKernel(case.network, case.output)(case.held_out)
    projections = project_held_out(case)
    for size in case.sizes:
        gaussian_error = None
        for method, runs in compute_features(case, size, projections):
            grams = [features.astype(float) @ features.T.astype(float) for features, _ in runs]
            errors = [compute_error(gram, exact) for gram in grams]
            recalls = [compute_recall(gram, exact, case.queries) for gram in grams]
            stated = [error for _, error in runs if error is not None]
            gaussian_error = gaussian_error or statistics.mean(errors)
            yield format_row(
                case.name,
                case.output,
                str(size),
                method,
                format_mean(errors, ".4f"),
                format_mean(stated, ".4f") if stated else "–",
                f"{statistics.mean(errors) / gaussian_error:.2f}",
                format_mean(recalls, ".2f"),
            )


def generate_table(quick):
    """Yield the table, line by line."""
    yield from format_header(COLUMNS)
    for case in make_cases():
        yield from generate_rows(case.shorten() if quick else case)
