"""Strategies by the number of similar labelled samples, or by their support of a prediction.

Index legend: n pool samples; l labelled samples; m features; z labelled and chosen samples.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..._kernels.similarities import Count
from ._selection import Selection, Setting, split_rows


class FewestSimilar(Selection):
    """Choice of the sample with the fewest similar labelled and chosen samples [1]_.

    The utility is -sum_z count(k^C(x, z)), with the count of `NetworkDensity`.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    """

    whitening: ClassVar[str | None] = "unit"
    pool_independent: ClassVar[bool] = True

    def __init__(self, setting: Setting):
        self.pool, self.count = setting.pool, self._make_count(setting)
        self.total = np.zeros(len(self.pool))
        # A sum of similarities is a product with the sum: sum_z f . f_z = f . sum_z f_z.
        linear = self.count is None
        others = setting.labelled.sum(axis=0, keepdims=True) if linear else setting.labelled
        # total[n] = sum_z count(k[n,z])
        for rows in split_rows(len(self.pool), len(others)):
            self.total[rows] = self._compute_counts(rows, others.T).sum(axis=1)

    @staticmethod
    def _make_count(setting: Setting) -> Count | None:
        """Return the count; by "auto", a labelled sample is similar to one other on average."""
        return setting.make_count(setting.labelled, len(setting.labelled))

    def _compute_counts(self, rows: slice, others: np.ndarray) -> np.ndarray:
        """Return the counts of the others, of shape (m, ...), around some pool samples."""
        # k[n,...] = sum_m f[n,m] others[m,...]
        gram: np.ndarray = self.pool[rows] @ others
        return gram if self.count is None else self.count(gram, float(np.finfo(gram.dtype).eps))

    def utilities(self) -> np.ndarray:
        """Return the counts, times -1, of shape (n,)."""
        return -self.total

    def add(self, index: int) -> None:
        """Count a chosen sample as labelled."""
        self.total = self.total + self._compute_counts(slice(None), self.pool[index])


class LeastReliable(FewestSimilar):
    r"""Choice of the sample whose prediction the labelled and chosen samples support least [1]_.

    The utility is :math:`-\sum_z k(x, z) / k(x, x)` with the unnormalised kernel k, see
    `NetworkDensity.reliability`.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    """

    whitening: ClassVar[str | None] = "none"

    def __init__(self, setting: Setting):
        # inverse[n] = 1 / |f_n|^2, or 0 for a sample with a zero gradient
        own = np.einsum("nm,nm->n", setting.pool, setting.pool, dtype=np.float64)
        self.inverse = np.divide(1, own, out=np.zeros_like(own), where=own > 0)
        super().__init__(setting)

    @staticmethod
    def _make_count(setting: Setting) -> Count | None:
        return None

    def _compute_counts(self, rows: slice, others: np.ndarray) -> np.ndarray:
        # k[n,...] / k[n,n]; the transposes divide along the first axis.
        influences: np.ndarray = ((self.pool[rows] @ others).T * self.inverse[rows]).T
        return influences
