"""Strategies by distances to the centres, which are the labelled and chosen samples.

Index legend: n pool samples; l labelled samples; m features; z centres.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._selection import Selection, Setting, split_rows


def squared_norms(features: np.ndarray) -> np.ndarray:
    """Return the squared norm of each row, of shape (n,)."""
    # |f_n|^2 = sum_m f[n,m]^2
    squares: np.ndarray = np.einsum("nm,nm->n", features, features)
    return squares


def find_nearest_centers(pool: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distance to the nearest centre and its index, of shape (n,) each."""
    distances, nearest = squared_norms(pool), np.empty(len(pool), dtype=np.int64)
    squares = squared_norms(centers)
    for rows in split_rows(len(pool), len(centers)):
        # |f_n - c_z|^2 = |f_n|^2 + (|c_z|^2 - 2 f_n . c_z)
        terms = squares - 2 * (pool[rows] @ centers.T)
        nearest[rows] = terms.argmin(axis=1)
        distances[rows] += terms.min(axis=1)
    # Rounding can make the distance of equal features negative.
    return distances.clip(0), nearest


class KCenter(Selection):
    """Choice of the sample farthest from its nearest centre (core-set) [1]_.

    The utility is min_z |f(x) - f(z)|^2 over labelled and chosen samples z.

    References
    ----------
    .. [1] O. Sener, S. Savarese, "Active learning for convolutional neural networks: a core-set
       approach", ICLR 2018.
    """

    pool_independent: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        # |(f - c) - (g - c)| = |f - g|: without the common part c, distances lose fewer digits.
        common = setting.labelled.mean(axis=0)
        self._set_pool(setting.pool - common)
        self.distances, self.nearest = find_nearest_centers(self.pool, setting.labelled - common)
        self.n_centers = len(setting.labelled)

    def _set_pool(self, pool: np.ndarray) -> None:
        self.pool, self.squares = pool, squared_norms(pool)

    def utilities(self) -> np.ndarray:
        """Return the squared distance to the nearest centre, of shape (n,)."""
        return self.distances

    def add(self, index: int) -> None:
        """Make the chosen sample i a centre."""
        # |f_n - f_i|^2 = |f_n|^2 + |f_i|^2 - 2 f_n . f_i
        distances = self.squares + self.squares[index] - 2 * (self.pool @ self.pool[index])
        distances[index] = 0
        closer = distances < self.distances
        closer[index] = True
        self.distances = np.where(closer, distances.clip(0), self.distances)
        self.nearest[closer] = self.n_centers
        self.n_centers += 1


class LargestCluster(KCenter):
    """Choice of the sample farthest from its centre, in the largest cluster [1]_.

    A cluster consists of the samples with the same nearest centre, and its size is the sum of their
    squared distances to it.

    References
    ----------
    .. [1] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
       batch active learning for regression", JMLR 24, 2023.
    """

    pool_independent: ClassVar[bool] = False

    def utilities(self) -> np.ndarray:
        """Return the squared distances, lowered below 0 outside the largest cluster, of shape (n,).

        They are lowered by the largest distance plus 1.
        """
        # size[z] = sum over n with nearest centre z of |f_n - c_z|^2
        sizes = np.bincount(self.nearest, self.distances, self.n_centers)
        inside = self.nearest == sizes.argmax()
        return np.where(inside, self.distances, self.distances - self.distances.max() - 1)


class KMeansPlusPlus(KCenter):
    """Random choice of a sample in proportion to its squared distance to the chosen samples [1]_.

    This is BADGE: k-means++ on gradients of the loss at the predicted label, whose norm measures
    how uncertain that label is. For independent labels, it is the loss at all predicted labels. The
    first sample is drawn in proportion to its squared norm |f|^2, and later ones in proportion to
    the smaller of |f|^2 and the squared distance to the nearest chosen sample.

    References
    ----------
    .. [1] J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, "Deep batch active learning
       by diverse, uncertain gradient lower bounds", ICLR 2020.
    """

    output: ClassVar[str] = "loss"
    needs_labelled: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        self._set_pool(setting.pool - setting.pool.mean(axis=0))
        # The squared norm is the squared distance to 0, which is the first centre.
        self.distances = squared_norms(setting.pool)
        self.nearest, self.n_centers = np.zeros(len(self.pool), dtype=np.int64), 1
        self.generator = setting.generator

    def choose(self, utilities: np.ndarray) -> int:
        """Draw a sample in proportion to the utilities, or uniformly if all are 0.

        NaN marks samples already chosen.
        """
        weights = np.nan_to_num(utilities)
        if not weights.any():
            weights = np.where(np.isnan(utilities), 0.0, 1.0)
        # P(n) = u[n] / sum_n' u[n']
        return int(self.generator.choice(len(weights), p=weights / weights.sum()))
