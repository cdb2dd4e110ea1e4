"""Strategies that cover the distribution of the pool.

Index legend: n pool samples; l labelled samples; m features.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from ..._kernels.similarities import ThresholdCount
from ._selection import Selection, Setting, split_rows

# Largest number of clusters, and number of neighbours that determine typicality, as in the paper.
_MOST_CLUSTERS = 500
_NEIGHBORS = 20


class Coverage(Selection):
    """Choice of the sample whose ball contains the most uncovered pool samples (ProbCover) [1]_.

    The ball of a sample x contains the samples x' with k^C(x, x') >= tau, where tau is the
    threshold. The balls of labelled and chosen samples are covered. If all samples are covered, the
    covering starts again.

    References
    ----------
    .. [1] O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active learning through a covering lens",
       NeurIPS 2022.
    """

    whitening: ClassVar[str | None] = "unit"

    def __init__(self, setting: Setting):
        self.pool = setting.pool
        balls = len(setting.labelled) + setting.n_queries
        self.count = ThresholdCount(setting.least_similarity(setting.pool, balls))
        self.covered = self._count_similar(setting.labelled) > 0
        self._count_uncovered()

    def _count_uncovered(self) -> None:
        """Count the uncovered samples in each ball, after a new start if all are covered."""
        if self.covered.all():
            self.covered = np.zeros(len(self.pool), dtype=bool)
        # u[n] = sum over uncovered n' of 1[k[n,n'] >= tau]
        self.counts = self._count_similar(self.pool[~self.covered])

    def _count_similar(self, features: np.ndarray) -> np.ndarray:
        """Return how many of some samples the ball of each pool sample contains, of shape (n,)."""
        counts = np.zeros(len(self.pool))
        for rows in split_rows(len(features), len(self.pool)):
            counts += self._is_similar(features[rows].T).sum(axis=1)
        return counts

    def _is_similar(self, others: np.ndarray) -> np.ndarray:
        """Return 1 for each pool sample similar to one of the others, (m, ...), and 0 otherwise."""
        # k[n,...] = sum_m f[n,m] others[m,...]
        gram: np.ndarray = self.pool @ others
        # Products of matrices are rounded differently from products with vectors.
        return self.count(gram, 4 * float(np.finfo(gram.dtype).eps))

    def utilities(self) -> np.ndarray:
        """Return the number of uncovered samples in each ball, of shape (n,)."""
        return self.counts

    def add(self, index: int) -> None:
        """Cover the ball of a chosen sample, which contains the sample itself."""
        newly_covered = (self._is_similar(self.pool[index]) > 0) & ~self.covered
        newly_covered[index] = not self.covered[index]
        self.counts = self.counts - self._count_similar(self.pool[newly_covered])
        self.covered |= newly_covered
        if self.covered.all():
            self._count_uncovered()


class Typicality(Selection):
    """Choice of the most typical sample of the largest cluster with the fewest labels [1]_.

    This is TypiClust. The clusters of k-means are as many as there will be labels, at most 500. The
    typicality of a sample is 1 / (mean distance to its 20 nearest neighbours in its cluster).

    References
    ----------
    .. [1] G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies
       suit high and low budgets", ICML 2022.
    """

    whitening: ClassVar[str | None] = "unit"

    def __init__(self, setting: Setting):
        self.pool = setting.pool
        samples = np.concatenate([setting.pool, setting.labelled])
        count = min(len(setting.labelled) + setting.n_queries, _MOST_CLUSTERS, len(samples))
        clusters = KMeans(count, n_init=1, random_state=setting.generator).fit(samples).labels_
        self.clusters = clusters[: len(self.pool)].copy()
        self.labels = np.bincount(clusters[len(self.pool) :], minlength=count)

    def utilities(self) -> np.ndarray:
        """Return the typicality in the cluster to choose from, and -1 elsewhere, of shape (n,)."""
        sizes = np.bincount(self.clusters[self.clusters >= 0], minlength=len(self.labels))
        # Empty clusters are last; the others are sorted by labels, and then by size.
        cluster = np.lexsort([-sizes, self.labels, sizes == 0])[0]
        members = np.flatnonzero(self.clusters == cluster)
        utilities = np.full(len(self.pool), -1.0)
        utilities[members] = _compute_typicality(self.pool[members])
        return utilities

    def add(self, index: int) -> None:
        """Remove a chosen sample from its cluster, which then has one label more."""
        self.labels[self.clusters[index]] += 1
        self.clusters[index] = -1


def _compute_typicality(features: np.ndarray) -> np.ndarray:
    """Return the typicality of samples with features of shape (n, m), of shape (n,).

    It is 1 / (eps + mean distance to the nearest other samples), which is finite for equal samples,
    and 0 for a single sample.
    """
    if len(features) < 2:
        return np.zeros(len(features))
    search = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(features) - 1), algorithm="brute")
    distances, _ = search.fit(features).kneighbors()
    typicality: np.ndarray = 1 / (np.finfo(features.dtype).eps + distances.mean(axis=1))
    return typicality
