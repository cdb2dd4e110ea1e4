"""
Influence and retraining
========================

`TrainingInfluence` predicts how a network would change if training samples were left out. This
example leaves groups of samples out, trains a small network again, and compares the change of the
loss with the prediction. The network predicts the progression of diabetes from ten measurements of
442 patients (scikit-learn's data). Its training minimises the squared error plus a weight decay,
and goes on until the gradient vanishes: then the influence has no other error than its first order.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from sknetsim import TrainingInfluence

DECAY = 0.02
STEPS = 400
GROUPS = 40  # Groups of each size that are left out.
SIZES = (1, 10, 40)

X, y = load_diabetes(return_X_y=True)
X, y = (StandardScaler().fit_transform(values) for values in (X, y[:, None]))
X, X_test, y, y_test = train_test_split(torch.tensor(X), torch.tensor(y), random_state=0)

# %%
# Training to a minimum
# ---------------------
# A perceptron with 16 hidden units is trained by L-BFGS on all samples. The mean over a part of the
# samples is still divided by the number of all, as if the others had the loss 0.


def train(network, kept):
    """Minimise the squared error over the kept samples, plus the decay, from the given weights."""
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def compute_loss():
        optimizer.zero_grad()
        squares = (network(X[kept]) - y[kept]).square().sum() / len(X)
        loss = squares + DECAY * sum(p.square().sum() for p in network.parameters())
        loss.backward()
        return loss

    optimizer.step(compute_loss)
    return network


torch.manual_seed(0)
network = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)).double()
train(network, np.arange(len(X)))


def compute_test_loss(network):
    """Return the mean squared error on the test samples."""
    with torch.no_grad():
        return float((network(X_test) - y_test).square().mean())


before = compute_test_loss(network)
print(f"R^2 on test samples: {1 - before / float(y_test.var(correction=0)):.2f}")

# %%
# Prediction of the change
# ------------------------
# The Hessian of the decay is ``2 * DECAY``, which takes the place of the damping. ``damping`` is in
# units of the mean eigenvalue of the curvature, which equals ``damping_`` for a damping of 1.

unit = TrainingInfluence(network, damping=1.0).fit(X, y).damping_
influence = TrainingInfluence(network, damping=2 * DECAY / unit).fit(X, y)
mean = influence.mean_influence(X_test, y_test)  # decrease of the mean loss by each sample

# %%
# Retraining without groups of samples
# ------------------------------------
# Groups are drawn at random, and half of them from the samples with the largest influence of either
# sign. The network is trained again, from the weights that it has, until the gradient vanishes.

generator = np.random.default_rng(0)
extreme = np.argsort(np.abs(mean))[-3 * max(SIZES) :]
figure, axes = plt.subplots(1, len(SIZES), figsize=(3.2 * len(SIZES), 3.2), layout="constrained")
for axis, size in zip(axes, SIZES, strict=True):
    predicted, measured = [], []
    for index in range(GROUPS):
        pool = extreme if index % 2 else np.arange(len(X))
        group = generator.choice(pool, size, replace=False)
        again = train(copy.deepcopy(network), np.setdiff1d(np.arange(len(X)), group))
        predicted.append(mean[group].sum())
        measured.append(compute_test_loss(again) - before)
    correlations = pearsonr(predicted, measured)[0], spearmanr(predicted, measured)[0]
    print(f"Groups of {size}: correlation {correlations[0]:.2f}, of ranks {correlations[1]:.2f}")
    axis.plot(predicted, measured, "o", markersize=4)
    axis.axline((0, 0), slope=1, color="gray", linewidth=1)
    axis.set(title=f"groups of {size}", xlabel="predicted change of the test loss")
axes[0].set_ylabel("change after retraining")

# %%
# The points lie along the diagonal: the predictions have the right size, and nearly the right
# order. The larger a group is, the more the curvature changes if it is left out. The first order
# ignores this, so that the points of large groups scatter more.

plt.show()
