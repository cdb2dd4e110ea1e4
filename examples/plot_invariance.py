"""
Training for rotation-invariant similarity
==========================================

This example trains a network so that an image and a rotated copy of it are similar. A small CNN
learns 1,000 digits of MNIST. With `SimilarityTrainingMixin`, a term of the loss also makes each
digit similar, for this network, to a copy that is rotated by up to 40 degrees; the labels of copies
are not used. `PairSimilarityLoss` uses only such pairs and makes all images similar.
`ContrastiveSimilarityLoss` also makes different digits dissimilar, and raises only the similarity
to rotated copies.

These losses align the directions in which training would move the predicted logit, not the
predictions: the accuracy on rotated digits does not improve. ``docs/training.md`` contains means of
five seeds of 20 epochs.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from joblib import Parallel, delayed
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim.datasets import load_mnist
from sknetsim.losses import ContrastiveSimilarityLoss, PairSimilarityLoss
from sknetsim.training import SimilarityTrainingMixin

SEEDS = 3
IMAGES = 1_000
TESTED = 2_000
#: Test images whose similarities are measured.
COMPARED = 250
EPOCHS = 10
ANGLES = (0, 15, 30, 45, 60)
LARGEST = 40
#: Processes that share the runs; -1: one per core.
JOBS = -1
#: Similarity loss, and whether the network's own loss uses rotated images.
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
# Network and rotation of images
# ------------------------------
# The network is small, without dropout or batch normalisation. With augmentation, it rotates its
# inputs during training.


def rotate(X, degrees):
    """Rotate each image by its own angle."""
    radians = torch.deg2rad(degrees.to(X))
    cosines, sines, zeros = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # One affine map (cos, -sin, 0; sin, cos, 0) per image
    maps = torch.stack([cosines, -sines, zeros, sines, cosines, zeros], dim=1).view(-1, 2, 3)
    grid = nn.functional.affine_grid(maps, list(X.shape), align_corners=False)
    return nn.functional.grid_sample(X, grid, align_corners=False)


def rotate_randomly(X):
    """Rotate each image by a random angle of at most LARGEST degrees."""
    return rotate(X, LARGEST * (2 * torch.rand(len(X)) - 1))


class AugmentedNetwork(nn.Sequential):
    """Layers that rotate their inputs randomly during training."""

    def forward(self, X):
        return super().forward(rotate_randomly(X) if self.training else X)


class SimilarityClassifier(SimilarityTrainingMixin, NeuralNetClassifier):
    """Classifier with a similarity loss in addition to its own loss."""


def train(mode, seed, X, y):
    """Train a network in one of the MODES."""
    similarity, augmented = MODES[mode]
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh()]
    layers += [nn.Flatten(), nn.Linear(256, 10)]
    module = AugmentedNetwork(*layers) if augmented else nn.Sequential(*layers)
    if similarity is None:
        return NeuralNetClassifier(module, **SETTINGS).fit(X, y)
    settings = {"similarity": similarity, "similarity__output": "predicted"}
    net = SimilarityClassifier(module, similarity_augment=rotate_randomly, **settings, **SETTINGS)
    return net.fit(X, y)


# %%
# Accuracy and similarity of each training
# ----------------------------------------
# Pairs make everything similar: other images become about as similar as the rotated copies. The
# contrast separates the two: copies become more similar, and other images stay dissimilar. Neither
# raises the accuracy on rotated images. Training on rotated images with their labels does, although
# it raises their similarity less than the contrast does. In addition to augmentation, the contrast
# costs some accuracy.


def run(mode, seed, train_data, test_data):
    """Return for each angle the accuracy, and the similarity to the original and another image."""
    net, rows = train(mode, seed, *train_data), []
    loss, (X, y) = PairSimilarityLoss(output="predicted"), test_data
    for angle in ANGLES:
        copies = rotate(X, torch.full((len(X),), float(angle)))
        to_original = loss.similarities(net, X[:COMPARED], copies[:COMPARED]).mean().item()
        to_others = loss.similarities(net, X[:COMPARED], copies[-COMPARED:]).mean().item()
        rows.append((float((net.predict(copies) == y.numpy()).mean()), to_original, to_others))
    return rows


def load_tensors(part, count):
    """Return images with values from 0 to 1, and labels, as tensors."""
    digits = load_mnist(part, count)
    return torch.as_tensor(digits.images)[:, None] / 255, torch.as_tensor(digits.labels)


train_data, test_data = load_tensors("train", IMAGES), load_tensors("test", TESTED)
jobs = [(mode, seed) for mode in MODES for seed in range(SEEDS)]
runs = Parallel(n_jobs=JOBS)(delayed(run)(*job, train_data, test_data) for job in jobs)
results = np.reshape(runs, (len(MODES), SEEDS, len(ANGLES), 3))
measures = (
    "accuracy on rotated images",
    "similarity to the original image",
    "similarity to another image",
)
for column, measure in enumerate(measures):
    print(f"\n{measure} at {', '.join(map(str, ANGLES))} degrees, mean ± standard deviation:")
    for mode, values in zip(MODES, results[..., column], strict=True):
        pairs = zip(values.mean(axis=0), values.std(axis=0), strict=True)
        print(f"    {mode:<28}" + "  ".join(f"{mean:.3f} ± {std:.3f}" for mean, std in pairs))

# %%
# Accuracy and similarity by angle
# --------------------------------
# Training uses the angles in the grey area. The two panels on the right belong together: a good
# loss raises the similarity to the original and does not change that to another image.

figure, row = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for column, (axes, measure) in enumerate(zip(row, measures, strict=True)):
    for mode, values, color in zip(MODES, results[..., column], COLORS, strict=True):
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axes.errorbar(ANGLES, mean, spread, color=color, label=mode, capsize=3)
    axes.axvspan(0, LARGEST, color="0.92", zorder=0)
    axes.set(xlabel="rotation (degrees)", title=measure, ylim=(-0.1, 1.05))
row[0].legend(loc="lower left", fontsize=8)
plt.show()
