r"""Strategies by the posterior of a linear model on the features, which is a Gaussian process.

Index legend: n pool samples; l labelled samples; m features. With labelled features Z of shape
(l, m) and noise variance s, the posterior covariance of the m weights is
:math:`A = (I + Z^T Z / s)^{-1}`, and the variance at a sample with features f is :math:`f^T A f`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..._networks.memory import check_within_budget
from ._selection import Selection, Setting, split_rows

# Variance s of a label's noise, as a share of the mean of |f|^2 over the labelled samples.
_NOISE = 1e-6

# Number of (m, m) matrices that are in memory at once.
_MATRICES = 4


class MaximalDeterminant(Selection):
    r"""Choice of the sample with the largest posterior variance [1]_.

    :math:`u(x) = k(x, x) - K(x, Z) (K(Z, Z) + s I)^{-1} K(Z, x)`, where k(x, x') = f(x) . f(x') and
    Z are the labelled and chosen samples. This choice increases the determinant of
    :math:`K(Z, Z) + s I` the most.

    References
    ----------
    .. [1] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
       batch active learning for regression", JMLR 24, 2023.
    """

    pool_independent: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        width = setting.pool.shape[1]
        check_within_budget(
            f"The posterior covariance of {width:,} features",
            _MATRICES * 8 * width**2,
            "Set a smaller `n_components`, or use strategy='kcenter' or 'lcmd'",
        )
        labelled = setting.labelled.astype(np.float64)
        # s = 1e-6 sum_l |z_l|^2 / l, or 1e-6 if all labelled features are 0
        scale = np.einsum("lm,lm->", labelled, labelled) / len(labelled)
        self.noise = _NOISE * (scale or 1.0)
        self.pool = setting.pool
        # A = (I + Z^T Z / s)^{-1}
        identity = np.eye(width)
        precision = identity + labelled.T @ labelled / self.noise
        self.covariance = cho_solve(cho_factor(precision), identity)
        # u[n] = f_n^T A f_n = k(x, x) - K(x, Z) (K(Z, Z) + s I)^{-1} K(Z, x)
        self.variances = self._quadratic_forms(self.covariance)
        # Changes v of the covariance by chosen samples: A - sum_v v v^T is the current one.
        self.directions = np.empty((0, self.pool.shape[1]))

    def _quadratic_forms(self, matrix: np.ndarray) -> np.ndarray:
        """Return f_n^T M f_n for each pool sample, of shape (n,), float64."""
        forms = np.empty(len(self.pool))
        for rows in split_rows(*self.pool.shape):
            features = self.pool[rows].astype(np.float64)
            forms[rows] = np.einsum("nm,nm->n", features @ matrix, features)
        return forms

    def _inner_products(self, vector: np.ndarray) -> np.ndarray:
        """Return f_n . v for each pool sample, of shape (n,), float64."""
        return (self.pool @ vector.astype(self.pool.dtype)).astype(np.float64)

    def utilities(self) -> np.ndarray:
        """Return the posterior variances, of shape (n,)."""
        return self.variances

    def add(self, index: int) -> None:
        """Condition on a chosen sample; the posterior does not depend on its label."""
        self._condition(self._compute_direction(index))

    def _compute_direction(self, index: int) -> np.ndarray:
        r"""Return the vector v by which a sample changes the covariance to :math:`A - v v^T`."""
        # v = A f / sqrt(s + f^T A f), by the Sherman-Morrison formula
        features = self.pool[index].astype(np.float64)
        product = self._apply_covariance(features)
        direction: np.ndarray = product / np.sqrt(self.noise + features @ product)
        return direction

    def _apply_covariance(self, vector: np.ndarray) -> np.ndarray:
        """Return the current covariance times a vector u, of shape (m,)."""
        # (A - V^T V) u, with the directions as rows of V
        changes = self.directions.T @ (self.directions @ vector)
        product: np.ndarray = self.covariance @ vector - changes
        return product

    def _condition(self, direction: np.ndarray) -> None:
        """Change the covariance to A - v v^T, where v is the direction."""
        self.directions = np.vstack([self.directions, direction])
        # f_n^T (A - v v^T) f_n = f_n^T A f_n - (f_n . v)^2
        self.variances = (self.variances - self._inner_products(direction) ** 2).clip(0)


class Bait(MaximalDeterminant):
    r"""Choice of the sample that lowers the mean posterior variance of the pool the most [1]_.

    The utility is :math:`f^T A F A f / (s + f^T A f)` with :math:`F = \sum_x f(x) f(x)^T / n` over
    the pool. The paper also makes backward steps, and weighs the outputs of classifiers by their
    probabilities; this class does neither.

    References
    ----------
    .. [1] J. Ash, S. Goel, A. Krishnamurthy, S. Kakade, "Gone fishing: neural active learning with
       Fisher embeddings", NeurIPS 2021.
    """

    pool_independent: ClassVar[bool] = False

    def __init__(self, setting: Setting):
        super().__init__(setting)
        # F = sum_n f_n f_n^T / n
        self.moment = np.zeros_like(self.covariance)
        for rows in split_rows(*self.pool.shape):
            features = self.pool[rows].astype(np.float64)
            self.moment += features.T @ features / len(self.pool)
        # g[n] = f_n^T A F A f_n
        self.gains = self._quadratic_forms(self.covariance @ self.moment @ self.covariance)

    def utilities(self) -> np.ndarray:
        """Return the decrease of the mean variance by each sample, of shape (n,)."""
        # mean_x (f(x) . v)^2 = v^T F v, with v = A f / sqrt(s + f^T A f)
        return self.gains / (self.noise + self.variances)

    def _condition(self, direction: np.ndarray) -> None:
        # With A' = A - v v^T:
        # f^T A' F A' f = f^T A F A f - 2 (f . v) (f . A F v) + (v . F v) (f . v)^2
        product = self.moment @ direction
        f_v = self._inner_products(direction)
        f_AFv = self._inner_products(self._apply_covariance(product))
        gains = self.gains - 2 * f_v * f_AFv + (direction @ product) * f_v**2
        self.gains = gains.clip(0)
        super()._condition(direction)


class FrankWolfe(MaximalDeterminant):
    r"""Choice of the sample that best completes a weighted sum of the chosen samples [1]_.

    The weighted sum r approximates the sum :math:`t = \sum_x f(x)` over the pool, with the error
    :math:`(t - r)^T A (t - r)`. Each choice is a Frank-Wolfe step that lowers this error, but no
    sample is chosen twice.

    References
    ----------
    .. [1] R. Pinsler, J. Gordon, E. Nalisnick, J. Hernández-Lobato, "Bayesian batch active learning
       as sparse subset approximation", NeurIPS 2019.
    """

    pool_independent: ClassVar[bool] = False

    def __init__(self, setting: Setting):
        super().__init__(setting)
        # sigma[n] = sqrt(f_n^T A f_n), the norm in the metric A
        self.lengths = np.sqrt(self.variances.clip(0))
        # t - r, with r = 0 at first
        self.missing = self.pool.sum(axis=0, dtype=np.float64)
        self.reached = np.zeros_like(self.missing)

    def utilities(self) -> np.ndarray:
        """Return f_n^T A (t - r) / sigma[n], or 0 if sigma[n] is 0, of shape (n,)."""
        products = self._inner_products(self.covariance @ self.missing)
        zeros = np.zeros_like(products)
        return np.divide(products, self.lengths, out=zeros, where=self.lengths > 0)

    def add(self, index: int) -> None:
        """Take the step towards a chosen sample that makes the error the smallest."""
        if self.lengths[index] == 0:
            return
        # p = f_i sum_n sigma[n] / sigma[i] - r, the direction from r to the vertex of sample i
        vertex = self.pool[index] * (self.lengths.sum() / self.lengths[index])
        direction = vertex - self.reached
        # gamma = p^T A (t - r) / (p^T A p), in [0, 1]
        product = self.covariance @ direction
        square = product @ direction
        gamma = np.clip(product @ self.missing / square, 0, 1) if square > 0 else 0.0
        # r <- r + gamma p
        self.reached = self.reached + gamma * direction
        self.missing = self.missing - gamma * direction
