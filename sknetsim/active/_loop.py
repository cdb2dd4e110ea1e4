"""One run of active learning: train, query, label, and again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import _safe_indexing, check_random_state
from torch import Tensor
from torch.utils.data import Dataset, Subset


def count_test_samples(samples: int, test_size: float) -> int:
    """The number of samples that are tested on."""
    return max(1, round(test_size * samples))


@dataclass(frozen=True)
class Loop:
    """One seed's run of training, querying and labelling.

    Parameters
    ----------
    estimator, sampler, X, y
        As in `active_learning_curve`.
    scorer : callable
        Of (network, X, y), greater is better.
    seed : int
        What all that is drawn follows from.
    """

    estimator: Any
    sampler: Any
    X: Any
    y: np.ndarray
    scorer: Any
    seed: int

    def run(
        self, counts: np.ndarray, test_size: float
    ) -> tuple[list[float], list[float], np.ndarray]:
        """Scores, times and the samples labelled."""
        order = check_random_state(self.seed).permutation(len(self.y))
        test, others = np.split(order, [count_test_samples(len(order), test_size)])
        labelled, pool = np.split(others, [counts[0]])
        net = self._trained(labelled)
        scores, times = [self._score(net, test)], []
        for count in np.diff(counts):
            start = time.perf_counter()
            chosen = self._chosen(net, labelled, pool, count)
            times.append(time.perf_counter() - start)
            labelled, pool = np.append(labelled, pool[chosen]), np.delete(pool, chosen)
            net = self._trained(labelled)
            scores.append(self._score(net, test))
        return scores, times, labelled

    def _trained(self, labelled: np.ndarray) -> Any:
        """A clone, whose initial weights follow from the seed and the number of samples."""
        seed = np.random.SeedSequence([self.seed, len(labelled)]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        return clone(self.estimator).fit(_rows(self.X, labelled), self.y[labelled])

    def _score(self, net: Any, test: np.ndarray) -> float:
        return float(self.scorer(net, _rows(self.X, test), self.y[test]))

    def _chosen(self, net: Any, labelled: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
        """Positions in the pool."""
        sampler = clone(self.sampler).set_params(estimator=net, random_state=self.seed)
        sampler.fit(_rows(self.X, labelled), self.y[labelled])
        chosen: np.ndarray = sampler.query(_rows(self.X, pool), int(count))
        return chosen


def _rows(X: Any, indices: np.ndarray) -> Any:
    """Some samples, in the form that X has."""
    if isinstance(X, Dataset):
        return Subset(X, indices.tolist())
    if isinstance(X, Mapping):
        return {key: _rows(value, indices) for key, value in X.items()}
    if isinstance(X, tuple):
        return tuple(_rows(value, indices) for value in X)
    return X[indices] if isinstance(X, np.ndarray | Tensor) else _safe_indexing(X, indices)
