"""
Which labels are wrong?
=======================

A tenth of the labels of scikit-learn's digits are changed, and a perceptron is trained on them.
`LabelDenoiser` weighs the other digits around each one by max(k, 0)^16, with k the similarity of
two digits in the network's eyes, and scores a label by the share of the weights that agree with it:
1 where all do, 0 where none does, as cleanlab has it.

This is one seed of an easy data set; ``benchmarks/results/label_issues.md`` has harder ones,
among them classes that look alike.
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
# Before and after the network learns them
# ----------------------------------------
# After a few epochs the network has learnt few of the wrong labels, and its own confidence in a
# label finds them well. Later it knows most of them by heart, and its confidence is no longer worth
# much. The other digits find them still: who has learnt a wrong label has not learnt to see the
# digit differently.


def trained(epochs):
    """A perceptron after so many epochs."""
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
    net = trained(epochs)
    denoiser = LabelDenoiser(net).fit(X, y)
    learnt = (net.predict(X) == y)[wrong].mean()
    print(f"{epochs} epochs, {learnt:.0%} of the wrong labels learnt:")
    qualities = {
        "other digits": denoiser.label_quality(X, y),
        "own confidence": net.predict_proba(X)[np.arange(SAMPLES), y],
    }
    for name, quality in qualities.items():
        area = roc_auc_score(wrong, -quality)
        precision = average_precision_score(wrong, -quality)
        print(f"    {name:<16}area under the curve {area:.3f}, average precision {precision:.3f}")

# %%
# The most suspicious ones
# ------------------------
# Above each digit its label, and what the other digits say. In orange: the label was right.

others = denoiser.leave_one_out(X, y).argmax(axis=1)
figure, grid = plt.subplots(4, 12, figsize=(10, 4.6), layout="constrained")
for axes, row in zip(grid.flat, denoiser.label_issues(X, y), strict=False):
    axes.imshow(X[row].reshape(8, 8), cmap="gray_r")
    axes.set_title(f"{y[row]} → {others[row]}", color="black" if wrong[row] else "#D55E00")
    axes.axis("off")
figure.suptitle("The most suspicious labels → what the other digits say")
plt.show()
