"""
Active learning: strategies compared
====================================

This example compares six strategies that choose the samples to label next. A perceptron learns
scikit-learn's digits; 20 digits are labelled at first. In each of eight rounds it is trained anew,
and a strategy chooses 20 more digits. All strategies use the same six seeds, which determine
the split, the first digits and the weights. The strategies "margin", "badge", "lcmd" and "coverage"
gain 3 to 4 percentage points of accuracy over random choice, and "density" loses 14.

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
    """Perceptron, as a class and not an object, so that skorch draws new weights each time."""

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
# Gain over random choice
# -----------------------
# `active_learning_curve` runs the loop of training, querying and labelling, and scores the network
# on a held-out quarter of the digits. The gain is the difference of the mean accuracy over the
# rounds, seed by seed, with a 95 % interval.
#
# "margin" chooses digits with uncertain predictions; "badge" [1]_ digits that are uncertain and
# differ from each other; "coverage" [2]_ digits with the most other digits near them, by the
# network's similarity. "lcmd" [3]_ forms clusters of the digits with the same nearest labelled
# digit, and chooses the farthest digit of the cluster with the largest sum of squared distances.
# "density" chooses the digits with the fewest similar labelled ones, by the soft count.

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
# With few labels, digits that represent many others improve the network most: "coverage" and "lcmd"
# lead. With more labels, uncertain digits improve it most: "margin" and "badge" end slightly ahead
# of them, and reach with two thirds of the labels the accuracy that random choice reaches with all.
#
# It is not enough to differ from all labelled digits: "density" chooses odd digits, whose labels
# hardly improve the predictions for other digits, and stays far below random choice.
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
