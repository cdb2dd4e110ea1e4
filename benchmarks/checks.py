"""Time that the checks of a network take in a soft density.

    python benchmarks/checks.py

Writes ``benchmarks/results/checks.md``. With ``--quick`` it only prints, after two rounds on a
tenth of the samples.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from unittest import mock

import torch
from lib.networks import make_network_and_samples
from lib.report import format_header, format_row, format_title, write_report
from torch import nn

from sknetsim import NetworkDensity
from sknetsim._gradients import engine
from sknetsim._gradients.graph import Graph, describe_graph
from sknetsim._networks.isolation import IsolatedNetwork
from sknetsim.estimators._changes import FittedNetwork

ROUNDS, QUICK_ROUNDS, QUICK = 15, 2, 10
COLUMNS = ("case", "seconds", "all checks", "samples again", "graph", "writes", "changes since fit")


class Encoder(nn.Module):
    """Transformer of two layers on 16 positions of width 64."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(64, 1)

    def forward(self, positions):
        """Return one output of the mean over the positions."""
        return self.head(self.encoder(positions).mean(1))


def make_encoder(count):
    """Make a transformer and samples for it."""
    torch.manual_seed(0)
    return Encoder(), torch.randn(count, 16, 64)


@dataclass(frozen=True)
class Case:
    """Network and samples, by the name of the case."""

    name: str
    make: Callable
    count: int


CASES = (
    Case("MLP", lambda count: make_network_and_samples("MLP", 1, count), 10_000),
    Case("CNN", lambda count: make_network_and_samples("CNN", 1, count), 1_000),
    Case("transformer", make_encoder, 500),
)


def skip_samples_again():
    """Verify only chunks that are unlike earlier ones."""
    verify = engine.GradientEngine._verify

    def verify_if_unlike(self, module, plan, inputs, targets, jacobian, is_alike):
        return is_alike or verify(self, module, plan, inputs, targets, jacobian, is_alike)

    return mock.patch.object(engine.GradientEngine, "_verify", verify_if_unlike)


def skip_graph():
    """Describe the graph of the first batch only."""
    known = []

    def describe_first(outputs):
        if not known:
            known.append(describe_graph(outputs))
        return Graph(known[0].structure, False, {})

    return mock.patch.object(engine, "describe_graph", describe_first)


def skip_writes():
    """Record no writes, and restore no attributes after a forward pass."""
    return mock.patch.object(IsolatedNetwork, "restore_weights", lambda self: nullcontext())


def skip_changes():
    """Do not compare the network with that of fit."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(FittedNetwork, "of", lambda fitted, source: None))
    return stack


SKIPS = (skip_samples_again, skip_graph, skip_writes, skip_changes)


def measure(network, X, skips):
    """Return the seconds of a soft density without some checks."""
    with ExitStack() as stack:
        for skip in skips:
            stack.enter_context(skip())
        start = time.perf_counter()
        NetworkDensity(network, method="soft").fit(X).score_samples(X)
        return time.perf_counter() - start


def measure_row(case, count, rounds):
    """Measure a case with all checks, without any, and without each; format its row."""
    network, X = case.make(count)
    variants = [(), SKIPS, *((skip,) for skip in SKIPS)]
    seconds = [[] for _ in variants]
    for turn in range(rounds + 1):
        for index, skips in enumerate(variants):
            elapsed = measure(network, X, skips)
            if turn:  # The first run is not counted.
                seconds[index].append(elapsed)
    full, *others = seconds
    # Each round has its own ratio, so that slow changes of the machine's speed cancel.
    shares = [
        statistics.median(a / b - 1 for a, b in zip(full, other, strict=True)) for other in others
    ]
    return format_row(
        f"{case.name}, N = {count:,}",
        f"{statistics.median(full):.3g}",
        *(f"{100 * share:.1f} %" for share in shares),
    )


def generate_report(quick):
    """Yield the report, line by line."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    yield from format_title(__file__, "Time of the checks of a network", ("scikit-learn",))
    yield (
        "Seconds of a soft density (fit and score of the same N samples) with all checks, and the"
        " time that checks add: with all checks, divided by without any, or without one kind of"
        f" check, minus one. Medians of {rounds} rounds, in which all variants take turns, after a"
        " first one that is not counted. MLP: 64-512-512-1; CNN: conv5(32), conv5(64), 256, 1, on"
        " 28 x 28; transformer: two layers of width 64 on 16 positions; random weights and samples."
        " *Samples again*: samples of each chunk that are evaluated in a batch of their own."
        " *Graph*: the structure of each chunk's autograd graph. *Writes*: weights, inputs and"
        " attributes that a forward pass changes. *Changes since fit*: contents of the network in"
        " fit and in each call."
    )
    yield ""
    yield from format_header(COLUMNS)
    for case in CASES:
        yield measure_row(case, case.count // QUICK if quick else case.count, rounds)


if __name__ == "__main__":
    write_report(
        __file__, __doc__.splitlines()[0], "two rounds on a tenth of the samples", generate_report
    )
