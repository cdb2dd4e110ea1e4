"""The nearest rows: a running selection over tiles, and exact similarities of candidates.

Index legend: n queries; c candidates of each; k neighbours of each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._networks.samples import Samples
from .chunks import Chunk, Source
from .pairs import iterate_pairs
from .parallel import map_samples, relative_slice
from .reductions import reduce_pairs

Distance = Callable[[np.ndarray, float], np.ndarray]


class _Distances:
    """Distances of pairs; those of rows to themselves are infinite where ``alone``."""

    def __init__(self, distance: Distance, eps: float, alone: bool, rows: slice, columns: slice):
        self._distance, self._eps, self._alone = distance, eps, alone
        self.rows = rows

    def _of(self, rows: slice, columns: slice, gram: Tensor) -> tuple[slice, np.ndarray]:
        """Where the rows are among those of this one, and their distances."""
        found = self._distance(gram.cpu().numpy(), self._eps)
        if self._alone:
            own = np.arange(rows.start, rows.stop)[:, None]
            found[own == np.arange(columns.start, columns.stop)] = np.inf
        return relative_slice(rows, self.rows), found


class Nearest(_Distances):
    """The smallest distances of each row and where they are, of equal ones the first.

    Attributes
    ----------
    distances : ndarray of shape (n, k), float64
        Ascending.
    indices : ndarray of shape (n, k), int64
        Columns.
    """

    def __init__(self, count: int, *settings: Any):
        super().__init__(*settings)
        shape = self.rows.stop - self.rows.start, count
        self.distances = np.full(shape, np.inf)
        self.indices = np.full(shape, np.iinfo(np.int64).max)

    def add(self, rows: slice, columns: slice, gram: Tensor) -> None:
        """Take the distances of a tile."""
        at, found = self._of(rows, columns, gram)
        near = _smallest(found, self.distances.shape[1])
        self._take(at, np.take_along_axis(found, near, axis=1), near + columns.start)

    def merge(self, other: Nearest) -> None:
        """Take what is nearest among other columns."""
        self._take(relative_slice(other.rows, self.rows), other.distances, other.indices)

    def _take(self, at: slice, distances: np.ndarray, indices: np.ndarray) -> None:
        count = self.distances.shape[1]
        merged = np.hstack([self.distances[at], distances])
        positions = np.hstack([self.indices[at], indices])
        order = np.lexsort((positions, merged), axis=1)[:, :count]
        self.distances[at] = np.take_along_axis(merged, order, axis=1)
        self.indices[at] = np.take_along_axis(positions, order, axis=1)


class WithinRadius(_Distances):
    """All distances of each row up to a radius, and where they are."""

    def __init__(self, radius: float, *settings: Any):
        super().__init__(*settings)
        self._radius = radius
        count = self.rows.stop - self.rows.start
        self._parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(count)]

    def add(self, rows: slice, columns: slice, gram: Tensor) -> None:
        """Take the distances of a tile."""
        at, found = self._of(rows, columns, gram)
        for row, values in enumerate(found, start=at.start):
            near = np.flatnonzero(values <= self._radius)
            self._parts[row].append((values[near], near + columns.start))

    def merge(self, other: WithinRadius) -> None:
        """Take what is near among other columns."""
        for row, parts in enumerate(
            other._parts, start=relative_slice(other.rows, self.rows).start
        ):
            self._parts[row] += parts

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays of n arrays, by ascending distance; of equal distances the first."""
        both = zip(*map(_ordered, self._parts), strict=True)
        distances, indices = (_object_array(list(arrays)) for arrays in both)
        return distances, indices


def find_nearest(
    source: Source,
    X: Samples,
    Y: Any,
    kind: Callable[..., Any],
    limit: float,
    distance: Distance,
    verbose: Any = 0,
) -> Any:
    """What is nearest (how many), or within (which radius): among Y, or among the other rows of X.

    Distances are what a function of (similarities, eps of the gradients) makes of k^C.
    """
    eps = float(torch.finfo(source.dtype).eps)
    make = partial(kind, limit, distance, eps, Y is None)
    return reduce_pairs(source, X, Y, make, Chunk.cosines, verbose=verbose)


def _smallest(found: np.ndarray, count: int) -> np.ndarray:
    """Columns of the smallest values of each row, of equal ones the first; ascending columns."""
    if found.shape[1] <= count:
        return np.broadcast_to(np.arange(found.shape[1]), found.shape)
    limits = np.partition(found, count - 1, axis=1)[:, count - 1 : count]
    below, equal = found < limits, found == limits
    wanted = count - below.sum(axis=1, keepdims=True)
    chosen = below | (equal & (np.cumsum(equal, axis=1) <= wanted))
    return np.nonzero(chosen)[1].reshape(len(found), count)


def _ordered(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    distances, indices = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((indices, distances))
    return distances[order], indices[order]


def _object_array(values: list[np.ndarray]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def compute_similarities(
    source: Source, X: Samples, Y: Any, candidates: np.ndarray, verbose: Any = 0
) -> np.ndarray:
    """k^C of each row of X with some rows of Y, (n, c) of them, of shape (n, c), float64."""
    parts = map_samples(_similarities, source, X, (candidates,), (Y,), verbose)
    return np.concatenate([found for _, found in parts])


def _similarities(
    source: Source, X: Samples, candidates: np.ndarray, Y: Any, verbose: Any
) -> np.ndarray:
    found = np.empty(candidates.shape)
    for rows, columns in iterate_pairs(source, X, Y, verbose=verbose):
        wanted = candidates[rows.rows] - columns.rows.start
        row, place = np.nonzero((wanted >= 0) & (wanted < len(columns.rank)))
        pairs = (torch.as_tensor(index) for index in (row, wanted[row, place]))
        values = rows.jacobian.paired(columns.jacobian, *pairs).clamp_(-1, 1)
        found[row + rows.rows.start, place] = values.cpu().numpy()
    return found


def rerank(
    source: Source,
    X: Samples,
    Y: Any,
    candidates: np.ndarray,
    distance: Callable[[np.ndarray], np.ndarray],
    verbose: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates by the distance of their exact similarity, ascending, of equal ones the first."""
    candidates = np.sort(candidates, axis=1)
    found = distance(compute_similarities(source, X, Y, candidates, verbose))
    order = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(candidates, order, axis=1)
