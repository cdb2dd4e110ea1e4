"""The nearest rows: a running selection over tiles, and exact similarities of candidates.

Index legend: n queries; c candidates of each; k neighbours of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from . import _pairs
from ._passes import Source

#: Rows, columns and distances of a piece of the (n, m) matrix.
Tile = tuple[slice, slice, np.ndarray]


def distances(
    source: Source,
    X: Any,
    Y: Any,
    function: Callable[[np.ndarray, float], np.ndarray],
    verbose: Any = 0,
) -> Iterator[Tile]:
    """Tiles of what a function of (similarities, eps of the gradients) makes of k^C."""
    eps = float(torch.finfo(source.dtype).eps)
    for rows, columns, gram in _pairs.grams(source, X, Y, verbose):
        yield rows, columns, function(gram, eps)


def without_self(tiles: Iterable[Tile]) -> Iterator[Tile]:
    """The distances of rows to themselves made infinite, in place."""
    for rows, columns, found in tiles:
        own = np.arange(rows.start, rows.stop)[:, None]
        found[own == np.arange(columns.start, columns.stop)] = np.inf
        yield rows, columns, found


def nearest(tiles: Iterable[Tile], queries: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest distances of each query and where they are, of equal ones the first.

    Parameters
    ----------
    tiles : iterable of (slice, slice, ndarray)
        Rows, columns and distances of pieces of the (n, m) matrix.
    queries : int
        The number n.
    count : int
        The number k.

    Returns
    -------
    distances : ndarray of shape (n, k), float64
        Ascending.
    indices : ndarray of shape (n, k), int64
        Columns.
    """
    distances = np.full((queries, count), np.inf)
    indices = np.full((queries, count), np.iinfo(np.int64).max)
    for rows, columns, found in tiles:
        near = _smallest(found, count)
        values = np.take_along_axis(found, near, axis=1)
        merged = np.hstack([distances[rows], values])
        positions = np.hstack([indices[rows], near + columns.start])
        order = np.lexsort((positions, merged), axis=1)[:, :count]
        distances[rows] = np.take_along_axis(merged, order, axis=1)
        indices[rows] = np.take_along_axis(positions, order, axis=1)
    return distances, indices


def two_smallest(tiles: Iterable[Tile], queries: int) -> np.ndarray:
    """The two smallest distances of each query, of shape (n, 2), ascending, wherever they are."""
    smallest = np.full((queries, 2), np.inf)
    for rows, _, found in tiles:
        candidates = np.hstack([smallest[rows], found])
        for place in range(2):
            first = candidates.argmin(axis=1)[:, None]
            smallest[rows, place] = np.take_along_axis(candidates, first, axis=1)[:, 0]
            np.put_along_axis(candidates, first, np.inf, axis=1)
    return smallest


def _smallest(found: np.ndarray, count: int) -> np.ndarray:
    """Columns of the smallest values of each row, of equal ones the first; ascending columns."""
    if found.shape[1] <= count:
        return np.broadcast_to(np.arange(found.shape[1]), found.shape)
    limits = np.partition(found, count - 1, axis=1)[:, count - 1 : count]
    below, equal = found < limits, found == limits
    wanted = count - below.sum(axis=1, keepdims=True)
    chosen = below | (equal & (np.cumsum(equal, axis=1) <= wanted))
    return np.nonzero(chosen)[1].reshape(len(found), count)


def within(tiles: Iterable[Tile], queries: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """All distances of each query up to a radius, ascending, and where they are.

    Two arrays of n arrays; of equal distances the first.
    """
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(queries)]
    for rows, columns, found in tiles:
        for row, values in enumerate(found, start=rows.start):
            near = np.flatnonzero(values <= radius)
            parts[row].append((values[near], near + columns.start))
    ordered = [_ordered(part) for part in parts]
    return _object_array([part[0] for part in ordered]), _object_array([p[1] for p in ordered])


def _ordered(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    distances, indices = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((indices, distances))
    return distances[order], indices[order]


def _object_array(values: list[np.ndarray]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def similarities(
    source: Source, X: Any, Y: Any, candidates: np.ndarray, verbose: Any = 0
) -> np.ndarray:
    """k^C of each row of X with some rows of Y, (n, c) of them, of shape (n, c), float64."""
    found = np.empty(candidates.shape)
    for rows, columns in _pairs.pairs(source, X, Y, verbose=verbose):
        wanted = candidates[rows.rows] - columns.rows.start
        row, place = np.nonzero((wanted >= 0) & (wanted < len(columns.rank)))
        pairs = (torch.as_tensor(index) for index in (row, wanted[row, place]))
        values = rows.jacobian.paired(columns.jacobian, *pairs).clamp_(-1, 1)
        found[row + rows.rows.start, place] = values.cpu().numpy()
    return found


def reranked(
    source: Source,
    X: Any,
    Y: Any,
    candidates: np.ndarray,
    distance: Callable[[np.ndarray], np.ndarray],
    verbose: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates by the distance of their exact similarity, ascending, of equal ones the first."""
    candidates = np.sort(candidates, axis=1)
    found = distance(similarities(source, X, Y, candidates, verbose))
    order = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(candidates, order, axis=1)
