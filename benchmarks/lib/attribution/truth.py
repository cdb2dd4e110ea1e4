"""Networks retrained on subsets, and the score of attributions that predict their outputs."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from lib.attribution.training import compute_losses, measure_outputs, predict, train_networks


@dataclass(frozen=True)
class Truth:
    """Measured quantities of networks that were retrained on subsets.

    ``members`` (subsets, n) are the training samples in each subset. ``measured`` has, for each
    quantity, an array (subsets, retrainings, queries) in which more is better.
    """

    members: np.ndarray
    measured: dict

    def score(self, influence, quantity, queries):
        """Return the linear datamodelling score of influences (queries, n) on some queries.

        It is the correlation over subsets between the retrained quantity and the sum of the
        influences of the subset's members (Spearman's), averaged over queries.
        """
        # sum_{i in S} influence[q, i]
        predicted = self.members @ np.asarray(influence, float)[queries].T
        measured = self.measured[quantity][:, :, queries].mean(1)
        return correlate_ranks(predicted, measured).mean()

    def compute_ceiling(self, quantity, queries):
        """Return the score of a perfect attribution, from the agreement of halves of retrainings.

        With the correlation r of two halves, the mean of all has the reliability 2r / (1 + r) by
        the formula of Spearman and Brown; the ceiling is its square root.
        """
        measured = self.measured[quantity][:, :, queries]
        half = measured.shape[1] // 2
        halves = measured[:, :half].mean(1), measured[:, half : 2 * half].mean(1)
        agreement = correlate_ranks(*halves).mean()
        return (2 * agreement / (1 + agreement)) ** 0.5


def correlate_ranks(first, second):
    """Return Spearman's correlation of each pair of columns; 0 if a column is constant."""
    ranks = [rankdata(values, axis=0) for values in (first, second)]
    first, second = (values - values.mean(0) for values in ranks)
    norms = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return (first * second).sum(0) / np.where(norms > 0, norms, 1)


def measure_queries(task, parameters):
    """Return the quantities (networks, queries) of networks, by name; more is better."""
    outputs = predict(parameters, task.X_query)
    labels = task.y_query.expand(len(outputs), *task.y_query.shape)
    measured = {
        task.quantity: measure_outputs(outputs, labels),
        "loss": -compute_losses(outputs, labels),
    }
    return {name: values.numpy() for name, values in measured.items()}


def retrain(task, members, retrainings, seed):
    """Retrain networks on the subsets (subsets, n) and return their `Truth`.

    All subsets must be of the same size.
    """
    rows = torch.as_tensor(np.stack([np.flatnonzero(row) for row in members]))
    parameters = train_networks(task, rows.repeat_interleave(retrainings, 0), seed)
    measured = measure_queries(task, parameters)
    shape = (len(members), retrainings, -1)
    return Truth(members, {name: values.reshape(shape) for name, values in measured.items()})


def draw_halves(count, subsets, seed=1):
    """Draw random halves of ``count`` samples as a mask (subsets, count)."""
    generator = np.random.default_rng(seed)
    ranks = generator.random((subsets, count)).argsort(1).argsort(1)
    return ranks < count // 2
