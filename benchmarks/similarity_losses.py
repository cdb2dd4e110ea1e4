"""What a step of training costs with a similarity loss, in plain steps.

Writes ``benchmarks/similarity_losses.md``. With ``--quick`` it only prints, three rounds.
"""

import statistics
import time

import torch
from lib import report
from torch import nn

from sknetsim.losses import ContrastiveSimilarityLoss, GroupSimilarityLoss, PairSimilarityLoss

ROUNDS = 15
BATCH = 64


class PosterNetwork(nn.Sequential):
    """Of the paper's experiment on MNIST, 317,069 parameters."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 5),
            nn.PReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(32, 64, 5),
            nn.PReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(1024, 256),
            nn.PReLU(),
            nn.Linear(256, 10),
        )


def plain(network, X, y):
    """Cross-entropy alone."""
    return nn.functional.cross_entropy(network(X), y)


def one_pair(loss):
    """Of two rows of the batch."""
    return lambda network, X, y: plain(network, X, y) + loss(network, X[:1], X[1:2])


def in_groups(loss):
    """Of the classes of the batch."""
    return lambda network, X, y: plain(network, X, y) + loss(network, X, y)


WAYS = {
    "one pair, predicted logit": one_pair(PairSimilarityLoss(0.1, output="predicted")),
    "one pair, all ten logits": one_pair(PairSimilarityLoss(0.1)),
    "classes, predicted logit": in_groups(GroupSimilarityLoss(0.1, output="predicted")),
    "classes and contrast, predicted logit": in_groups(
        ContrastiveSimilarityLoss(0.1, output="predicted")
    ),
    "classes, predicted logit, last layer's gradients": in_groups(
        GroupSimilarityLoss(0.1, output="predicted", parameters="last_layer")
    ),
    "classes, all ten logits": in_groups(GroupSimilarityLoss(0.1)),
}


def step(network, optimizer, loss, X, y):
    """Its seconds."""
    start = time.perf_counter()
    optimizer.zero_grad()
    loss(network, X, y).backward()
    optimizer.step()
    return time.perf_counter() - start


def ratios(rounds):
    """Of each way and the plain step beside it, by round."""
    torch.manual_seed(0)
    network = PosterNetwork()
    X, y = torch.randn(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    found = {name: [] for name in WAYS}
    for _ in range(rounds + 1):
        for name, loss in WAYS.items():
            before = step(network, optimizer, plain, X, y)
            found[name].append(step(network, optimizer, loss, X, y) / before)
    return {name: values[1:] for name, values in found.items()}


def lines(quick):
    """The whole text, line by line."""
    yield "# What similarity losses cost"
    yield ""
    yield f"{report.setting(['numpy'])}."
    yield ""
    yield (
        f"A step of Adam on {BATCH} images (28 x 28) by the network of the paper's experiment,"
        " 317,069 parameters, with cross-entropy and a similarity loss beside it, in steps with"
        f" cross-entropy alone: median, least and most of {ROUNDS} rounds, in turn with plain"
        " steps. The plain step is among them: 1 less is what the similarities take."
    )
    yield ""
    yield from report.head(["similarity of", "plain steps", "least to most"])
    for name, values in ratios(3 if quick else ROUNDS).items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        yield report.row(name, f"{statistics.median(values):.1f}", spread)


if __name__ == "__main__":
    report.run(__file__, __doc__, "three rounds", lines)
