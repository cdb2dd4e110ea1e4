"""Data sets and networks of ``attribution.py``."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from sklearn.datasets import load_digits

from lib.data.tables import load_california
from sknetsim.datasets import load_mnist

#: Classes of the images.
CLASSES = 10


@dataclass(frozen=True)
class Task:
    """Training samples, queries, and how a perceptron with ReLU is trained on the samples.

    ``y`` and ``y_query`` are labels (n,) in classification and targets (n, 1) in regression. The
    first ``tuning`` queries only choose the damping; scores are reported for the others.
    """

    name: str
    X: torch.Tensor
    y: torch.Tensor
    X_query: torch.Tensor
    y_query: torch.Tensor
    tuning: int
    hidden: tuple
    rate: float
    batch_size: int
    epochs: int
    dropout: float = 0.0
    weight_decay: float = 0.0
    subsets: int = 100
    retrainings: int = 4

    @property
    def is_classification(self):
        """True if the targets are labels of classes."""
        return self.y.ndim == 1

    @property
    def quantity(self):
        """Name of the quantity that attributions explain."""
        return "margin" if self.is_classification else "loss"

    @property
    def sizes(self):
        """Numbers of units of all layers."""
        outputs = CLASSES if self.is_classification else self.y.shape[1]
        return (self.X.shape[1], *self.hidden, outputs)

    @property
    def n_parameters(self):
        """Number of weights and biases."""
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes))

    def shorten(self):
        """Return the task with fewer samples, queries, subsets and retrainings."""
        return replace(
            self,
            X=self.X[:500],
            y=self.y[:500],
            X_query=self.X_query[:150],
            y_query=self.y_query[:150],
            tuning=50,
            subsets=20,
            retrainings=2,
        )


def make_digits_task():
    """Make the task of 1,000 digits of 8 x 8 pixels and a perceptron 64-32-10."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    X = torch.as_tensor(images[order] / 16, dtype=torch.float32)
    y = torch.as_tensor(labels[order])
    return Task(
        "digits",
        *(X[:1000], y[:1000], X[1000:1300], y[1000:1300]),
        tuning=100,
        hidden=(32,),
        rate=0.1,
        batch_size=32,
        epochs=40,
    )


def make_mnist_task():
    """Make the task of dattri's benchmark: 5,000 images of MNIST and a perceptron 784-128-64-10."""
    train, test = load_mnist("train", 5000), load_mnist("test", 300)
    X, X_query = (torch.as_tensor(part.inputs).flatten(1) for part in (train, test))
    return Task(
        "MNIST",
        *(X, torch.as_tensor(train.labels), X_query, torch.as_tensor(test.labels)),
        tuning=100,
        hidden=(128, 64),
        rate=0.01,
        batch_size=64,
        epochs=50,
        dropout=0.1,
        subsets=50,
    )


def make_california_task():
    """Make the task of 1,000 housing blocks and a perceptron 8-32-32-1."""
    X, y = (torch.tensor(values) for values in load_california())
    order = torch.as_tensor(np.random.default_rng(0).permutation(len(y)))
    train, query = order[:1000], order[1000:1300]
    return Task(
        "California housing",
        *(X[train], y[train], X[query], y[query]),
        tuning=100,
        hidden=(32, 32),
        rate=0.02,
        batch_size=32,
        epochs=60,
        weight_decay=1e-3,
        retrainings=8,
    )


#: Makers of the tasks, by name.
TASKS = {
    "digits": make_digits_task,
    "MNIST": make_mnist_task,
    "California": make_california_task,
}
