"""Counts of similar samples, their means over the sphere, distances, and intrinsic dimension.

The similarity is k = k^C(x, x') in [-1, 1]. D is the dimension of the space whose unit sphere
S^{D-1} contains the features, so the intrinsic dimension is D - 1. u is the cosine of two uniform
random directions on this sphere; its density is proportional to (1 - u^2)^{(D-3)/2}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special


def log_mean_threshold(threshold: float, dimension: float) -> float:
    r"""Return the logarithm of :math:`Z_\tau = P(u \ge \tau)`, for 0 <= tau < 1.

    :math:`Z_\tau = \frac{1}{2} I_{1-\tau^2}(\frac{D-1}{2}, \frac{1}{2})`, where I is the
    regularised incomplete beta function and D the ``dimension``.
    """
    a = (dimension - 1) / 2
    logarithm = _log_betainc(a, 0.5, 1 - threshold**2)
    return float(logarithm - np.log(2))


def log_mean_power(alpha: float, dimension: float) -> float:
    r"""Return the logarithm of :math:`Z_\alpha = E[\max(u, 0)^\alpha]`, for alpha > 0.

    :math:`Z_\alpha = \frac{1}{2} B(\frac{\alpha+1}{2}, \frac{D-1}{2}) / B(\frac{1}{2},
    \frac{D-1}{2})`, where B is the beta function and D the ``dimension``.
    """
    b = (dimension - 1) / 2
    numerator = special.betaln((alpha + 1) / 2, b)
    return float(numerator - special.betaln(0.5, b) - np.log(2))


def _log_betainc(a: float, b: float, x: float) -> float:
    """Return the logarithm of the regularised incomplete beta function I_x(a, b).

    It is finite even if I_x(a, b) itself underflows.
    """
    value = special.betainc(a, b, x)
    if value > 1e-280:
        return float(np.log(value))
    # I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) 2F1(a + b, 1; a + 1; x)
    series = special.hyp2f1(a + b, 1.0, a + 1.0, x)
    return float(
        a * np.log(x) + b * np.log1p(-x) - np.log(a) - special.betaln(a, b) + np.log(series)
    )


class Count(Protocol):
    """Way to count similar samples."""

    def __call__(self, gram: np.ndarray, eps: float) -> np.ndarray:
        """Return the weight of each pair, in [0, 1], from k and the eps of its dtype."""

    def log_mean(self, dimension: float) -> float:
        """Return the logarithm of the mean weight over the sphere S^{D-1}."""


@dataclass(frozen=True)
class ThresholdCount:
    """Count of the samples with k >= tau.

    Attributes
    ----------
    threshold : float in [0, 1)
        The threshold tau.
    """

    threshold: float

    def __call__(self, gram: np.ndarray, eps: float) -> np.ndarray:
        """Return 1 where k >= tau, and 0 elsewhere."""
        # The margin keeps pairs with k = tau, even if rounding has moved them below tau.
        return (gram >= self.threshold - 4 * eps).astype(np.float64)

    def log_mean(self, dimension: float) -> float:
        """Return the logarithm of Z_tau."""
        return log_mean_threshold(self.threshold, dimension)


@dataclass(frozen=True)
class PowerCount:
    """Count in which a sample counts max(k, 0)^alpha.

    Attributes
    ----------
    alpha : float > 0
        The exponent.
    """

    alpha: float

    def __call__(self, gram: np.ndarray, eps: float) -> np.ndarray:
        """Return max(k, 0)^alpha, at most 1."""
        return np.clip(gram, 0, 1) ** self.alpha

    def log_mean(self, dimension: float) -> float:
        """Return the logarithm of Z_alpha."""
        return log_mean_power(self.alpha, dimension)


#: Methods of the estimators that count pair by pair, and the parameter of each method.
COUNTS = {"threshold": "threshold", "power": "alpha"}


def make_count(method: str, threshold: float, alpha: float) -> Count:
    """Return the count of one of `COUNTS`."""
    return ThresholdCount(threshold) if method == "threshold" else PowerCount(alpha)


def euclidean_distance(gram: np.ndarray, eps: float) -> np.ndarray:
    """Return the distances sqrt(2 - 2 k) of unit features."""
    return np.sqrt(2 * cosine_distance(gram, eps))


def cosine_distance(gram: np.ndarray, eps: float) -> np.ndarray:
    """Return the distances 1 - k, where distances up to ``16 * eps`` become 0.

    Rounding can put equal samples at a small distance, or below 0, which scikit-learn rejects.
    """
    distance = 1 - gram
    return np.where(distance <= 16 * eps, 0.0, distance)


#: Functions of (similarities, eps of the dtype of the gradients) that return distances.
DISTANCES = {"euclidean": euclidean_distance, "cosine": cosine_distance}

#: Functions that return the similarities from these distances.
SIMILARITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "euclidean": lambda distances: 1 - distances**2 / 2,
    "cosine": lambda distances: 1 - distances,
}


def distinct_squared_distances(gram: np.ndarray, eps: float) -> np.ndarray:
    """Return the squared distances 2 - 2 k; infinite for duplicates, which have at most 64 eps."""
    squared = np.clip(2 - 2 * gram, 0, None)
    return np.where(squared > 64 * eps, squared, np.inf)


def two_nearest_dimension(nearest: np.ndarray) -> float:
    """Return the intrinsic dimension D - 1 of unit vectors by the two-nearest-neighbour method.

    mu = r2 / r1 is the ratio of a sample's two smallest distances sqrt(2 - 2 k), and F is its
    empirical distribution function. The dimension is the slope of a regression of
    ``-log(1 - F(mu))`` on ``log(mu)`` through the origin, without the top tenth of mu (Facco et
    al., Scientific Reports 7, 2017).

    Parameters
    ----------
    nearest : ndarray of shape (n, 2)
        Squared distances of each sample to its two nearest neighbours without duplicates, in
        ascending order; infinite for missing neighbours.

    Returns
    -------
    dimension : float
        The estimate, at least 1. It is 1 if fewer than two samples have two neighbours, or if all
        ratios are 1.
    """
    nearest = nearest[np.isfinite(nearest).all(axis=1)]
    # log(r2 / r1) is half the logarithm of the ratio of the squared distances.
    logarithms = np.sort(np.log(nearest[:, 1] / nearest[:, 0]) / 2)
    count = len(logarithms)
    kept = logarithms[: int(0.9 * count)]
    if kept.size == 0 or kept[-1] <= 0:
        return 1.0
    # -log(1 - F(mu)) of the k-th smallest mu, with F = k / count.
    log_survival = -np.log1p(-np.arange(1, len(kept) + 1) / count)
    # Slope of the least-squares line through the origin.
    return max(1.0, float(log_survival @ kept / (kept @ kept)))
