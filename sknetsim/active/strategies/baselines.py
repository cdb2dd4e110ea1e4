"""Strategies without gradients.

Index legend: n pool samples; c classes.
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

    References
    ----------
    .. [1] T. Scheffer, C. Decomain, S. Wrobel, "Active hidden Markov models for information
       extraction", IDA 2001.
    """

    pool_independent: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    @staticmethod
    def _compute_utilities(setting: Setting) -> np.ndarray:
        # u[n] = -(p_(1)[n] - p_(2)[n]), with the largest and the second largest probability
        ordered = np.sort(setting.probabilities, axis=1)
        return ordered[:, -2] - ordered[:, -1]


class Entropy(_FixedUtilities):
    """Choice of the sample whose predicted probabilities have the largest entropy [1]_.

    References
    ----------
    .. [1] B. Settles, "Active learning literature survey", University of Wisconsin-Madison, 2009.
    """

    pool_independent: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    @staticmethod
    def _compute_utilities(setting: Setting) -> np.ndarray:
        # u[n] = -sum_c p[n,c] log p[n,c], in nats
        entropies: np.ndarray = entropy(setting.probabilities, axis=1)
        return entropies
