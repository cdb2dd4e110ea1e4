"""Time to compute features, compared with an epoch and with the matrix products only."""

import statistics
from functools import partial

import torch

from lib.features.errors import METHODS
from lib.networks import list_product_widths, make_network_and_samples
from lib.peers.methods import run_epoch
from lib.processes import measure_seconds
from lib.report import format_header, format_range, format_row
from sknetsim import GradientFeaturizer
from sknetsim.datasets import load_mnist, load_mnist_network

COMPONENTS = 256
BATCH_SIZES = (32, 128, 512)
ROUNDS, QUICK_ROUNDS = 5, 2
SAMPLES, QUICK_SAMPLES = 10_000, 1_000
# Number of samples in one matrix product, if only the products are timed.
PRODUCT_SAMPLES = 512
COLUMNS = (
    "network and data",
    "method",
    "samples",
    "seconds",
    "range",
    "epoch (s)",
    "products only (s)",
    "ratio to an epoch",
    "without products, ratio to an epoch",
)
TEXT = f"""\
The table shows the time to transform samples with a fitted featurizer (`output="predicted"`, \
{COMPONENTS} features). It is compared with an epoch (forward and backward passes over the same \
samples at the fastest batch size) and with only the matrix products with the landmarks, on dense \
matrices of the same shapes. Seconds are medians of {ROUNDS} rounds in which all of them take \
turns; ratios are ratios of medians."""


def multiply(factors, X):
    """Compute only the matrix products of ``len(X)`` samples with the landmarks."""
    for gradients, landmarks in factors:
        for part in X.split(PRODUCT_SAMPLES):
            gradients[: len(part)] @ landmarks.mT


def choose_batch_size(network, X):
    """Return the batch size at which an epoch is fastest."""
    return min(BATCH_SIZES, key=lambda size: measure_seconds(run_epoch, network, X, size))


def fit_featurizer(network, X, method):
    """Fit a featurizer: choose its landmarks, or draw its sketch."""
    featurizer = GradientFeaturizer(
        network, "predicted", n_components=COMPONENTS, method=method, random_state=0
    )
    return featurizer.fit(X)


def make_calls(network, X, batch_size):
    """Return the functions of samples that are timed, by name."""
    calls = {method: fit_featurizer(network, X, method).transform for method in METHODS}
    calls["epoch"] = partial(run_epoch, network, batch_size=batch_size)
    factors = [
        (torch.randn(PRODUCT_SAMPLES, width), torch.randn(COMPONENTS, width))
        for width in list_product_widths(network)
    ]
    calls["products"] = partial(multiply, factors)
    return calls


def measure_calls(calls, X, rounds):
    """Return the seconds of each call in each round, after a run on few samples."""
    for call in calls.values():
        call(X[:PRODUCT_SAMPLES])
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(measure_seconds(call, X))
    return seconds


def generate_rows(name, network, X, rounds):
    """Yield the rows of one network."""
    batch_size = choose_batch_size(network, X)
    seconds = measure_calls(make_calls(network, X, batch_size), X, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    epoch, products = medians["epoch"], medians["products"]
    for method in METHODS:
        # A sketch has no landmarks, and so no products with them.
        has_landmarks = method == "nystroem"
        yield format_row(
            name,
            method,
            f"{len(X):,}",
            f"{medians[method]:.3g}",
            format_range(seconds[method], ".3g"),
            f"{epoch:.3g}, batch size {batch_size}",
            f"{products:.3g}" if has_landmarks else "–",
            f"{medians[method] / epoch:.2f}",
            f"{(medians[method] - products) / epoch:.2f}" if has_landmarks else "–",
        )


def generate_table(quick):
    """Yield the table, line by line."""
    count, rounds = (QUICK_SAMPLES, QUICK_ROUNDS) if quick else (SAMPLES, ROUNDS)
    yield from format_header(COLUMNS)
    images = torch.as_tensor(load_mnist("train", count).inputs)
    yield from generate_rows("third-party CNN, MNIST", load_mnist_network(), images, rounds)
    network, X = make_network_and_samples("MLP", 1, count)
    yield from generate_rows("MLP 64-512-512-1, random samples", network, X, rounds)
