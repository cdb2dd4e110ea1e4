"""Strategies by the labelled rows that are similar, or have a say.

Index legend: n pool rows; l labelled rows; m features.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..._kernels.similarities import COUNTS
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
        self.pool, self.method = setting.pool, self._method(setting)
        self.level = self._level(setting)
        self.total = np.zeros(len(self.pool))
        # What is linear in the others is so in their sum.
        linear = self.method == "soft"
        others = setting.labelled.sum(axis=0, keepdims=True) if linear else setting.labelled
        for rows in split_rows(len(self.pool), len(others)):
            self.total[rows] = self._counts(rows, others.T).sum(axis=1)

    @staticmethod
    def _method(setting: Setting) -> str:
        return setting.method

    @staticmethod
    def _level(setting: Setting) -> float:
        """The threshold or the exponent; "auto": so that each labelled row has one similar one."""
        if setting.method == "threshold":
            return setting.least_similarity(setting.labelled, len(setting.labelled))
        return setting.alpha

    def _counts(self, rows: slice, others: np.ndarray) -> np.ndarray:
        """What each of the others, of shape (m, ...), counts for each row."""
        gram: np.ndarray = self.pool[rows] @ others
        if self.method == "soft":
            return gram
        return COUNTS[self.method].count(gram, self.level, float(np.finfo(gram.dtype).eps))

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
    def _method(setting: Setting) -> str:
        return "soft"

    def _counts(self, rows: slice, others: np.ndarray) -> np.ndarray:
        """Influences, in samples; 0 on a row without a gradient."""
        found: np.ndarray = ((self.pool[rows] @ others).T * self.inverse[rows]).T
        return found
