"""
Which digits should be labelled next?
=====================================

A perceptron learns scikit-learn's digits, of which 20 are labelled at first. In each of eight
rounds it is trained anew, and asks for the labels of 20 digits more. Each of six strategies does so
from the same six seeds, which decide on the split, the first digits and the weights.

``benchmarks/results/active_learning_images.md`` and
``benchmarks/results/active_learning_tables.md`` compare more strategies on more data.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from sknetsim import ActiveLearningSampler, active_learning_curve
from sknetsim.displays import LearningCurveDisplay

STRATEGIES = ("random", "density", "margin", "badge", "lcmd", "coverage")
SEEDS = 6
ROUNDS = 8
EPOCHS = 40
#: Processes that share the seeds; -1: one per core.
JOBS = -1

X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")


class Perceptron(nn.Sequential):
    """A class, not a module, so that skorch makes new weights for each training."""

    def __init__(self):
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


net = NeuralNetClassifier(
    Perceptron,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=1e-2,
    max_epochs=EPOCHS,
    train_split=None,
    callbacks="disable",
    verbose=0,
)

# %%
# What is gained on random choice
# -------------------------------
# `active_learning_curve` runs the loop of training, querying and labelling, and scores the network
# on a quarter of the digits that is held out. The gain is the difference of the mean accuracy over
# the rounds, seed by seed, with a 95 % interval.
#
# "margin" asks for what the network is unsure of, "badge" [1]_ for what it is unsure of and of all
# kinds, "coverage" [2]_ for digits that have the most others near them in the network's eyes,
# "lcmd" [3]_ for what is farthest from all labels among the many. "density" asks for the digits
# with the fewest similar labelled ones, by the soft count.

curves = {}
for name in STRATEGIES:
    sampler = ActiveLearningSampler(strategy=name)
    curves[name] = active_learning_curve(
        net, sampler, X, y, n_rounds=ROUNDS, seeds=range(SEEDS), n_jobs=JOBS
    )
    gain, half_width = curves[name].difference(curves["random"])
    print(f"{name:<10}{100 * gain:+6.1f} ± {100 * half_width:.1f} %")

# %%
# Learning curves
# ---------------
# With few labels, what stands for many teaches most: "coverage" and "lcmd" lead. With more it is
# what the network is unsure of: "margin" and "badge" end ahead of them, if by little, and are with
# two thirds of the labels where random choice is with all.
#
# Being unlike all labelled digits is not enough: "density" takes odd ones, which teach little about
# the others, and stays far below random choice.
#
# .. [1] J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, "Deep batch active learning by
#    diverse, uncertain gradient lower bounds", ICLR 2020.
# .. [2] O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active learning through a covering lens",
#    NeurIPS 2022.
# .. [3] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
#    batch active learning for regression", JMLR 24, 2023.

display = LearningCurveDisplay.from_predictions(curves)
display.ax_.set(xlabel="labelled digits", ylabel="accuracy on held-out digits")
display.ax_.set_title(f"Mean and standard deviation of {SEEDS} seeds")
plt.show()
