"""
Similarity loss and training speed on MNIST
===========================================

This example tests whether a similarity loss speeds up the first steps of training, as [1]_ reports.
It is a short form of the experiment of the paper: a CNN is trained on MNIST, and the similarity of
one pair of images of the same class is added to the loss of each batch. The text of the paper
describes enforcing similarity, but the code that its authors released adds the similarity to the
loss that is minimised, which lowers it. This example therefore tries both signs, and a contrast,
which makes pairs of the same class similar and pairs of two classes dissimilar.

Neither sign speeds up training, here or in the long form, whose results are in
``docs/training.md``. There, the three are 1.0 to 1.6 percentage points behind after 150 steps (mean
of 20 seeds). At a tenth of the learning rate (mean of six seeds), the accuracies up to step 80 are
67 % without the loss, 55 % with attraction and 56 % with repulsion. The published values, read from
the figure by eye, are 66 % without and 70 % with similarity: the published accuracy with similarity
is about that of this baseline without it. Other weights were not tried.
``benchmarks/similarity_training.py`` runs the long form.

.. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural Network
   Perspective", NeurIPS 2019.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from joblib import Parallel, delayed
from scipy import stats
from torch import nn

from sknetsim.datasets import load_mnist
from sknetsim.losses import PairSimilarityLoss

SEEDS = 6
STEPS = 40
BATCH = 64
RATE = 1e-3
IMAGES = 10_000
#: Test images that are drawn anew after each step.
TESTED = 200
#: Processes that share the runs; -1: one per core.
JOBS = -1
#: Weights of a pair of the same class and of a pair of different classes; None: no such pair.
MODES = {
    "baseline": (None, None),
    "attraction": (1.0, None),
    "repulsion": (-1.0, None),
    "contrast": (1.0, -1.0),
}
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73")

# %%
# Network and compared output
# ---------------------------
# The network is that of the paper. The similarity compares the gradients of one output: the log
# probability of the class of the image minus the mean of the log probabilities of the other
# classes.


def make_network():
    """Return an untrained CNN of 317,069 parameters."""
    first = [nn.Conv2d(1, 32, 5), nn.PReLU(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(32, 64, 5), nn.PReLU(), nn.AvgPool2d(2)]
    last = [nn.Flatten(), nn.Linear(1024, 256), nn.PReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*first, *second, *last)


class ClassAgainstOthers(nn.Module):
    """Log probability of a class minus the mean of those of the other classes."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, labels):
        # weight 1 for the class of the image, -1/9 for each of the nine others
        weights = (nn.functional.one_hot(labels, 10) * 10 - 1) / 9
        return (self.network(images).log_softmax(dim=1) * weights).sum(dim=1, keepdim=True)


# %%
# Training
# --------
# For each seed, the four modes begin with the same weights and use the same batches and test
# images, so that they can be compared seed by seed. The accuracy is measured on test images that
# are drawn anew after each step.


def draw_pair(X, y, same, generator):
    """Return two images of one class, or of two classes, with their labels."""
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


def run(mode, seed, rate, steps, tested, train, test):
    """Train a network and return its accuracy after each step."""
    torch.manual_seed(seed)
    network = make_network()
    compared, generator = ClassAgainstOthers(network), torch.Generator().manual_seed(seed)
    pair_generator = torch.Generator().manual_seed(seed)
    terms = [
        (PairSimilarityLoss(weight), same)
        for weight, same in zip(MODES[mode], (True, False), strict=True)
        if weight is not None
    ]
    optimizer, accuracies = torch.optim.Adam(network.parameters(), lr=rate), []
    for _ in range(steps):
        rows = torch.randint(len(train[1]), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(network(train[0][rows]), train[1][rows])
        for term, same in terms:
            loss = loss + term(compared, *draw_pair(*train, same, pair_generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracies.append(measure_accuracy(network, *test, tested, generator))
    return accuracies


def load_tensors(part, count):
    """Return inputs of the network, and labels, as tensors."""
    digits = load_mnist(part, count)
    return torch.as_tensor(digits.inputs), torch.as_tensor(digits.labels)


def measure_curves(rate, seeds, steps, tested, train, test):
    """Return for each mode the accuracies of shape (seeds, steps)."""
    jobs = [(mode, seed, rate, steps, tested) for mode in MODES for seed in range(seeds)]
    runs = Parallel(n_jobs=JOBS)(delayed(run)(*job, train, test) for job in jobs)
    return dict(zip(MODES, np.reshape(runs, (len(MODES), seeds, steps)), strict=True))


def compute_running_mean(accuracies):
    """Return for each step the mean of the accuracies up to it."""
    return accuracies.cumsum(axis=1) / np.arange(1, accuracies.shape[1] + 1)


def compute_gains(curves, step):
    """Return for each mode the gain over the baseline: mean and half of its 95 % interval."""
    gains = {}
    for mode, accuracies in curves.items():
        values = (accuracies - curves["baseline"])[:, step - 1]
        half_width = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        gains[mode] = values.mean(), half_width
    return gains


# %%
# Gain over the baseline
# ----------------------
# The table shows the mean of the accuracies up to a step, as the authors plot it, and the gain over
# the baseline with a 95 % interval, in percent. All three modes are behind, most of all the
# contrast. Of the two signs, the released one, repulsion, is the less harmful one.

if __name__ == "__main__":
    data = load_tensors("train", IMAGES), load_tensors("test", 10_000)
    curves = measure_curves(RATE, SEEDS, STEPS, TESTED, *data)
    running_means = {mode: compute_running_mean(values) for mode, values in curves.items()}
    for step in (STEPS // 2, STEPS):
        print(f"Mean accuracy up to step {step} (%), and gain")
        for mode, (gain, half_width) in compute_gains(running_means, step).items():
            mean = 100 * running_means[mode][:, step - 1].mean()
            interval = "" if mode == "baseline" else f"{100 * gain:+8.1f} ± {100 * half_width:.1f}"
            print(f"    {mode:<12}{mean:5.1f}{interval}")

# %%
# Accuracy by step
# ----------------
# The figure shows the accuracy and its running mean. The running mean changes more slowly, and a
# slow start lowers it for longer. In the first five steps, repulsion is about where the baseline
# is, or slightly ahead; then it falls behind.


def draw_curves(curves):
    """Draw the mean and the standard deviation of the seeds for each step."""
    figure, row = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    titles = ("accuracy after each step", "mean of the accuracies up to the step")
    transforms = (np.asarray, compute_running_mean)
    for axes, title, transform in zip(row, titles, transforms, strict=True):
        for (mode, accuracies), color in zip(curves.items(), COLORS, strict=True):
            values, steps = transform(accuracies), np.arange(1, accuracies.shape[1] + 1)
            mean, spread = values.mean(axis=0), values.std(axis=0)
            axes.plot(steps, mean, color=color, label=mode)
            axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.12)
        axes.set(xlabel="step", title=title)
    row[0].legend(loc="lower right")
    figure.suptitle(f"Mean and standard deviation of {len(accuracies)} seeds")
    return figure


if __name__ == "__main__":
    draw_curves(curves)
    plt.show()
