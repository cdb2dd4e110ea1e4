"""
Does similarity speed up training?
==================================

The experiment of [1]_, in short: the first steps on MNIST, with one pair of images of the same
class beside each batch, whose similarity is added to the loss. The paper's text speaks of enforcing
it; the code that its authors released adds the similarity to the loss that is minimised, which
lowers it. So here are both signs, and a contrast: pairs of a class are made alike, pairs of two
classes unlike.

No sign speeds it up, neither here nor in the long form, of which ``docs/training.md`` tells: there
the three are 1.0 to 1.6 points behind after 150 steps (mean of 20 seeds), and at a tenth of the
rate (mean of six seeds) accuracies up to step 80 are 67 % without, 55 % with attraction and 56 %
with repulsion. The published ones, read off by eye, are 66 % without and 70 % with similarity: what
is reported with it is about what this baseline does without. Other weights were not tried.
``benchmarks/similarity_training.py`` runs the long form.

.. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural Network
   Perspective", NeurIPS 2019.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import mnist
from joblib import Parallel, delayed
from scipy import stats
from torch import nn

from sknetsim.losses import PairSimilarityLoss

SEEDS = 6
STEPS = 40
BATCH = 64
RATE = 1e-3
IMAGES = 10_000
#: Test images drawn anew after each step.
TESTED = 200
#: Processes that share the runs; -1: one per core.
JOBS = -1
#: Weights of a pair of the same class and of one of different classes; None: no such pair.
MODES = {
    "baseline": (None, None),
    "attraction": (1.0, None),
    "repulsion": (-1.0, None),
    "contrast": (1.0, -1.0),
}
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73")

# %%
# A network, and what is compared
# -------------------------------
# The network is that of the paper. Compared are the gradients of the logarithm of the probability
# of an image's own class, less the mean of the others'.


def make_network():
    """317,069 parameters."""
    first = [nn.Conv2d(1, 32, 5), nn.PReLU(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(32, 64, 5), nn.PReLU(), nn.AvgPool2d(2)]
    last = [nn.Flatten(), nn.Linear(1024, 256), nn.PReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*first, *second, *last)


class ClassAgainstOthers(nn.Module):
    """The logarithm of the probability of a class, less the mean of the others'."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, labels):
        weights = (nn.functional.one_hot(labels, 10) * 10 - 1) / 9
        return (self.network(images).log_softmax(dim=1) * weights).sum(dim=1, keepdim=True)


# %%
# Training
# --------
# The four modes of a seed begin with the same weights and see the same batches and test images, so
# that they are compared seed by seed. Accuracy is that on test images drawn anew after each step.


def pair(X, y, same, generator):
    """Two images of one class, or of two, with their labels."""
    first = int(torch.randint(len(y), (), generator=generator))
    others = ((y == y[first]) == same).nonzero()[:, 0]
    others = others[others != first]
    second = int(others[int(torch.randint(len(others), (), generator=generator))])
    return tuple((X[[row]], y[[row]]) for row in (first, second))


def accuracy(network, X, y, count, generator):
    """On so many images, drawn at random."""
    rows = torch.randint(len(y), (count,), generator=generator)
    with torch.no_grad():
        return float((network(X[rows]).argmax(dim=1) == y[rows]).float().mean())


def run(mode, seed, rate, steps, tested, train, test):
    """Accuracy after each step."""
    torch.manual_seed(seed)
    network = make_network()
    compared, generator = ClassAgainstOthers(network), torch.Generator().manual_seed(seed)
    pairs = torch.Generator().manual_seed(seed)
    terms = [
        (PairSimilarityLoss(weight), same)
        for weight, same in zip(MODES[mode], (True, False), strict=True)
        if weight is not None
    ]
    optimizer, found = torch.optim.Adam(network.parameters(), lr=rate), []
    for _ in range(steps):
        rows = torch.randint(len(train[1]), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(network(train[0][rows]), train[1][rows])
        for term, same in terms:
            loss = loss + term(compared, *pair(*train, same, pairs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(accuracy(network, *test, tested, generator))
    return found


def scaled(samples):
    """Images as the network takes them, and labels, as tensors."""
    return torch.as_tensor(samples.inputs), torch.as_tensor(samples.labels)


def curves(rate, seeds, steps, tested, train, test):
    """Accuracies of shape (seeds, steps) by mode."""
    jobs = [(mode, seed, rate, steps, tested) for mode in MODES for seed in range(seeds)]
    found = Parallel(n_jobs=JOBS)(delayed(run)(*job, train, test) for job in jobs)
    return dict(zip(MODES, np.reshape(found, (len(MODES), seeds, steps)), strict=True))


def running_mean(values):
    """Over the steps up to each."""
    return values.cumsum(axis=1) / np.arange(1, values.shape[1] + 1)


def gains(found, step):
    """On the baseline after a step, by mode: mean and half of the width of its 95 % interval."""
    differences = {mode: (f - found["baseline"])[:, step - 1] for mode, f in found.items()}
    return {
        mode: (values.mean(), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        for mode, values in differences.items()
    }


# %%
# What is gained on the baseline
# ------------------------------
# The mean of the accuracies up to a step, as the authors plot it, and the gain on the baseline with
# a 95 % interval, in percent. All three are behind, most of all the contrast. Of the signs the
# released one, repulsion, does the least harm.

if __name__ == "__main__":
    data = scaled(mnist("train", IMAGES)), scaled(mnist("test", 10_000))
    found = curves(RATE, SEEDS, STEPS, TESTED, *data)
    means = {mode: running_mean(values) for mode, values in found.items()}
    for step in (STEPS // 2, STEPS):
        print(f"up to step {step}")
        for mode, (gain, half_width) in gains(means, step).items():
            mean = 100 * means[mode][:, step - 1].mean()
            told = "" if mode == "baseline" else f"{100 * gain:+8.1f} ± {100 * half_width:.1f}"
            print(f"    {mode:<12}{mean:5.1f}{told}")

# %%
# Accuracy by step
# ----------------
# The accuracy itself and its running mean, which changes more slowly and remembers a slow start. In
# the first five steps repulsion is about where the baseline is, if not ahead; then it falls behind.


def draw(found):
    """Mean and standard deviation of the seeds, by step."""
    figure, row = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    names = ("accuracy after each step", "mean of the accuracies up to it")
    for axes, name, change in zip(row, names, (np.asarray, running_mean), strict=True):
        for (mode, accuracies), color in zip(found.items(), COLORS, strict=True):
            values, steps = change(accuracies), np.arange(1, accuracies.shape[1] + 1)
            middle, spread = values.mean(axis=0), values.std(axis=0)
            axes.plot(steps, middle, color=color, label=mode)
            axes.fill_between(steps, middle - spread, middle + spread, color=color, alpha=0.12)
        axes.set(xlabel="steps", title=name)
    row[0].legend(loc="lower right")
    figure.suptitle(f"Mean and standard deviation of {len(accuracies)} seeds")
    return figure


if __name__ == "__main__":
    draw(found)
    plt.show()
