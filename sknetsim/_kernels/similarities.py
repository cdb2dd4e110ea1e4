"""Part of the trial layout: _kernels/similarities.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special


def log_mean_threshold(threshold: float, dimension: float) -> float:
    r"""Logarithm of :math:`Z_\tau = P(u \ge \tau)`, u a cosine on the sphere in R^dimension."""
    a = (dimension - 1) / 2
    logarithm = _log_betainc(a, 0.5, 1 - threshold**2)
    return float(logarithm - np.log(2))


def _count_threshold(gram: np.ndarray, threshold: float, eps: float) -> np.ndarray:
    """1 where k >= tau; rounding must not lose k(x, x) = 1."""
    return (gram >= threshold - 4 * eps).astype(np.float64)


def _count_power(gram: np.ndarray, alpha: float, eps: float) -> np.ndarray:
    """max(k, 0)^alpha, at most 1."""
    return np.clip(gram, 0, 1) ** alpha


def _log_betainc(a: float, b: float, x: float) -> float:
    """Logarithm of the regularised incomplete beta function, also where it underflows."""
    value = special.betainc(a, b, x)
    if value > 1e-280:
        return float(np.log(value))
    series = special.hyp2f1(a + b, 1.0, a + 1.0, x)
    return float(
        a * np.log(x) + b * np.log1p(-x) - np.log(a) - special.betaln(a, b) + np.log(series)
    )


def log_mean_power(alpha: float, dimension: float) -> float:
    r"""Logarithm of :math:`Z_\alpha = E[\max(u, 0)^\alpha]`."""
    b = (dimension - 1) / 2
    numerator = special.betaln((alpha + 1) / 2, b)
    return float(numerator - special.betaln(0.5, b) - np.log(2))


@dataclass(frozen=True)
class Count:
    """A way of counting similar samples, and the logarithm of its mean over the sphere.

    ``parameter`` is what estimators call its threshold or power.
    """

    count: Callable[[np.ndarray, float, float], np.ndarray]
    log_mean: Callable[[float, float], float]
    parameter: str


#: Counts over pairs, of (gram, threshold or alpha, eps); their means of (threshold or alpha, D).
COUNTS = {
    "threshold": Count(_count_threshold, log_mean_threshold, "threshold"),
    "power": Count(_count_power, log_mean_power, "alpha"),
}


def euclidean_distance(gram: np.ndarray, eps: float) -> np.ndarray:
    return np.sqrt(2 * cosine_distance(gram, eps))


def cosine_distance(gram: np.ndarray, eps: float) -> np.ndarray:
    distance = 1 - gram
    return np.where(distance <= 16 * eps, 0.0, distance)


#: Distances from (similarities, eps of the gradients): rounding must not part equal samples, nor
#: leave anything below 0, which scikit-learn would refuse.
DISTANCES = {"euclidean": euclidean_distance, "cosine": cosine_distance}

#: Similarities from these distances.
SIMILARITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "euclidean": lambda distances: 1 - distances**2 / 2,
    "cosine": lambda distances: 1 - distances,
}


def distinct_squared_distances(gram: np.ndarray, eps: float) -> np.ndarray:
    """Squared distances 2 - 2 k; those up to ``64 * eps`` are duplicates, infinitely far."""
    squared = np.clip(2 - 2 * gram, 0, None)
    return np.where(squared > 64 * eps, squared, np.inf)


def two_nearest_dimension(nearest: np.ndarray) -> float:
    """Intrinsic dimension D - 1 of unit vectors by the two-nearest-neighbour method.

    Regresses ``-log(1 - F(mu))`` on ``log(mu)`` through the origin, mu = r2 / r1 the ratio
    of the two smallest distances sqrt(2 - 2 k), the top tenth of mu left out (Facco et al.,
    Scientific Reports 7, 2017).

    Parameters
    ----------
    nearest : ndarray of shape (n, 2)
        Squared distances to the two nearest others, ascending, duplicates left out; infinite where
        there is none.

    Returns
    -------
    dimension : float
        The estimate, at least 1; 1 where fewer than three distinct samples remain.
    """
    nearest = nearest[np.isfinite(nearest).all(axis=1)]
    logarithms = np.sort(np.log(nearest[:, 1] / nearest[:, 0]) / 2)
    count = len(logarithms)
    kept = logarithms[: int(0.9 * count)]
    if kept.size == 0 or kept[-1] <= 0:
        return 1.0
    survival = -np.log1p(-np.arange(1, len(kept) + 1) / count)
    return max(1.0, float(survival @ kept / (kept @ kept)))
