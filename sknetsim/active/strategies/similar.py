"""Strategies by the labelled rows that are similar, or have a say.

Index legend: n pool rows; l labelled rows; m features.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..._kernels.similarities import Count
from ._selection import Selection, Setting, split_rows


class FewestSimilar(Selection):
    """The row with the fewest similar labelled and chosen ones, counted as by NetworkDensity [1]_.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    """

    gradients: ClassVar[str | None] = "unit"
    alone: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        self.pool, self.count = setting.pool, self._make_count(setting)
        self.total = np.zeros(len(self.pool))
        # A sum of similarities is the product with the sum: sum_j f . f_j = f . sum_j f_j.
        linear = self.count is None
        others = setting.labelled.sum(axis=0, keepdims=True) if linear else setting.labelled
        for rows in split_rows(len(self.pool), len(others)):
            self.total[rows] = self._counts(rows, others.T).sum(axis=1)

    @staticmethod
    def _make_count(setting: Setting) -> Count | None:
        """Return the count; threshold "auto" gives a labelled sample one similar one on average."""
        return setting.make_count(setting.labelled, len(setting.labelled))

    def _counts(self, rows: slice, others: np.ndarray) -> np.ndarray:
        """What each of the others, of shape (m, ...), counts for each row."""
        gram: np.ndarray = self.pool[rows] @ others
        return gram if self.count is None else self.count(gram, float(np.finfo(gram.dtype).eps))

    def utilities(self) -> np.ndarray:
        """Counts, times -1, of shape (n,)."""
        return -self.total

    def add(self, index: int) -> None:
        """Count a chosen row as labelled."""
        self.total = self.total + self._counts(slice(None), self.pool[index])


class LeastReliable(FewestSimilar):
    r"""The row in whose prediction labelled and chosen rows have the least say [1]_.

    :math:`\sum_i k(x, x_i) / k(x, x)` with the kernel as it is, see `NetworkDensity.reliability`.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    """

    gradients: ClassVar[str | None] = "none"

    def __init__(self, setting: Setting):
        own = np.einsum("nm,nm->n", setting.pool, setting.pool, dtype=np.float64)
        self.inverse = np.divide(1, own, out=np.zeros_like(own), where=own > 0)
        super().__init__(setting)

    @staticmethod
    def _make_count(setting: Setting) -> Count | None:
        return None

    def _counts(self, rows: slice, others: np.ndarray) -> np.ndarray:
        """Influences, in samples; 0 on a row without a gradient."""
        found: np.ndarray = ((self.pool[rows] @ others).T * self.inverse[rows]).T
        return found
