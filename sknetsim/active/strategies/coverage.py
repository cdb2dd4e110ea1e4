"""Strategies that spread over the pool as it is distributed.

Index legend: n pool rows; l labelled rows; m features.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from ..._kernels.similarities import ThresholdCount
from ._selection import Selection, Setting, split_rows

# As in the paper: the most clusters, and the neighbours that typicality looks at.
_MOST_CLUSTERS = 500

_NEIGHBORS = 20


class Coverage(Selection):
    """The row with the most uncovered rows that are at least so similar to it (ProbCover) [1]_.

    Where all are covered, the covering begins anew.

    References
    ----------
    .. [1] O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active learning through a covering lens",
       NeurIPS 2022.
    """

    gradients: ClassVar[str | None] = "unit"

    def __init__(self, setting: Setting):
        self.pool = setting.pool
        balls = len(setting.labelled) + setting.n_queries
        self.count = ThresholdCount(setting.least_similarity(setting.pool, balls))
        self.covered = self._near(setting.labelled) > 0
        self._count_uncovered()

    def _count_uncovered(self) -> None:
        if self.covered.all():
            self.covered = np.zeros(len(self.pool), dtype=bool)
        self.counts = self._near(self.pool[~self.covered])

    def _near(self, rows: np.ndarray) -> np.ndarray:
        """How many of some rows lie in the ball of each pool row."""
        counts = np.zeros(len(self.pool))
        for part in split_rows(len(rows), len(self.pool)):
            counts += self._is_near(rows[part].T).sum(axis=1)
        return counts

    def _is_near(self, others: np.ndarray) -> np.ndarray:
        """1 for similar rows; products of matrices and of vectors may be rounded otherwise."""
        gram: np.ndarray = self.pool @ others
        return self.count(gram, 4 * float(np.finfo(gram.dtype).eps))

    def utilities(self) -> np.ndarray:
        """Counts of uncovered rows, of shape (n,)."""
        return self.counts

    def add(self, index: int) -> None:
        """Cover a chosen row's ball, itself included."""
        found = (self._is_near(self.pool[index]) > 0) & ~self.covered
        found[index] = not self.covered[index]
        self.counts = self.counts - self._near(self.pool[found])
        self.covered |= found
        if self.covered.all():
            self._count_uncovered()


class Typicality(Selection):
    """The most typical row of the largest cluster of those with the fewest labels (TypiClust) [1]_.

    Clusters of k-means, as many as there will be labels, at most 500; a row is the more typical,
    the nearer the 20 nearest rows of its cluster are.

    References
    ----------
    .. [1] G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies
       suit high and low budgets", ICML 2022.
    """

    gradients: ClassVar[str | None] = "unit"

    def __init__(self, setting: Setting):
        self.pool = setting.pool
        every = np.concatenate([setting.pool, setting.labelled])
        count = min(len(setting.labelled) + setting.n_queries, _MOST_CLUSTERS, len(every))
        clusters = KMeans(count, n_init=1, random_state=setting.generator).fit(every).labels_
        self.clusters = clusters[: len(self.pool)].copy()
        self.labels = np.bincount(clusters[len(self.pool) :], minlength=count)

    def utilities(self) -> np.ndarray:
        """Typicality in the cluster whose turn it is, of shape (n,); negative elsewhere."""
        sizes = np.bincount(self.clusters[self.clusters >= 0], minlength=len(self.labels))
        turn = np.lexsort([-sizes, self.labels, sizes == 0])[0]
        inside = np.flatnonzero(self.clusters == turn)
        found = np.full(len(self.pool), -1.0)
        found[inside] = _typicality(self.pool[inside])
        return found

    def add(self, index: int) -> None:
        """Take a chosen row out of its cluster, which has a label more."""
        self.labels[self.clusters[index]] += 1
        self.clusters[index] = -1


def _typicality(rows: np.ndarray) -> np.ndarray:
    """One over the mean distance to the nearest others, and so much as to be finite."""
    if len(rows) < 2:
        return np.zeros(len(rows))
    search = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(rows) - 1), algorithm="brute")
    distances, _ = search.fit(rows).kneighbors()
    typicality: np.ndarray = 1 / (np.finfo(rows.dtype).eps + distances.mean(axis=1))
    return typicality
