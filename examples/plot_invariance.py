"""
Alike however they are turned
=============================

A network learns 1,000 digits of MNIST. With `SimilarityTrainingMixin` each is also to be similar,
in the network's own eyes, to a copy that is turned by up to 40 degrees; the labels of copies are
not used. `PairSimilarityLoss` says so of pairs alone, `ContrastiveSimilarityLoss` also that other
digits are to be unlike.

What is made alike are directions in which training would move the predicted logit, not the
prediction: the network does not become right about turned digits. ``docs/training.md`` has means
of five seeds of 20 epochs.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import mnist
from joblib import Parallel, delayed
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim.losses import ContrastiveSimilarityLoss, PairSimilarityLoss
from sknetsim.training import SimilarityTrainingMixin

SEEDS = 3
IMAGES = 1_000
TESTED = 2_000
#: Test images whose similarities are looked at.
COMPARED = 250
EPOCHS = 10
ANGLES = (0, 15, 30, 45, 60)
LARGEST = 40
#: Processes that share the runs; -1: one per core.
JOBS = -1
#: The loss of similarity, and whether the net's own loss is that of turned images.
MODES = {
    "plain": (None, False),
    "pairs": (PairSimilarityLoss, False),
    "contrast": (ContrastiveSimilarityLoss, False),
    "augmentation": (None, True),
    "augmentation and contrast": (ContrastiveSimilarityLoss, True),
}
COLORS = ("#000000", "#0072B2", "#56B4E9", "#E69F00", "#009E73")
SETTINGS = {
    "criterion": nn.CrossEntropyLoss,
    "optimizer": torch.optim.Adam,
    "lr": 3e-3,
    "max_epochs": EPOCHS,
    "batch_size": 64,
    "iterator_train__shuffle": True,
    "train_split": None,
    "callbacks": "disable",
    "verbose": 0,
}

# %%
# A network, and images that are turned
# -------------------------------------
# The network is small, without dropout or batch norm. Augmentation turns what it is trained on.


def turned(X, degrees):
    """Images by an angle each."""
    radians = torch.deg2rad(degrees.to(X))
    cosines, sines, zeros = radians.cos(), radians.sin(), torch.zeros_like(radians)
    maps = torch.stack([cosines, -sines, zeros, sines, cosines, zeros], dim=1).view(-1, 2, 3)
    grid = nn.functional.affine_grid(maps, list(X.shape), align_corners=False)
    return nn.functional.grid_sample(X, grid, align_corners=False)


def at_random(X):
    """Images, each by another angle."""
    return turned(X, LARGEST * (2 * torch.rand(len(X)) - 1))


class Augmented(nn.Sequential):
    """Turns what it is trained on."""

    def forward(self, X):
        return super().forward(at_random(X) if self.training else X)


class Net(SimilarityTrainingMixin, NeuralNetClassifier):
    """With a loss of similarity beside its own."""


def trained(mode, seed, X, y):
    """A net of one of the modes."""
    similarity, augmented = MODES[mode]
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh()]
    layers += [nn.Flatten(), nn.Linear(256, 10)]
    module = Augmented(*layers) if augmented else nn.Sequential(*layers)
    if similarity is None:
        return NeuralNetClassifier(module, **SETTINGS).fit(X, y)
    settings = {"similarity": similarity, "similarity__output": "predicted"}
    return Net(module, similarity_augment=at_random, **settings, **SETTINGS).fit(X, y)


# %%
# What is learnt
# --------------
# Pairs alone make everything alike: other images become about as similar as the turned copies. The
# contrast does what was asked: copies become more similar, others stay unlike. Neither raises the
# accuracy on turned images. Training on turned images with their labels does, though it raises
# their similarity less than the contrast does. Beside augmentation, the contrast costs some of the
# accuracy.


def run(mode, seed, train, test):
    """By angle: accuracy, similarity to the image as it was, and to another one."""
    net, found = trained(mode, seed, *train), []
    loss, X = PairSimilarityLoss(output="predicted"), test[0]
    for angle in ANGLES:
        copies = turned(X, torch.full((len(X),), float(angle)))
        alike = loss.similarities(net, X[:COMPARED], copies[:COMPARED]).mean().item()
        others = loss.similarities(net, X[:COMPARED], copies[-COMPARED:]).mean().item()
        found.append((float((net.predict(copies) == test[1].numpy()).mean()), alike, others))
    return found


def scaled(samples):
    """Images from 0 to 1, and labels, as tensors."""
    return torch.as_tensor(samples.images)[:, None] / 255, torch.as_tensor(samples.labels)


train, test = scaled(mnist("train", IMAGES)), scaled(mnist("test", TESTED))
jobs = [(mode, seed) for mode in MODES for seed in range(SEEDS)]
runs = Parallel(n_jobs=JOBS)(delayed(run)(*job, train, test) for job in jobs)
found = np.reshape(runs, (len(MODES), SEEDS, len(ANGLES), 3))
for column, name in enumerate(("accuracy", "similarity", "similarity to other images")):
    print(f"\n{name} at {', '.join(map(str, ANGLES))} degrees, mean ± standard deviation:")
    for mode, values in zip(MODES, found[..., column], strict=True):
        told = zip(values.mean(axis=0), values.std(axis=0), strict=True)
        print(f"    {mode:<28}" + "  ".join(f"{m:.3f} ± {s:.3f}" for m, s in told))

# %%
# By angle
# --------
# Grey: angles that are seen in training. The two panels on the right belong together: a loss that
# raises the one should leave the other where it is.

figure, row = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
names = (
    "accuracy on turned images",
    "similarity to the image as it was",
    "similarity to another image",
)
for column, (axes, name) in enumerate(zip(row, names, strict=True)):
    for mode, values, color in zip(MODES, found[..., column], COLORS, strict=True):
        middle, extent = values.mean(axis=0), values.std(axis=0)
        axes.errorbar(ANGLES, middle, extent, color=color, label=mode, capsize=3)
    axes.axvspan(0, LARGEST, color="0.92", zorder=0)
    axes.set(xlabel="degrees", title=name, ylim=(-0.1, 1.05))
row[0].legend(loc="lower left", fontsize=8)
plt.show()
