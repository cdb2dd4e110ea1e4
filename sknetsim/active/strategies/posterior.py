r"""Strategies by the posterior of a linear model on the features, a Gaussian process.

Index legend: n pool rows; l labelled rows; m features. With labelled features Z and noise s, the
weights' posterior covariance is :math:`A = (I + Z^T Z / s)^{-1}`; a row f has :math:`f^T A f`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..._networks.memory import check_within_budget
from ._selection import Selection, Setting, split_rows

# Variance of a label's noise, where labelled features have a mean squared length of 1.
_NOISE = 1e-6

# Of m x m numbers, that are held at once.
_MATRICES = 4


class MaximalDeterminant(Selection):
    r"""The row of the largest posterior variance [1]_.

    :math:`v(x) = k(x, x) - K(x, Z) (K(Z, Z) + s I)^{-1} K(Z, x)` with Z what is labelled or chosen,
    which makes the determinant of :math:`K(Z, Z) + s I` grow the most.

    References
    ----------
    .. [1] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
       batch active learning for regression", JMLR 24, 2023.
    """

    alone: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        width = setting.pool.shape[1]
        check_within_budget(
            f"The posterior covariance of {width:,} features",
            _MATRICES * 8 * width**2,
            "Set a smaller `n_components`, choose strategy='kcenter' or 'lcmd'",
        )
        labelled = setting.labelled.astype(np.float64)
        scale = np.einsum("lm,lm->", labelled, labelled) / len(labelled)
        self.noise = _NOISE * (scale or 1.0)
        self.pool = setting.pool
        identity = np.eye(width)
        precision = identity + labelled.T @ labelled / self.noise
        self.covariance = cho_solve(cho_factor(precision), identity)
        self.variances = self._forms(self.covariance)
        self.directions = np.empty((0, self.pool.shape[1]))

    def _forms(self, matrix: np.ndarray) -> np.ndarray:
        """Quadratic forms of the pool's rows, of shape (n,), float64."""
        found = np.empty(len(self.pool))
        for rows in split_rows(*self.pool.shape):
            features = self.pool[rows].astype(np.float64)
            found[rows] = np.einsum("nm,nm->n", features @ matrix, features)
        return found

    def _along(self, direction: np.ndarray) -> np.ndarray:
        """Products of the pool's rows with a vector, of shape (n,), float64."""
        return (self.pool @ direction.astype(self.pool.dtype)).astype(np.float64)

    def utilities(self) -> np.ndarray:
        """Posterior variances, of shape (n,)."""
        return self.variances

    def add(self, index: int) -> None:
        """Condition on a chosen row, whatever its label will be."""
        self._condition(self._direction(index))

    def _direction(self, index: int) -> np.ndarray:
        """The vector v of the covariance's change, which is :math:`- v v^T`."""
        row = self.pool[index].astype(np.float64)
        spread = self._spread(row)
        direction: np.ndarray = spread / np.sqrt(self.noise + row @ spread)
        return direction

    def _spread(self, vector: np.ndarray) -> np.ndarray:
        """The covariance, all changes included, times a vector."""
        changes = self.directions.T @ (self.directions @ vector)
        found: np.ndarray = self.covariance @ vector - changes
        return found

    def _condition(self, direction: np.ndarray) -> None:
        self.directions = np.vstack([self.directions, direction])
        self.variances = (self.variances - self._along(direction) ** 2).clip(0)


class Bait(MaximalDeterminant):
    r"""The row that lowers the posterior variance, summed over the pool, the most [1]_.

    By forward steps alone, and for classifiers by their outputs as they are, where the paper weighs
    them by their probabilities: with :math:`F = \sum_x f(x) f(x)^T / n` of the pool, the largest
    :math:`f^T A F A f / (s + f^T A f)`.

    References
    ----------
    .. [1] J. Ash, S. Goel, A. Krishnamurthy, S. Kakade, "Gone fishing: neural active learning with
       Fisher embeddings", NeurIPS 2021.
    """

    alone: ClassVar[bool] = False

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.moment = np.zeros_like(self.covariance)
        for rows in split_rows(*self.pool.shape):
            features = self.pool[rows].astype(np.float64)
            self.moment += features.T @ features / len(self.pool)
        self.gains = self._forms(self.covariance @ self.moment @ self.covariance)

    def utilities(self) -> np.ndarray:
        """By how much the mean of the variances falls, of shape (n,)."""
        return self.gains / (self.noise + self.variances)

    def _condition(self, direction: np.ndarray) -> None:
        moved = self.moment @ direction
        along, across = self._along(direction), self._along(self._spread(moved))
        gains = self.gains - 2 * along * across + (direction @ moved) * along**2
        self.gains = gains.clip(0)
        super()._condition(direction)


class FrankWolfe(MaximalDeterminant):
    """The row that brings a weighted sum of chosen rows nearest to the sum of all [1]_.

    In the metric of the posterior covariance, by Frank-Wolfe steps; each row is chosen once.

    References
    ----------
    .. [1] R. Pinsler, J. Gordon, E. Nalisnick, J. Hernández-Lobato, "Bayesian batch active learning
       as sparse subset approximation", NeurIPS 2019.
    """

    alone: ClassVar[bool] = False

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.lengths = np.sqrt(self.variances.clip(0))
        self.missing = self.pool.sum(axis=0, dtype=np.float64)
        self.reached = np.zeros_like(self.missing)

    def utilities(self) -> np.ndarray:
        """Products of the rows, of length 1, with what is missing in the sum, of shape (n,)."""
        products = self._along(self.covariance @ self.missing)
        zeros = np.zeros_like(products)
        return np.divide(products, self.lengths, out=zeros, where=self.lengths > 0)

    def add(self, index: int) -> None:
        """Take the step towards a chosen row that leaves the least missing."""
        if self.lengths[index] == 0:
            return
        vertex = self.pool[index] * (self.lengths.sum() / self.lengths[index])
        step = vertex - self.reached
        spread = self.covariance @ step
        length = spread @ step
        part = np.clip(spread @ self.missing / length, 0, 1) if length > 0 else 0.0
        self.reached = self.reached + part * step
        self.missing = self.missing - part * step
