"""Training on MNIST with the similarity of a pair of images as a term of the loss."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from joblib import Parallel, delayed
from scipy import stats
from torch import nn

from lib.networks import PaperNetwork
from sknetsim.losses import PairSimilarityLoss

BATCH = 64
#: Weights of a pair of the same class and of a pair of two classes; None: no such pair.
MODES = {
    "baseline": (None, None),
    "attraction": (1.0, None),
    "repulsion": (-1.0, None),
    "contrast": (1.0, -1.0),
}
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73")


class ClassAgainstOthers(nn.Module):
    """Log probability of a class minus the mean log probability of the other classes.

    The similarity of two images is that of the gradients of this output.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, labels):
        """Return the outputs (n, 1) of images for their labels."""
        # Weight 1 for the class, -1/9 for each other class.
        weights = (nn.functional.one_hot(labels, 10) * 10 - 1) / 9
        return (self.network(images).log_softmax(dim=1) * weights).sum(dim=1, keepdim=True)


def draw_pair(X, y, same, generator):
    """Draw two images of one class, or of two classes, with their labels."""
    first = int(torch.randint(len(y), (), generator=generator))
    others = ((y == y[first]) == same).nonzero()[:, 0]
    others = others[others != first]
    second = int(others[int(torch.randint(len(others), (), generator=generator))])
    return tuple((X[[row]], y[[row]]) for row in (first, second))


def measure_accuracy(network, X, y, count, generator):
    """Return the accuracy on ``count`` random images."""
    rows = torch.randint(len(y), (count,), generator=generator)
    with torch.no_grad():
        return float((network(X[rows]).argmax(dim=1) == y[rows]).float().mean())


def train(mode, seed, rate, steps, tested, train_data, test_data):
    """Train a network and return the accuracy after each step.

    All modes of a seed have the same initial weights, batches, pairs and test images.
    """
    torch.manual_seed(seed)
    network = PaperNetwork()
    output, generator = ClassAgainstOthers(network), torch.Generator().manual_seed(seed)
    pairs = torch.Generator().manual_seed(seed)
    terms = [
        (PairSimilarityLoss(weight), same)
        for weight, same in zip(MODES[mode], (True, False), strict=True)
        if weight is not None
    ]
    optimizer, accuracies = torch.optim.Adam(network.parameters(), lr=rate), []
    X, y = train_data
    for _ in range(steps):
        rows = torch.randint(len(y), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(network(X[rows]), y[rows])
        for term, same in terms:
            loss = loss + term(output, *draw_pair(X, y, same, pairs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracies.append(measure_accuracy(network, *test_data, tested, generator))
    return accuracies


def measure_accuracies(rate, seeds, steps, tested, train_data, test_data):
    """Return accuracies (seeds, steps) by mode."""
    jobs = [(mode, seed, rate, steps, tested) for mode in MODES for seed in range(seeds)]
    results = Parallel(n_jobs=-1)(delayed(train)(*job, train_data, test_data) for job in jobs)
    return dict(zip(MODES, np.reshape(results, (len(MODES), seeds, steps)), strict=True))


def average_up_to(accuracies):
    """Return the mean of the accuracies up to each step."""
    return accuracies.cumsum(axis=1) / np.arange(1, accuracies.shape[1] + 1)


def compute_gains(accuracies, step):
    """Return the gain on the baseline after a step by mode: mean and half the 95 % interval."""
    baseline = accuracies["baseline"]
    differences = {mode: (values - baseline)[:, step - 1] for mode, values in accuracies.items()}
    return {
        mode: (values.mean(), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        for mode, values in differences.items()
    }


def draw_accuracies(accuracies):
    """Draw the mean and the standard deviation of the seeds, by step."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    titles = ("accuracy after each step", "mean of the accuracies up to it")
    for axes, title, change in zip(panels, titles, (np.asarray, average_up_to), strict=True):
        for (mode, values), color in zip(accuracies.items(), COLORS, strict=True):
            curves, steps = change(values), np.arange(1, values.shape[1] + 1)
            mean, deviation = curves.mean(axis=0), curves.std(axis=0)
            axes.plot(steps, mean, color=color, label=mode)
            axes.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.12)
        axes.set(xlabel="steps", title=title)
    panels[0].legend(loc="lower right")
    figure.suptitle(f"Mean and standard deviation of {len(values)} seeds")
    return figure
