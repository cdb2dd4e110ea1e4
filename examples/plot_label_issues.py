"""
Finding wrong labels
====================

This example finds wrong labels with `LabelDenoiser`. A tenth of the labels of scikit-learn's digits
are changed, and a perceptron is trained on them. The other digits around each one are weighted by
max(k, 0)^16, where k is the similarity of two digits for this network. The quality of a label is
the share of the weights that agrees with it: 1 if all do, 0 if none does, as in cleanlab. After 100
epochs the network has learnt 93 % of the wrong labels. The quality still finds them, with an
average precision of 0.996; the network's own confidence in a label reaches 0.697.

This is one seed of an easy data set. ``benchmarks/results/label_issues.md`` contains harder ones,
some with classes that look alike.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import LabelDenoiser

SAMPLES = 1_500
WRONG = 0.1
EPOCHS = (5, 100)

X, clean = load_digits(return_X_y=True)
X, clean = (X[:SAMPLES] / 16).astype("float32"), clean[:SAMPLES]
generator = np.random.default_rng(0)
wrong = generator.permutation(SAMPLES) < WRONG * SAMPLES
y = np.where(wrong, (clean + generator.integers(1, 10, SAMPLES)) % 10, clean)

# %%
# Before and after the network has learnt the wrong labels
# --------------------------------------------------------
# After a few epochs, the network has learnt few of the wrong labels, and its own confidence in a
# label identifies them well. Later it has memorised most of them, and its confidence is much less
# useful. The labels of similar digits still identify them: a network that has learnt a wrong label
# has not learnt to treat the digit like those of the wrong class.


def train(epochs):
    """Train a perceptron for the given number of epochs."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        max_epochs=epochs,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    ).fit(X, y)


for epochs in EPOCHS:
    net = train(epochs)
    denoiser = LabelDenoiser(net).fit(X, y)
    learnt = (net.predict(X) == y)[wrong].mean()
    print(f"After {epochs} epochs, the network has learnt {learnt:.0%} of the wrong labels:")
    qualities = {
        "similar digits": denoiser.label_quality(X, y),
        "own confidence": net.predict_proba(X)[np.arange(SAMPLES), y],
    }
    for name, quality in qualities.items():
        area = roc_auc_score(wrong, -quality)
        precision = average_precision_score(wrong, -quality)
        print(f"    {name:<16}area under the curve {area:.3f}, average precision {precision:.3f}")

# %%
# Most suspicious labels
# ----------------------
# The captions give the label of each digit and the label suggested by the similar digits. An orange
# caption marks a label that was not changed.

suggested = denoiser.leave_one_out(X, y).argmax(axis=1)
figure, grid = plt.subplots(4, 12, figsize=(10, 4.6), layout="constrained")
for axes, row in zip(grid.flat, denoiser.label_issues(X, y), strict=False):
    axes.imshow(X[row].reshape(8, 8), cmap="gray_r")
    axes.set_title(f"{y[row]} → {suggested[row]}", color="black" if wrong[row] else "#D55E00")
    axes.axis("off")
figure.suptitle("Most suspicious labels → labels suggested by similar digits")
plt.show()
