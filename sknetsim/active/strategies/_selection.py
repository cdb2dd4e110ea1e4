"""Greedy choice of pool rows: what all strategies have in common.

Index legend: n pool rows; l labelled rows; m features; c classes; b rows to choose.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..._kernels.similarities import Count, make_count

# Entries of a product that are held at a time (32 MiB in float32).
_ENTRIES = 2**23

# "auto" looks at the pairs of so many rows.
_SAMPLED = 2000


@dataclass(frozen=True)
class Setting:
    """What a strategy chooses by.

    Attributes
    ----------
    pool : ndarray of shape (n, m)
        Features of the rows to choose from; without columns for strategies that need none.
    labelled : ndarray of shape (l, m)
        Features of the labelled rows.
    probabilities : ndarray of shape (n, c) or (n, 0)
        Predicted probabilities of the classes, for strategies that go by them.
    n_queries : int
        The number b of rows that will be chosen.
    method : {"soft", "threshold", "power"}
        How similar rows are counted.
    threshold : float or "auto"
        Least similarity of similar rows.
    alpha : float
        Exponent of method "power".
    generator : RandomState
        Where draws come from.
    """

    pool: np.ndarray
    labelled: np.ndarray
    probabilities: np.ndarray
    n_queries: int
    method: str
    threshold: float | str
    alpha: float
    generator: np.random.RandomState

    def make_count(self, rows: np.ndarray, balls: int) -> Count | None:
        """Return the count of similar samples, or None for method "soft", which adds similarities.

        A threshold "auto" follows from the rows and the number of balls, see `least_similarity`.
        """
        if self.method == "soft":
            return None
        threshold = self.least_similarity(rows, balls) if self.method == "threshold" else np.nan
        return make_count(self.method, threshold, self.alpha)

    def least_similarity(self, rows: np.ndarray, balls: int) -> float:
        """The threshold; "auto": so that so many balls hold the rows once.

        A share of 1 / balls of the rows' pairs are that similar, then.
        """
        if not isinstance(self.threshold, str):
            return float(self.threshold)
        sampled = rows[self.generator.permutation(len(rows))[:_SAMPLED]]
        pairs = (sampled @ sampled.T)[~np.eye(len(sampled), dtype=bool)]
        return float(np.quantile(pairs, 1 - 1 / balls)) if pairs.size else 1.0


class Selection(abc.ABC):
    """A greedy choice: utilities of all pool rows, which change with each row that is chosen.

    Parameters
    ----------
    setting : Setting
        What there is to choose from, and by.
    """

    #: Which gradients become features: one of `_kernels.WHITENINGS`; None: none are needed.
    gradients: ClassVar[str | None] = "none"
    #: The outputs whose gradients these are; None: the estimator's choice.
    output: ClassVar[str | None] = None
    #: Whether features of the labelled rows are looked at.
    labelled: ClassVar[bool] = True
    #: Whether a row's utility means something without the rest of the pool.
    alone: ClassVar[bool] = False
    #: Whether the network must predict classes.
    classes: ClassVar[bool] = False

    @abc.abstractmethod
    def __init__(self, setting: Setting):
        """Prepare the first utilities."""

    @abc.abstractmethod
    def utilities(self) -> np.ndarray:
        """How much each pool row is worth now, of shape (n,)."""

    @abc.abstractmethod
    def add(self, index: int) -> None:
        """Take note of a chosen row."""

    def choose(self, utilities: np.ndarray) -> int:
        """The row of the largest utility, of equal ones the first; NaN is not to be chosen."""
        return int(np.nanargmax(utilities))


def select_greedily(selection: Selection, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows in the order of choice, and the utilities that each was chosen by.

    Utilities are of shape (n,), float64, and NaN for rows that were chosen before.
    """
    chosen: list[int] = []
    for _ in range(count):
        utilities = selection.utilities().astype(np.float64)
        utilities[chosen] = np.nan
        chosen.append(selection.choose(utilities))
        yield chosen[-1], utilities
        selection.add(chosen[-1])


def split_rows(rows: int, others: int) -> Iterator[slice]:
    """Parts of some rows whose products with the others are held at a time."""
    step = max(1, _ENTRIES // max(1, others))
    yield from (slice(start, start + step) for start in range(0, rows, step))
