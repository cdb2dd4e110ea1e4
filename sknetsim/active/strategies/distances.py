"""Strategies by distances to what is labelled or chosen already.

Index legend: n pool rows; l labelled rows; m features.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._selection import Selection, Setting, split_rows


def _squares(features: np.ndarray) -> np.ndarray:
    """Squared lengths of the rows, of shape (n,)."""
    squares: np.ndarray = np.einsum("nm,nm->n", features, features)
    return squares


def nearest(pool: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances to the nearest centers, and which they are."""
    found, which = _squares(pool), np.empty(len(pool), dtype=np.int64)
    lengths = _squares(centers)
    for rows in split_rows(len(pool), len(centers)):
        pairs = lengths - 2 * (pool[rows] @ centers.T)
        which[rows] = pairs.argmin(axis=1)
        found[rows] += pairs.min(axis=1)
    return found.clip(0), which


class KCenter(Selection):
    """The row farthest from all labelled and chosen ones (core-set) [1]_.

    References
    ----------
    .. [1] O. Sener, S. Savarese, "Active learning for convolutional neural networks: a core-set
       approach", ICLR 2018.
    """

    alone: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        # What all have in common would cost digits of their distances.
        common = setting.labelled.mean(axis=0)
        self._place(setting.pool - common)
        self.distances, self.nearest = nearest(self.pool, setting.labelled - common)
        self.n_centers = len(setting.labelled)

    def _place(self, pool: np.ndarray) -> None:
        self.pool, self.squares = pool, _squares(pool)

    def utilities(self) -> np.ndarray:
        """Squared distances to the nearest center, of shape (n,)."""
        return self.distances

    def add(self, index: int) -> None:
        """Make a chosen row a center."""
        found = self.squares + self.squares[index] - 2 * (self.pool @ self.pool[index])
        found[index] = 0
        closer = found < self.distances
        closer[index] = True
        self.distances = np.where(closer, found.clip(0), self.distances)
        self.nearest[closer] = self.n_centers
        self.n_centers += 1


class LargestCluster(KCenter):
    """The row farthest from its center, in the cluster of the largest sum of distances [1]_.

    References
    ----------
    .. [1] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
       batch active learning for regression", JMLR 24, 2023.
    """

    alone: ClassVar[bool] = False

    def utilities(self) -> np.ndarray:
        """Squared distances; those in all but the largest cluster less more than their maximum."""
        sizes = np.bincount(self.nearest, self.distances, self.n_centers)
        inside = self.nearest == sizes.argmax()
        return np.where(inside, self.distances, self.distances - self.distances.max() - 1)


class KMeansPlusPlus(KCenter):
    """A row drawn in proportion to its squared distance from those chosen, as k-means++ does [1]_.

    Of gradients of the loss at the predicted label, whose lengths say how uncertain that label is:
    the first is drawn in proportion to its squared length.

    References
    ----------
    .. [1] J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, "Deep batch active learning
       by diverse, uncertain gradient lower bounds", ICLR 2020.
    """

    output: ClassVar[str | None] = "loss"
    labelled: ClassVar[bool] = False
    classes: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        self._place(setting.pool - setting.pool.mean(axis=0))
        self.distances = _squares(setting.pool)
        self.nearest, self.n_centers = np.zeros(len(self.pool), dtype=np.int64), 1
        self.generator = setting.generator

    def choose(self, utilities: np.ndarray) -> int:
        """A row drawn; where nothing differs any more, any of the rest."""
        weights = np.nan_to_num(utilities)
        if not weights.any():
            weights = np.where(np.isnan(utilities), 0.0, 1.0)
        return int(self.generator.choice(len(weights), p=weights / weights.sum()))
