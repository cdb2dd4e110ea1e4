"""
Which digits should be labelled next?
=====================================

A perceptron learns scikit-learn's digits, of which 20 are labelled at first. In each of eight
rounds it is trained anew, and asks for the labels of 20 digits more: curves of accuracy on held-out
digits, mean and standard deviation of six seeds, which decide on the split, the first digits and
the weights.

**Few labels: choose what stands for many.** "coverage" [1]_ takes digits that have the most others
near them in the network's eyes, "lcmd" [3]_ what is farthest from all labels among the many: the
best up to some 80 labels.

**More labels: choose what the network is unsure of**, "margin", or unsure of and of all kinds,
"badge" [2]_: 120 labels do what 180 at random do. On the mean of the eight rounds badge, lcmd and
coverage gain 4 %, margin 3 % (each ± 2 %).

**Being unlike all labelled samples is not enough.** "density", the fewest similar labelled digits
by the soft count, takes odd digits that teach little about the others, and stays far below random
choice.

.. [1] O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active learning through a covering lens",
   NeurIPS 2022.
.. [2] J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, "Deep batch active learning by
   diverse, uncertain gradient lower bounds", ICLR 2020.
.. [3] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
   batch active learning for regression", JMLR 24, 2023.
"""

from pathlib import Path

import matplotlib
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import ActiveLearningSampler, active_learning_curve

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STRATEGIES = ("random", "density", "margin", "badge", "lcmd", "coverage")
COLORS = ("#000000", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#009E73")
SEEDS = range(6)
LOOP = {"n_initial": 20, "n_queries": 20, "n_rounds": 8}


class Perceptron(nn.Sequential):
    """A class, not a module, so that skorch makes new weights for each training."""

    def __init__(self):
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def untrained():
    return NeuralNetClassifier(
        Perceptron,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-2,
        max_epochs=40,
        train_split=None,
        callbacks="disable",
        verbose=0,
    )


def curves(strategies=STRATEGIES, seeds=SEEDS, loop=LOOP):
    """Learning curves by the name of the strategy."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype("float32")
    return {
        name: active_learning_curve(
            untrained(), ActiveLearningSampler(strategy=name), X, y, seeds=seeds, n_jobs=-1, **loop
        )
        for name in strategies
    }


def draw(found):
    figure, axes = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
    axes.set_prop_cycle(color=COLORS[: len(found)])
    for name, curve in found.items():
        curve.plot(axes, name)
    axes.set(xlabel="labelled digits", ylabel="accuracy on held-out digits")
    axes.set_title(f"Mean and standard deviation of {len(SEEDS)} seeds")
    axes.legend(loc="lower right")
    return figure


def main():
    found = curves()
    print("Gain in accuracy on random choice, mean over the rounds, with 95 % intervals:\n")
    for name, curve in found.items():
        gain, half_width = curve.difference(found["random"])
        print(f"    {name:<10}{100 * gain:+6.1f} ± {100 * half_width:.1f} %")
    output = Path(__file__).resolve().parent / "output"
    output.mkdir(exist_ok=True)
    draw(found).savefig(output / "active_learning.png", dpi=120)
    print(f"\nWritten: {output / 'active_learning.png'}")


if __name__ == "__main__":
    main()
