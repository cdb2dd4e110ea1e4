"""
Which labels are wrong?
=======================

A tenth of the labels of 1,500 of scikit-learn's digits are changed, and a perceptron is trained on
them. `LabelDenoiser` weighs the other digits around each one by max(k, 0)^16, with k the similarity
of two digits in the network's eyes (of the gradients of all ten logits), and scores a label by the
share of the weights that agree with it: 1 where all do, 0 where none does, as cleanlab has it.

**After 5 epochs** the network has learnt 3 % of the wrong labels, and its own confidence in a label
finds them as well: area under the curve .998, average precision .987, by the other digits .999 and
.994.

**After 100 epochs** it knows 93 % of them by heart, and its confidence is no longer worth much:
.937 and .697. The other digits find them still: .999 and .996. Who has learnt a wrong label has not
learnt to see the digit differently.

This is one seed of an easy data set; ``benchmarks/label_issues.md`` has harder ones, among them
classes that look alike.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import LabelDenoiser

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SAMPLES = 1_500
WRONG = 0.1
SHOWN = (4, 12)


def mislabelled(seed=0):
    """Digits, labels of which a tenth are wrong, and which those are."""
    X, y = load_digits(return_X_y=True)
    X, y = (X[:SAMPLES] / 16).astype("float32"), y[:SAMPLES]
    generator = np.random.default_rng(seed)
    wrong = generator.permutation(SAMPLES) < WRONG * SAMPLES
    return X, np.where(wrong, (y + generator.integers(1, 10, SAMPLES)) % 10, y), wrong


def trained(X, y, epochs, seed=0):
    torch.manual_seed(seed)
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


def qualities(net, X, y):
    """Of each label, low where it is suspicious, by the others and by the network's confidence."""
    denoiser = LabelDenoiser(net).fit(X, y)
    confidence = net.predict_proba(X)[np.arange(len(y)), y]
    return {"other digits": denoiser.label_quality(X, y), "own confidence": confidence}


def print_table(epochs, net, X, y, wrong):
    learnt = (net.predict(X) == y)[wrong].mean()
    print(f"\n{epochs} epochs, {learnt:.0%} of the wrong labels learnt:")
    for name, quality in qualities(net, X, y).items():
        area = roc_auc_score(wrong, -quality)
        precision = average_precision_score(wrong, -quality)
        print(f"    {name:<16}area under the curve {area:.3f}, average precision {precision:.3f}")


def draw(net, X, y, wrong):
    """The most suspicious digits, their label and what the others say; right ones in red."""
    denoiser = LabelDenoiser(net).fit(X, y)
    others = denoiser.leave_one_out(X, y).argmax(axis=1)
    figure, grid = plt.subplots(*SHOWN, figsize=(10, 4.6), layout="constrained")
    for axes, row in zip(grid.flat, denoiser.label_issues(X, y), strict=False):
        axes.imshow(X[row].reshape(8, 8), cmap="gray_r")
        color = "black" if wrong[row] else "red"
        axes.set_title(f"{y[row]} → {others[row]}", color=color)
        axes.axis("off")
    figure.suptitle("The most suspicious labels, and what the others say; in red: was right")
    return figure


def main():
    X, y, wrong = mislabelled()
    for epochs in (5, 100):
        net = trained(X, y, epochs)
        print_table(epochs, net, X, y, wrong)
    output = Path(__file__).resolve().parent / "output"
    output.mkdir(exist_ok=True)
    draw(net, X, y, wrong).savefig(output / "label_issues.png", dpi=120)
    print(f"\nWritten: {output / 'label_issues.png'}")


if __name__ == "__main__":
    main()
