"""What featurising costs, against an epoch and against the matrix products alone."""

import statistics
import time
from functools import partial

import torch

from lib.data.images import mnist, mnist_network
from lib.features.errors import METHODS
from lib.networks import network_and_rows, product_widths
from lib.peers.contestants import epoch
from lib.report import head, row, spread
from sknetsim import GradientFeaturizer

COMPONENTS = 256
BATCH_SIZES = (32, 128, 512)
ROUNDS, QUICK_ROUNDS = 5, 2
ROWS, QUICK_ROWS = 10_000, 1_000
# Rows that the products alone are timed with at a time.
PRODUCT_ROWS = 512
COLUMNS = (
    "network and data",
    "features",
    "rows",
    "seconds",
    "least to most",
    "epoch (s)",
    "products alone (s)",
    "times an epoch",
    "less products, times an epoch",
)
TEXT = f"""\
Featurising rows with a fitted featurizer, `output="predicted"`, {COMPONENTS} features, against an \
epoch of forward and backward passes over the same rows at its fastest batch size, and against \
nothing but the matrix products with the landmarks, on dense matrices of the same shapes. Medians \
of {ROUNDS} rounds in which all take turns; ratios are ratios of medians."""


def multiplied(factors, X):
    """Nothing but the matrix products of as many rows with the landmarks."""
    for gradients, landmarks in factors:
        for part in X.split(PRODUCT_ROWS):
            gradients[: len(part)] @ landmarks.mT


def timed(call):
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def fastest_batch_size(network, X):
    """Of an epoch."""
    return min(BATCH_SIZES, key=lambda size: timed(lambda: epoch(network, X, size)))


def fitted(network, X, method):
    """A featurizer that knows its landmarks, or its sketch."""
    featurizer = GradientFeaturizer(
        network, "predicted", n_components=COMPONENTS, method=method, random_state=0
    )
    return featurizer.fit(X)


def contestants(network, X, batch_size):
    """What takes turns, by name."""
    calls = {method: fitted(network, X, method).transform for method in METHODS}
    calls["epoch"] = partial(epoch, network, batch_size=batch_size)
    factors = [
        (torch.randn(PRODUCT_ROWS, width), torch.randn(COMPONENTS, width))
        for width in product_widths(network)
    ]
    calls["products"] = partial(multiplied, factors)
    return calls


def raced(calls, X, rounds):
    """Seconds of each, after a first run on few rows that is not counted."""
    for call in calls.values():
        call(X[:PRODUCT_ROWS])
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed(partial(call, X)))
    return seconds


def rows(name, network, X, rounds):
    """The lines of a network."""
    batch_size = fastest_batch_size(network, X)
    seconds = raced(contestants(network, X, batch_size), X, rounds)
    middle = {contestant: statistics.median(values) for contestant, values in seconds.items()}
    epoch_seconds, products = middle["epoch"], middle["products"]
    for method in METHODS:
        # A sketch has no landmarks to multiply with.
        of_landmarks = method == "nystroem"
        yield row(
            name,
            method,
            f"{len(X):,}",
            f"{middle[method]:.3g}",
            spread(seconds[method], ".3g"),
            f"{epoch_seconds:.3g}, batch size {batch_size}",
            f"{products:.3g}" if of_landmarks else "–",
            f"{middle[method] / epoch_seconds:.2f}",
            f"{(middle[method] - products) / epoch_seconds:.2f}" if of_landmarks else "–",
        )


def table(quick):
    """The table, line by line."""
    count, rounds = (QUICK_ROWS, QUICK_ROUNDS) if quick else (ROWS, ROUNDS)
    yield from head(COLUMNS)
    images = torch.as_tensor(mnist("train", count).inputs)
    yield from rows("foreign CNN, MNIST", mnist_network(), images, rounds)
    yield from rows("MLP 64-512-512-1, random rows", *network_and_rows("MLP", 1, count), rounds)
