"""Time of the engine against one epoch of forward and backward passes over the same data.

Writes ``benchmarks/engine.md``. Runs are interleaved; figures are medians, ratios are taken
within a round.
"""

import platform
import statistics
import time
from datetime import date
from pathlib import Path

import torch
from torch import nn

from sknetsim import NetworkDensity, NetworkKernel, NetworkNeighbors

ROUNDS = 5
BATCH_SIZES = (32, 128, 512)


def perceptron(outputs):
    """64-512-512-d."""
    return nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, outputs)
    )


def convolutional(outputs):
    """The network of the paper's MNIST experiment, with ReLU and maxima."""
    features = [nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, outputs)]
    return nn.Sequential(*features, *head)


def epoch(network, X):
    """Forward and backward passes at the fastest batch size."""

    def run(batch_size):
        start = time.perf_counter()
        for batch in X.split(batch_size):
            network.zero_grad()
            network(batch).sum().backward()
        return time.perf_counter() - start

    return min(run(batch_size) for batch_size in BATCH_SIZES)


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


CASES = {
    "MLP, 1 output": (perceptron(1), torch.randn(2000, 64)),
    "MLP, 10 outputs": (perceptron(10), torch.randn(1000, 64)),
    "CNN, 1 output": (convolutional(1), torch.randn(500, 1, 28, 28)),
    "CNN, 10 outputs": (convolutional(10), torch.randn(100, 1, 28, 28)),
}
CALLS = {
    "soft density, fit and score": lambda net, X: NetworkDensity(net).fit(X).score_samples(X),
    "gram": lambda net, X: NetworkKernel(net)(X),
    "neighbours": lambda net, X: NetworkNeighbors(net).fit(X).kneighbors(),
}


def measure(network, X):
    """Median seconds of an epoch, and median ratios of the calls to it."""
    epochs, ratios = [], {name: [] for name in CALLS}
    for _ in range(ROUNDS):
        yardstick = epoch(network, X)
        epochs.append(yardstick)
        for name, call in CALLS.items():
            ratios[name].append(timed(lambda call=call: call(network, X)) / yardstick)
    return statistics.median(epochs), [statistics.median(values) for values in ratios.values()]


def table():
    """The table, line by line."""
    yield "# The engine against one epoch of forward and backward passes"
    yield ""
    yield (
        f"Measured on {date.today()}: {platform.machine()}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}; medians of {ROUNDS} interleaved rounds; columns beyond the"
        " third are multiples of the epoch."
    )
    yield ""
    yield " | ".join(["| case", "samples", "epoch (s)", *CALLS, ""]).rstrip()
    yield "|---" * (3 + len(CALLS)) + "|"
    for name, (network, X) in CASES.items():
        seconds, ratios = measure(network, X)
        figures = [f"{ratio:.1f}" for ratio in ratios]
        yield " | ".join([f"| {name}", str(len(X)), f"{seconds:.2f}", *figures, ""]).rstrip()


if __name__ == "__main__":
    lines = list(table())
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
