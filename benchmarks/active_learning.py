"""Active learning: what each strategy gains on random choice, beside other packages'."""

import numpy as np
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from sknetsim import ActiveLearningSampler

EPOCHS = 100
SEEDS, FEWER_SEEDS = 10, 3
REGRESSION = {"n_initial": 128, "n_queries": 128, "n_rounds": 8}


def ours(*strategies):
    """Samplers of this package."""
    return {name: ActiveLearningSampler(strategy=name) for name in strategies}


class Perceptron(nn.Sequential):
    """Two hidden layers of ReLU, with new weights each time that skorch makes one."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )


def regressor(width):
    """A perceptron width-256-256-1."""
    return NeuralNetRegressor(
        Perceptron,
        module__inputs=width,
        module__hidden=256,
        module__outputs=1,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=128,
        max_epochs=EPOCHS,
        train_split=None,
        callbacks=[("decay", LRScheduler(LinearLR, end_factor=0.01, total_iters=EPOCHS))],
        callbacks__print_log=None,
        verbose=0,
    )


def negative_log_rmse(net, X, y):
    """Of predictions, natural logarithm; greater is better."""
    return -np.log(np.sqrt(np.mean((net.predict(X) - y) ** 2)))
