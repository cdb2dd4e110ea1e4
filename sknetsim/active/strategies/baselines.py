"""Strategies that look at no gradient.

Index legend: n pool rows; c classes.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from scipy.stats import entropy

from ._selection import Selection, Setting


class _OneByOne(Selection):
    """Utilities that do not change with what is chosen: equal rows are chosen together."""

    gradients: ClassVar[None] = None

    def __init__(self, setting: Setting):
        self.fixed = self._utilities(setting)

    @staticmethod
    @abc.abstractmethod
    def _utilities(setting: Setting) -> np.ndarray:
        """Of shape (n,)."""

    def utilities(self) -> np.ndarray:
        """How much each pool row is worth, of shape (n,)."""
        return self.fixed

    def add(self, index: int) -> None:
        """Take note of a chosen row: nothing changes."""


class Random(_OneByOne):
    """Any row."""

    @staticmethod
    def _utilities(setting: Setting) -> np.ndarray:
        return setting.generator.uniform(size=len(setting.pool))


class Margin(_OneByOne):
    """The row whose two most probable classes are closest [1]_.

    References
    ----------
    .. [1] T. Scheffer, C. Decomain, S. Wrobel, "Active hidden Markov models for information
       extraction", IDA 2001.
    """

    alone: ClassVar[bool] = True
    classes: ClassVar[bool] = True

    @staticmethod
    def _utilities(setting: Setting) -> np.ndarray:
        ordered = np.sort(setting.probabilities, axis=1)
        return ordered[:, -2] - ordered[:, -1]


class Entropy(_OneByOne):
    """The row whose predicted probabilities have the largest entropy [1]_.

    References
    ----------
    .. [1] B. Settles, "Active learning literature survey", University of Wisconsin-Madison, 2009.
    """

    alone: ClassVar[bool] = True
    classes: ClassVar[bool] = True

    @staticmethod
    def _utilities(setting: Setting) -> np.ndarray:
        found: np.ndarray = entropy(setting.probabilities, axis=1)
        return found
