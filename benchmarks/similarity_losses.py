"""Cost of a training step with a similarity loss, in plain steps.

Writes ``benchmarks/results/similarity_losses.md``. With ``--quick`` it only prints, after three
rounds.
"""

import statistics
import time

import torch
from lib import report
from lib.networks import PaperNetwork
from torch import nn

from sknetsim.losses import ContrastiveSimilarityLoss, GroupSimilarityLoss, PairSimilarityLoss

ROUNDS = 15
BATCH = 64


def compute_plain_loss(network, X, y):
    """Return the cross-entropy."""
    return nn.functional.cross_entropy(network(X), y)


def add_pair(loss):
    """Add the similarity loss of two samples of the batch to the cross-entropy."""
    return lambda network, X, y: compute_plain_loss(network, X, y) + loss(network, X[:1], X[1:2])


def add_groups(loss):
    """Add the similarity loss of the classes of the batch to the cross-entropy."""
    return lambda network, X, y: compute_plain_loss(network, X, y) + loss(network, X, y)


LOSSES = {
    "one pair, predicted logit": add_pair(PairSimilarityLoss(0.1, output="predicted")),
    "one pair, all ten logits": add_pair(PairSimilarityLoss(0.1)),
    "classes, predicted logit": add_groups(GroupSimilarityLoss(0.1, output="predicted")),
    "classes and contrast, predicted logit": add_groups(
        ContrastiveSimilarityLoss(0.1, output="predicted")
    ),
    "classes, predicted logit, last layer's gradients": add_groups(
        GroupSimilarityLoss(0.1, output="predicted", parameters="last_layer")
    ),
    "classes, all ten logits": add_groups(GroupSimilarityLoss(0.1)),
}


def run_step(network, optimizer, compute_loss, X, y):
    """Run one training step and return its seconds."""
    start = time.perf_counter()
    optimizer.zero_grad()
    compute_loss(network, X, y).backward()
    optimizer.step()
    return time.perf_counter() - start


def measure_ratios(rounds):
    """Return the ratios of each loss to the plain step just before it, by round."""
    torch.manual_seed(0)
    network = PaperNetwork()
    X, y = torch.randn(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    ratios = {name: [] for name in LOSSES}
    for _ in range(rounds + 1):
        for name, compute_loss in LOSSES.items():
            plain = run_step(network, optimizer, compute_plain_loss, X, y)
            ratios[name].append(run_step(network, optimizer, compute_loss, X, y) / plain)
    # The first round is a warm-up.
    return {name: values[1:] for name, values in ratios.items()}


def generate_report(quick):
    """Yield the report, line by line."""
    yield from report.format_title(__file__, "Cost of similarity losses", ["numpy"])
    yield (
        f"The table shows the time of a step of Adam on {BATCH} images (28 x 28) with the network"
        " of the paper's experiment (317,069 parameters) and with cross-entropy plus a similarity"
        " loss, divided by the time of a plain step, with cross-entropy only. Values are the median"
        f" and the range of {ROUNDS} rounds, alternating with plain steps. The ratio includes the"
        " plain step: subtract 1 for the similarities."
    )
    yield ""
    yield from report.format_header(["similarity loss", "plain steps", "range"])
    for name, ratios in measure_ratios(3 if quick else ROUNDS).items():
        median = f"{statistics.median(ratios):.1f}"
        yield report.format_row(name, median, report.format_range(ratios, ".1f"))


if __name__ == "__main__":
    report.write_report(__file__, __doc__, "three rounds", generate_report)
