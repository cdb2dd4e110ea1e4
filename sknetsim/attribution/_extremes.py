"""Fitted samples with the largest and the smallest influence, from a pass over all pairs.

Index legend: n queries; m fitted samples; k samples of each kind.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .._passes.nearest import Nearest
from ..exceptions import describe_integers


@dataclass(frozen=True, eq=False)
class InfluentialSamples:
    """Fitted samples with the largest influence, of both signs, on each of n queries.

    Parameters
    ----------
    helpful : ndarray of shape (n, k), int64
        Indices of the fitted samples with the largest influence, in descending order.
    helpful_influence : ndarray of shape (n, k), float64
        Their influence.
    harmful : ndarray of shape (n, k), int64
        Indices of the fitted samples with the smallest influence, in ascending order.
    harmful_influence : ndarray of shape (n, k), float64
        Their influence.

    See Also
    --------
    TrainingInfluence : Estimator whose method ``top`` returns this.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import TrainingInfluence
    >>> X = np.linspace(-2, 2, 30)[:, None]
    >>> y = (X[:, 0] > 0).astype(int)
    >>> samples = TrainingInfluence(random_state=0).fit(X, y).top(X[:4], n_samples=2)
    >>> samples.helpful.shape
    (4, 2)
    """

    helpful: np.ndarray
    helpful_influence: np.ndarray
    harmful: np.ndarray
    harmful_influence: np.ndarray


def check_number(n_samples: Any, count: int) -> None:
    """Raise an error unless ``n_samples`` is a number of fitted samples."""
    is_integer = isinstance(n_samples, numbers.Integral) and not isinstance(n_samples, bool)
    if not is_integer or not 1 <= n_samples <= count:
        raise ValueError(
            f"`n_samples` must be {describe_integers(1, count)} (the number of fitted samples); got"
            f" {n_samples!r}. Request fewer samples, or fit more."
        )


class Extremes:
    """Largest and smallest values of each row, and their columns.

    Parameters
    ----------
    count : int
        Number of values of each kind.
    rows, columns : slice
        The rows and the columns.
    """

    def __init__(self, count: int, rows: slice, columns: slice):
        self.rows = rows
        self.largest = Nearest(count, _negate, 0.0, False, rows, columns)
        self.smallest = Nearest(count, _keep, 0.0, False, rows, columns)

    def add(self, rows: slice, columns: slice, values: Tensor) -> None:
        """Add the values of a tile, of shape (n, m)."""
        self.largest.add(rows, columns, values)
        self.smallest.add(rows, columns, values)

    def merge(self, other: Extremes) -> None:
        """Add the largest and smallest values of other columns."""
        self.largest.merge(other.largest)
        self.smallest.merge(other.smallest)

    def scale(self, factor: float) -> InfluentialSamples:
        """Return the samples with their values times a factor."""
        return InfluentialSamples(
            self.largest.indices,
            -factor * self.largest.distances,
            self.smallest.indices,
            factor * self.smallest.distances,
        )


def _negate(values: np.ndarray, eps: float) -> np.ndarray:
    """Return the values as distances, of which the largest value is the smallest."""
    return -values


def _keep(values: np.ndarray, eps: float) -> np.ndarray:
    """Return a copy of the values as distances."""
    return values.copy()
