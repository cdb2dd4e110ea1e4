"""Nearest neighbours by a running selection over tiles, and exact similarities of candidates.

Index legend: n queries; m other samples; c candidates of each query; k neighbours of each query.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
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

# Size of the arrays in which `_Storage` keeps others. glibc maps arrays of 32 MiB and more on their
# own, whatever was freed before, and unmaps them when they are freed.
_STORED_BYTES = 2**25

#: Function of (similarities, eps of the dtype of the gradients) that returns distances.
Distance = Callable[[np.ndarray, float], np.ndarray]


class _Distances:
    """Base class of the reductions of k^C to distances.

    Parameters
    ----------
    distance : callable
        Function that returns distances, see `Distance`.
    eps : float
        Machine epsilon of the dtype of the gradients.
    symmetric : bool
        Whether the columns are the rows, so that a sample is not its own neighbour.
    rows, columns : slice
        The rows and the columns.
    """

    def __init__(
        self, distance: Distance, eps: float, symmetric: bool, rows: slice, columns: slice
    ):
        self._distance, self._eps, self._symmetric = distance, eps, symmetric
        self.rows = rows

    def _measure_tile(self, rows: slice, columns: slice, gram: Tensor) -> tuple[slice, np.ndarray]:
        """Return the position of a tile among the rows, and its distances of shape (n, m)."""
        distances = self._distance(gram.cpu().numpy(), self._eps)
        if self._symmetric:
            # The distance of a sample to itself is infinite, so that it is never selected.
            own = np.arange(rows.start, rows.stop)[:, None]
            distances[own == np.arange(columns.start, columns.stop)] = np.inf
        return relative_slice(rows, self.rows), distances


class Nearest(_Distances):
    """The k smallest distances of each row, and their columns; the first ones of equal distances.

    Parameters
    ----------
    count : int
        The number k of neighbours.
    *settings
        See `_Distances`.

    Attributes
    ----------
    distances : ndarray of shape (n, k), float64
        Distances in ascending order.
    indices : ndarray of shape (n, k), int64
        Columns of these distances.
    """

    def __init__(self, count: int, *settings: Any):
        super().__init__(*settings)
        shape = self.rows.stop - self.rows.start, count
        self.distances = np.full(shape, np.inf)
        self.indices = np.full(shape, np.iinfo(np.int64).max)

    def add(self, rows: slice, columns: slice, gram: Tensor) -> None:
        """Add the similarities of a tile, of shape (n, m)."""
        place, distances = self._measure_tile(rows, columns, gram)
        nearest = _select_smallest(distances, self.distances.shape[1])
        smallest = np.take_along_axis(distances, nearest, axis=1)
        self._insert(place, smallest, nearest + columns.start)

    def merge(self, other: Nearest) -> None:
        """Add the smallest distances to other columns."""
        self._insert(relative_slice(other.rows, self.rows), other.distances, other.indices)

    def _insert(self, place: slice, distances: np.ndarray, indices: np.ndarray) -> None:
        """Keep the k smallest of the distances so far and the new ones."""
        count = self.distances.shape[1]
        distances = np.hstack([self.distances[place], distances])
        indices = np.hstack([self.indices[place], indices])
        # Sorted by distance, and by column if distances are equal.
        order = np.lexsort((indices, distances), axis=1)[:, :count]
        self.distances[place] = np.take_along_axis(distances, order, axis=1)
        self.indices[place] = np.take_along_axis(indices, order, axis=1)


class WithinRadius(_Distances):
    """All distances of each row up to a radius, and their columns.

    Parameters
    ----------
    radius : float
        The largest distance.
    *settings
        See `_Distances`.
    """

    def __init__(self, radius: float, *settings: Any):
        super().__init__(*settings)
        self._radius = radius
        self._counts = np.zeros(self.rows.stop - self.rows.start, dtype=np.int64)
        self._tiles: list[_NearEntries] = []
        # A tile has fewer than 2^31 entries, so their positions need half the memory of int64.
        self._positions, self._distances = _Storage(np.int32), _Storage(np.float64)

    def add(self, rows: slice, columns: slice, gram: Tensor) -> None:
        """Add the similarities of a tile, of shape (n, m)."""
        place, distances = self._measure_tile(rows, columns, gram)
        near = distances <= self._radius
        self._counts[place] += np.count_nonzero(near, axis=1)
        self._keep(_NearEntries(rows, columns, np.flatnonzero(near), distances[near]))

    def merge(self, other: WithinRadius) -> None:
        """Add the distances to other columns."""
        self._counts[relative_slice(other.rows, self.rows)] += other._counts
        for tile in other._tiles:
            self._keep(tile)

    def _keep(self, tile: _NearEntries) -> None:
        """Copy the entries of a tile to the storage."""
        positions = self._positions.copy(tile.positions)
        distances = self._distances.copy(tile.distances)
        self._tiles.append(replace(tile, positions=positions, distances=distances))

    def to_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and columns, each an array of n arrays, which share their memory.

        Distances are in ascending order, and columns of equal distances too.
        """
        stops = np.cumsum(self._counts)
        distances, indices = np.empty(stops[-1]), np.empty(stops[-1], dtype=np.int64)
        # The entries of all tiles are copied to their rows, in the order of the tiles.
        filled = stops - self._counts
        for tile in self._tiles:
            n, m = np.divmod(tile.positions, tile.columns.stop - tile.columns.start)
            place = relative_slice(tile.rows, self.rows)
            counts = np.bincount(n, minlength=place.stop - place.start)
            # The i-th entry of the tile is in its row n the one with the number i - first[n].
            first = np.cumsum(counts) - counts
            targets = np.arange(len(n)) + (filled[place] - first)[n]
            distances[targets] = tile.distances
            indices[targets] = m + tile.columns.start
            filled[place] += counts
        bounds = itertools.pairwise([0, *stops.tolist()])
        rows = [(distances[start:stop], indices[start:stop]) for start, stop in bounds]
        for pair in rows:
            _sort_in_place(*pair)
        near, columns = (_make_object_array(list(arrays)) for arrays in zip(*rows, strict=True))
        return near, columns


@dataclass(frozen=True)
class _NearEntries:
    """Entries of a tile that are within the radius.

    Attributes
    ----------
    rows, columns : slice
        The rows and the columns of the tile.
    positions : ndarray of shape (i,)
        Positions of the entries in the flattened tile, in ascending order.
    distances : ndarray of shape (i,), float64
        Their distances.
    """

    rows: slice
    columns: slice
    positions: np.ndarray
    distances: np.ndarray


class _Storage:
    """Copies of many arrays, side by side in a few large ones.

    The C library returns the memory of a large array as soon as it is freed. It keeps that of many
    small ones, if other memory that is still used lies between them.

    Parameters
    ----------
    dtype : dtype
        Dtype of the copies.
    """

    def __init__(self, dtype: Any):
        self._free = np.empty(0, dtype)

    def copy(self, values: np.ndarray) -> np.ndarray:
        """Return a copy of a flat array."""
        if len(values) > len(self._free):
            size = max(len(values), _STORED_BYTES // self._free.itemsize)
            self._free = np.empty(size, self._free.dtype)
        copy, self._free = self._free[: len(values)], self._free[len(values) :]
        copy[:] = values
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Return an empty storage: the copies are pickled by themselves, without free memory."""
        return type(self), (self._free.dtype,)


def find_nearest(
    source: Source,
    X: Samples,
    Y: Any,
    reduction: Callable[..., Any],
    limit: float,
    distance: Distance,
    verbose: Any = 0,
) -> Any:
    """Return the nearest samples of Y for each sample of X, as a `Nearest` or `WithinRadius`.

    Without Y, these are the nearest of the other samples of X.

    Parameters
    ----------
    source : Source
        The source of Jacobians.
    X : Samples
        The queries.
    Y : Samples or None
        The samples among which neighbours are searched.
    reduction : type
        `Nearest` or `WithinRadius`.
    limit : int or float
        The number of neighbours for `Nearest`, the radius for `WithinRadius`.
    distance : callable
        Function that returns distances from k^C, see `Distance`.
    verbose : int
        Whether to show a progress bar.
    """
    eps = float(torch.finfo(source.dtype).eps)
    make = partial(reduction, limit, distance, eps, Y is None)
    return reduce_pairs(source, X, Y, make, Chunk.cosines, verbose=verbose)


def _select_smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the columns of the ``count`` smallest values of each row.

    The order is that of the columns. Of equal values, the first columns are selected.
    """
    if values.shape[1] <= count:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    largest = np.partition(values, count - 1, axis=1)[:, count - 1 : count]
    below, equal = values < largest, values == largest
    # All values below the largest selected value are selected, and the first ones that equal it.
    missing = count - below.sum(axis=1, keepdims=True)
    selected = below | (equal & (np.cumsum(equal, axis=1) <= missing))
    return np.nonzero(selected)[1].reshape(len(values), count)


def _sort_in_place(distances: np.ndarray, indices: np.ndarray) -> None:
    """Sort the distances and the columns of a row by distance, and by column if these are equal."""
    order = np.lexsort((indices, distances))
    distances[:], indices[:] = distances[order], indices[order]


def _make_object_array(values: list[np.ndarray]) -> np.ndarray:
    """Return an array of arrays, even if all of these have the same length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def compute_similarities(
    source: Source, X: Samples, Y: Any, candidates: np.ndarray, verbose: Any = 0
) -> np.ndarray:
    """Return k^C of each sample x_n of X with its candidates in Y, of shape (n, c), float64.

    ``candidates`` of shape (n, c) contains indices of samples of Y. The similarities are in
    [-1, 1].
    """
    parts = map_samples(_compute_part, source, X, (candidates,), (Y,), verbose)
    return np.concatenate([similarities for _, similarities in parts])


def _compute_part(
    source: Source, X: Samples, candidates: np.ndarray, Y: Any, verbose: Any
) -> np.ndarray:
    """Return `compute_similarities` of a part of X, computed by one worker."""
    # similarities[n,c] = k^C(x_n, y_m) = <J^(x_n), J^(y_m)>_F with m = candidates[n,c]
    similarities = np.empty(candidates.shape)
    for first, second in iterate_pairs(source, X, Y, verbose=verbose):
        # A pair of tiles gives the similarities of the candidates that are in the second tile.
        relative = candidates[first.rows] - second.rows.start
        n, c = np.nonzero((relative >= 0) & (relative < len(second.rank)))
        pairs = (torch.as_tensor(index) for index in (n, relative[n, c]))
        # Rounding must not leave [-1, 1].
        values = first.jacobian.paired(second.jacobian, *pairs).clamp_(-1, 1)
        similarities[n + first.rows.start, c] = values.cpu().numpy()
    return similarities


def rerank(
    source: Source,
    X: Samples,
    Y: Any,
    candidates: np.ndarray,
    distance: Callable[[np.ndarray], np.ndarray],
    verbose: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the candidates in ascending order of their distance, by exact similarities.

    Candidates at the same distance are in the order of the samples of Y.

    Returns
    -------
    distances : ndarray of shape (n, c), float64
        Distances in ascending order.
    candidates : ndarray of shape (n, c), int64
        Candidates at these distances.
    """
    candidates = np.sort(candidates, axis=1)
    distances = distance(compute_similarities(source, X, Y, candidates, verbose))
    order = np.argsort(distances, axis=1, kind="stable")
    return (
        np.take_along_axis(distances, order, axis=1),
        np.take_along_axis(candidates, order, axis=1),
    )
