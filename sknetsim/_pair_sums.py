"""Sums over fitted rows, around each row, by all pairs.

Index legend: n rows; m fitted rows; a, b, c axis of the weights; s values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _reductions
from ._parallel import place
from ._passes import Chunk, Source


def pair_sums(
    source: Source,
    X: Any,
    rows: Any,
    whitening: str,
    weigh: Callable[[Chunk, Chunk], Tensor],
    values: Tensor,
    own: np.ndarray | None = None,
    squared: bool = False,
    verbose: Any = 0,
) -> PairSums:
    """The sums around the rows of X, by all pairs."""
    make, others = partial(PairSums, values, own, squared), None if X is rows else rows
    whitenings = (whitening, whitening)
    found: PairSums = _reductions.reduced(source, X, others, make, weigh, whitenings, verbose)
    return found


class PairSums:
    """Sums over fitted rows, the columns: of weights, their products with values, their squares."""

    def __init__(
        self,
        values: Tensor,
        own: np.ndarray | None,
        squared: bool,
        rows: slice,
        columns: slice,
    ):
        self._values, self._own, self.rows = values, own, rows
        samples, axis = rows.stop - rows.start, values.shape[1]
        self.total, squares, self.weighted = (
            torch.zeros(samples, axis, width, dtype=torch.float64)
            for width in (axis, axis, values.shape[2])
        )
        self.squares = squares if squared else None

    def add(self, rows: slice, columns: slice, found: Tensor) -> None:
        """Take the weights of a tile."""
        at, axis = place(rows, self.rows), found.shape[2:]
        weights = found.cpu().reshape(*found.shape[:2], *(axis or (1, 1)))
        if self._own is not None:
            weights = _without(weights, self._own[rows], columns)
        self.total[at] += weights.sum(dim=1)
        self.weighted[at] += torch.einsum("nmab,mbs->nas", weights, self._values[columns])
        if self.squares is not None:
            self.squares[at] += torch.einsum("nmab,nmcb->nac", weights, weights)

    def merge(self, other: PairSums) -> None:
        """Take the sums over other columns."""
        at = place(other.rows, self.rows)
        self.total[at] += other.total
        self.weighted[at] += other.weighted
        if self.squares is not None and other.squares is not None:
            self.squares[at] += other.squares

    def __getstate__(self) -> dict[str, Any]:
        """What was found; not what it was made from."""
        return {**self.__dict__, "_values": None, "_own": None}


def _without(weights: Tensor, own: np.ndarray, columns: slice) -> Tensor:
    """The weights of some fitted rows, one for each row, set to zero."""
    (rows,) = np.nonzero((own >= columns.start) & (own < columns.stop))
    if len(rows):
        weights = weights.clone()  # A mirrored tile may share its memory.
        weights[rows, own[rows] - columns.start] = 0
    return weights
