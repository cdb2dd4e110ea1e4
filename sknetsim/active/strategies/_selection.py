"""Greedy choice of pool samples, which all strategies have in common.

Index legend: n pool samples; l labelled samples; m features; k labels of a sample; c classes of a
label; b samples to choose.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..._kernels.similarities import Count, make_count

# Largest number of entries of a product that is in memory at once (32 MiB in float32).
_ENTRIES = 2**23

# Number of samples whose pairs determine the threshold "auto".
_THRESHOLD_SAMPLES = 2000


@dataclass(frozen=True)
class Setting:
    """Input of a strategy.

    Attributes
    ----------
    pool : ndarray of shape (n, m)
        Features of the pool; without columns for strategies that need none.
    labelled : ndarray of shape (l, m)
        Features of the labelled samples.
    probabilities : ndarray of shape (n, c), (n, k, c) or (n, 0)
        Predicted probabilities of the classes, for strategies that need them; with k independent
        labels, those of the classes of each label.
    n_queries : int
        Number b of samples that will be chosen.
    method : {"soft", "threshold", "power"}
        How similar samples are counted.
    threshold : float or "auto"
        Least similarity of similar samples.
    alpha : float
        Exponent of method "power".
    generator : RandomState
        Generator of all random numbers.
    """

    pool: np.ndarray
    labelled: np.ndarray
    probabilities: np.ndarray
    n_queries: int
    method: str
    threshold: float | str
    alpha: float
    generator: np.random.RandomState

    def make_count(self, features: np.ndarray, balls: int) -> Count | None:
        """Return the count of similar samples, or None for method "soft", which adds similarities.

        A threshold "auto" follows from the features and the number of balls, see
        `least_similarity`.
        """
        if self.method == "soft":
            return None
        needs_threshold = self.method == "threshold"
        threshold = self.least_similarity(features, balls) if needs_threshold else np.nan
        return make_count(self.method, threshold, self.alpha)

    def least_similarity(self, features: np.ndarray, balls: int) -> float:
        """Return the threshold; "auto" is the (1 - 1 / balls)-quantile of the pairs' similarities.

        A share of 1 / balls of the pairs is then similar. If a ball contains the samples that are
        similar to its centre, ``balls`` balls contain, in total, as many samples as there are. At
        most 2,000 samples are used, drawn at random. Without any pair, "auto" is 1.
        """
        if not isinstance(self.threshold, str):
            return float(self.threshold)
        sampled = features[self.generator.permutation(len(features))[:_THRESHOLD_SAMPLES]]
        # k^C[i,j] = f_i . f_j for i != j
        pairs = (sampled @ sampled.T)[~np.eye(len(sampled), dtype=bool)]
        return float(np.quantile(pairs, 1 - 1 / balls)) if pairs.size else 1.0


class Selection(abc.ABC):
    """Base class of strategies: utilities of all pool samples, updated after each choice.

    Parameters
    ----------
    setting : Setting
        Features of pool and labelled samples, and parameters.
    """

    #: Whitening of the gradients that become features, see `WHITENINGS`; None: no gradients.
    whitening: ClassVar[str | None] = "none"
    #: Output that replaces the estimator's ``output`` if the network must predict classes.
    output: ClassVar[str] = "all"
    #: Whether features of the labelled samples are needed.
    needs_labelled: ClassVar[bool] = True
    #: Whether the utility of a sample is the same in any pool.
    pool_independent: ClassVar[bool] = False
    #: Whether the network must predict classes, or independent labels.
    needs_classes: ClassVar[bool] = False

    @abc.abstractmethod
    def __init__(self, setting: Setting):
        """Compute the first utilities."""

    @abc.abstractmethod
    def utilities(self) -> np.ndarray:
        """Return the current utility of each pool sample, of shape (n,)."""

    @abc.abstractmethod
    def add(self, index: int) -> None:
        """Update the utilities after the choice of a sample."""

    def choose(self, utilities: np.ndarray) -> int:
        """Return the first sample with the largest utility; NaN marks samples already chosen."""
        return int(np.nanargmax(utilities))


def select_greedily(selection: Selection, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the chosen samples in order, each with the utilities it was chosen by.

    Utilities are of shape (n,), float64, and NaN for samples that were chosen before.
    """
    chosen: list[int] = []
    for _ in range(count):
        utilities = selection.utilities().astype(np.float64)
        utilities[chosen] = np.nan
        chosen.append(selection.choose(utilities))
        yield chosen[-1], utilities
        selection.add(chosen[-1])


def split_rows(rows: int, others: int) -> Iterator[slice]:
    """Yield slices of the rows, so that a slice's products with the others fit in memory."""
    step = max(1, _ENTRIES // max(1, others))
    yield from (slice(start, start + step) for start in range(0, rows, step))
