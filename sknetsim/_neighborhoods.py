"""Moments over neighbourhoods, and what is left of them where distances vanish.

Index legend: n samples; k neighbours of each, itself not among them; q columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Neighborhoods:
    """The nearest others of n samples.

    Attributes
    ----------
    indices : ndarray of shape (n, k)
        The neighbours.
    squares : ndarray of shape (n, k)
        Their squared distances.
    """

    indices: np.ndarray
    squares: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Over a sample and its neighbours, for values of shape (n, ...)."""
        total = values + values[self.indices].sum(axis=1)
        found: np.ndarray = total / self._count
        return found

    def variance(self, values: np.ndarray) -> np.ndarray:
        """Unbiased, summed over columns, of shape (n,), for values (n, q)."""
        members = np.concatenate([values[:, None], values[self.indices]], axis=1)
        found: np.ndarray = members.var(axis=1, ddof=1).sum(axis=1)
        return found

    def noise(self, values: np.ndarray) -> np.ndarray:
        """The variance between samples that have come to be the same, of shape (n,).

        Half of the squared differences of neighbours, around each sample, as a line in their
        squared distance: its value at 0, neither slope nor value below 0.
        """
        halves = np.square(values[self.indices] - values[:, None]).sum(axis=2) / 2
        products = (self.squares, halves, self.squares**2, self.squares * halves)
        x, y, xx, xy = (self.mean(product.mean(axis=1)) for product in products)
        spread = xx - x**2
        # Distances that are all alike up to rounding have no slope.
        spread = np.where(spread > 1e-12 * xx, spread, np.inf)
        return np.clip(y - np.clip((xy - x * y) / spread, 0, None) * x, 0, None)

    def shared(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean square around each sample what neighbours have in common, and all of it.

        The first is unbiased: 0 on average, and so at times negative, for independent noise.
        """
        square = np.square(self.mean(residuals)).sum(axis=1)
        common = square - self.variance(residuals) / self._count
        return common, self.mean(np.square(residuals).sum(axis=1))

    @property
    def _count(self) -> int:
        return self.indices.shape[1] + 1
