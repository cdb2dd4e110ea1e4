"""Strategies without gradients.

Index legend: n pool samples; k labels of a sample; c classes of a label.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from scipy.stats import entropy

from ._selection import Selection, Setting


class _FixedUtilities(Selection):
    """Selection whose utilities do not change, so that equal samples are chosen together."""

    whitening: ClassVar[None] = None

    def __init__(self, setting: Setting):
        self.fixed = self._compute_utilities(setting)

    @staticmethod
    @abc.abstractmethod
    def _compute_utilities(setting: Setting) -> np.ndarray:
        """Return the utility of each pool sample, of shape (n,)."""

    def utilities(self) -> np.ndarray:
        """Return the utility of each pool sample, of shape (n,)."""
        return self.fixed

    def add(self, index: int) -> None:
        """Leave the utilities unchanged."""


class Random(_FixedUtilities):
    """Choice of a random sample."""

    @staticmethod
    def _compute_utilities(setting: Setting) -> np.ndarray:
        return setting.generator.uniform(size=len(setting.pool))


class Margin(_FixedUtilities):
    """Choice of the sample whose two most probable classes have the closest probabilities [1]_.

    For independent labels, it is the sample with the least certain label [2]_.

    References
    ----------
    .. [1] T. Scheffer, C. Decomain, S. Wrobel, "Active hidden Markov models for information
       extraction", IDA 2001.
    .. [2] K. Brinker, "On active learning in multi-label classification", in: From Data and
       Information Analysis to Knowledge Engineering, Springer, 2006.
    """

    pool_independent: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    @staticmethod
    def _compute_utilities(setting: Setting) -> np.ndarray:
        # u[n] = -min_k (p_(1)[n,k] - p_(2)[n,k]), with the largest and the second largest p[n,k,c].
        # With two classes of the probabilities p and 1 - p, the difference is |2 p - 1|.
        ordered = np.sort(setting.probabilities, axis=-1)
        differences: np.ndarray = ordered[..., -2] - ordered[..., -1]
        return differences.reshape(len(ordered), -1).max(axis=1)


class Entropy(_FixedUtilities):
    """Choice of the sample whose predicted probabilities have the largest entropy [1]_.

    The entropy of independent labels is the sum of their entropies.

    References
    ----------
    .. [1] B. Settles, "Active learning literature survey", University of Wisconsin-Madison, 2009.
    """

    pool_independent: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    @staticmethod
    def _compute_utilities(setting: Setting) -> np.ndarray:
        # u[n] = -sum_k sum_c p[n,k,c] log p[n,k,c], in nats
        entropies: np.ndarray = entropy(setting.probabilities, axis=-1)
        return entropies.reshape(len(entropies), -1).sum(axis=1)
