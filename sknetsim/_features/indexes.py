"""Approximate indexes of features: candidates for the nearest rows, without a pass over all rows.

Similarities are inner products of features: k(x_n, y) = sum_m q[n,m] f[m], with the features q of
the queries and f of the rows of the index.

Index legend: n queries; c candidates of each query; m features; i pairs of a query and a candidate.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from sklearn.utils import check_random_state, gen_batches
from tqdm.auto import tqdm

from .._networks.memory import CHUNK, memory_budget
from .._networks.samples import Samples
from .source import check_features

# `fit_index` widens an index until its recall is at least this: the share of the nearest rows that
# the index finds.
_RECALL = 0.99

#: Number of fitted rows on which the recall is measured, and of the nearest rows of each.
RECALL_QUERIES, RECALL_NEIGHBORS = 256, 10

# Number of rows per list from which faiss computes the centres of the lists.
_TRAINING_ROWS = 64

# Largest number of these rows for all lists together.
_MOST_TRAINING_ROWS = 2**17

# Number of neighbours of each row in the graph of pynndescent.
_DEGREE = 30

# Margin of a search in this graph, its parameter ``epsilon``.
_EPSILON = 0.2

# Largest number of rows whose features are in memory at a time.
_CHUNK = 256

# Largest size in bytes of the features of pairs, in float64, that are in memory at a time.
_PAIRED_BYTES = 2**23

# Number of candidates per requested neighbour. A graph finds the nearest rows only if more rows are
# candidates than are requested.
_SPARE = 3

# Largest rounding error of similarities that are computed from float32 features.
_ROUNDING = 1e-6


class Index(Protocol):
    """Index of features that finds rows with a large inner product with a query."""

    def widen(self) -> bool:
        """Search more rows per query from now on; return False if all rows are searched already."""

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return likely nearest rows of queries of shape (n, m), of shape (n, c).

        A candidate may occur twice. A missing candidate is negative.
        """


class InvertedLists:
    """Index of faiss: each row is in the list with the nearest centre, and few lists are searched.

    The number of lists is the square root of the number of rows, or less if there are few rows.

    Parameters
    ----------
    features : Samples
        Features of the rows, of shape (n_samples, m).
    random_state : RandomState
        Random number generator that chooses the rows from which the centres are computed.
    verbose : int
        Whether to show a progress bar.
    """

    def __init__(self, features: Any, random_state: np.random.RandomState, verbose: Any = 0):
        faiss = import_package("faiss")
        samples, width = len(features), _make_float32(features.at([0])).shape[1]
        lists = max(1, min(math.isqrt(samples), samples // _TRAINING_ROWS))
        quantizer = faiss.IndexFlatIP(width)
        self._index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        count = min(samples, _TRAINING_ROWS * lists, _MOST_TRAINING_ROWS)
        chosen = np.sort(random_state.choice(samples, count, replace=False))
        self._index.train(_make_float32(features.at(chosen.tolist())))
        for _, rows in iterate_features(features, verbose):
            self._index.add(rows)

    def widen(self) -> bool:
        """Search twice as many lists from now on; return False if all are searched already."""
        more = self._index.nprobe < self._index.nlist
        self._index.nprobe = min(2 * self._index.nprobe, self._index.nlist)
        return bool(more)

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return likely nearest rows; more lists are searched if they contain too few rows."""
        probed = self._index.nprobe
        _, candidates = self._index.search(queries, count)
        while (candidates < 0).any() and self.widen():
            _, candidates = self._index.search(queries, count)
        self._index.nprobe = probed
        return np.asarray(candidates)

    def __getstate__(self) -> dict[str, Any]:
        return {"index": import_package("faiss").serialize_index(self._index)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._index = import_package("faiss").deserialize_index(state["index"])


class DescentGraph:
    """Index of pynndescent: a graph of near rows, searched from row to nearer row.

    The graph compares angles, and the order by angles is that by inner products if all rows have
    the same length. So an additional feature sqrt(L^2 - ||f||^2) gives all rows the length L of the
    longest one. It is 0 in queries, which leaves the inner products unchanged.

    Parameters
    ----------
    features : Samples
        Features of the rows, of shape (n_samples, m).
    random_state : RandomState
        Random number generator of the graph.
    verbose : int
        Whether to show a progress bar.
    """

    def __init__(self, features: Any, random_state: np.random.RandomState, verbose: Any = 0):
        pynndescent = import_package("pynndescent")
        samples, width = len(features), _make_float32(features.at([0])).shape[1]
        extended = np.empty((samples, width + 1), dtype=np.float32)
        for chunk, rows in iterate_features(features, verbose):
            extended[chunk, :-1], extended[chunk, -1] = rows, np.square(rows).sum(axis=1)
        # extended = [f, sqrt(L^2 - ||f||^2)], with the square L^2 of the largest length
        extended[:, -1] = np.sqrt(extended[:, -1].max() - extended[:, -1])
        degree, seed = min(_DEGREE, samples - 1), int(random_state.randint(2**31))
        self._graph = pynndescent.NNDescent(
            extended, metric="cosine", n_neighbors=degree, random_state=seed
        )
        self._graph.prepare()

    def widen(self) -> bool:
        """Return False: a graph finds more rows only for a larger number of candidates."""
        return False

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Return likely nearest rows, by a search in the graph."""
        extended = np.hstack([queries, np.zeros((len(queries), 1), queries.dtype)])
        candidates, _ = self._graph.query(extended, count, epsilon=_EPSILON)
        return np.asarray(candidates, dtype=np.int64)


#: Indexes from (features, random_state, verbose), by the names of algorithm and package.
ALGORITHMS: dict[str, type[Any]] = {"faiss": InvertedLists, "pynndescent": DescentGraph}


def import_package(algorithm: str) -> ModuleType:
    """Return the package of an algorithm, or raise an error that says how to install it."""
    try:
        return importlib.import_module(algorithm)
    except ImportError as error:
        raise ImportError(
            f"`algorithm` must be 'brute' or the name of an installed package; got {algorithm!r},"
            f" whose import failed ({error}). Call pip install 'sknetsim[neighbors]'."
        ) from error


def fit_index(
    algorithm: str, features: Any, all_pairs: Any, random_state: Any, verbose: Any = 0
) -> tuple[Index, float]:
    """Return an index of the features, and its recall: the share of nearest rows that it finds.

    Parameters
    ----------
    algorithm : str
        One of `ALGORITHMS`.
    features : Samples
        Features of the rows, of shape (n_samples, m).
    all_pairs : callable
        Function that returns the exact distances 1 - k of queries of shape (n, m) to their nearest
        rows, of shape (n, c), in ascending order.
    random_state : int, RandomState or None
        Random number generator, or its seed.
    verbose : int
        Whether to show a progress bar.
    """
    generator = check_random_state(random_state)
    index = ALGORITHMS[algorithm](features, generator, verbose)
    chosen = np.sort(generator.permutation(len(features))[:RECALL_QUERIES])
    queries = Samples(_make_float32(features.at(chosen.tolist())))
    exact = all_pairs(queries)
    while True:
        distances, _ = find_nearest_candidates(
            index, features, queries, exact.shape[1], _similarity_distance, None
        )
        # A row at the same distance as the last of the nearest rows is as good.
        recall = float((distances <= exact[:, -1:] + _ROUNDING).mean())
        if recall >= _RECALL or not index.widen():
            return index, recall


def _similarity_distance(similarities: np.ndarray) -> np.ndarray:
    """Return the distances 1 - k."""
    return 1 - similarities


def find_nearest_candidates(
    index: Index,
    features: Any,
    queries: Any,
    count: int,
    distance: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray | None,
    verbose: Any = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest candidates of each query; the first ones of equally distant candidates.

    A query for which the index has too few candidates is compared with all rows.

    Parameters
    ----------
    index : Index
        The index of the features.
    features, queries : Samples
        Features of the rows and of the queries, of shape (..., m).
    count : int
        The number of nearest rows.
    distance : callable
        Function that returns distances from similarities.
    own : ndarray of shape (n,), int64, or None
        For each query, the row of the index that is the query itself and not its neighbour.
    verbose : int
        Whether to show a progress bar.

    Returns
    -------
    distances : ndarray of shape (n, count), float64
        Distances in ascending order.
    indices : ndarray of shape (n, count), int64
        Rows at these distances.
    """
    samples, shape = len(features), (len(queries), count)
    nearest, indices = np.empty(shape), np.empty(shape, dtype=np.int64)
    # A query that is a row of the index is one of its own candidates, so one more is needed.
    wanted = min(_SPARE * count + (own is not None), samples)
    # Five arrays of distances and candidates are in memory at a time.
    for chunk, rows in iterate_features(queries, verbose, 5 * 8 * wanted):
        candidates = np.sort(index.candidates(rows, wanted), axis=1)
        excluded = None if own is None else own[chunk]
        distances = _candidate_distances(rows, features, candidates, distance, excluded)
        for row in np.flatnonzero(np.isfinite(distances).sum(axis=1) < count):
            exact = distance(_similarities_to_all(rows[row], features))
            if excluded is not None:
                exact[excluded[row]] = np.inf
            candidates[row] = np.argsort(exact, kind="stable")[:wanted]
            distances[row] = exact[candidates[row]]
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        nearest[chunk] = np.take_along_axis(distances, order, axis=1)
        indices[chunk] = np.take_along_axis(candidates, order, axis=1)
    return nearest, indices


def _candidate_distances(
    queries: np.ndarray,
    features: Any,
    candidates: np.ndarray,
    distance: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray | None,
) -> np.ndarray:
    """Return the distance of each query to its candidates, of shape (n, c), float64.

    The candidates are sorted. Duplicates, missing candidates (negative) and the query itself get an
    infinite distance.
    """
    distances = distance(similarities(queries, features, np.maximum(candidates, 0)))
    distances[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = np.inf
    distances[candidates < 0] = np.inf
    if own is not None:
        distances[candidates == own[:, None]] = np.inf
    return distances


def iterate_features(
    features: Any, verbose: Any = 0, row_bytes: int = 0
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of rows and their features in memory, as float32.

    The rows of a slice, with ``row_bytes`` more for each of them, fit in the memory budget.
    """
    width = check_features(features.take(slice(0, 1))).shape[1]
    # 20 bytes for each feature: as read, in float32, and in float64.
    affordable = memory_budget(CHUNK) // max(1, 20 * width + row_bytes)
    with tqdm(total=len(features), disable=not verbose, unit="row") as progress:
        for chunk in gen_batches(len(features), max(1, min(_CHUNK, affordable))):
            yield chunk, _make_float32(check_features(features.take_finite(chunk)))
            progress.update(chunk.stop - chunk.start)


def similarities(queries: np.ndarray, features: Any, candidates: np.ndarray) -> np.ndarray:
    """Return the similarities of queries and their candidates, (n, c), float64, in [-1, 1]."""
    flat, doubled = candidates.ravel(), queries.astype(np.float64)
    result = np.empty(flat.size)
    # Pairs are in the order of their candidates, so that a row is read once for all its queries.
    order = np.argsort(flat, kind="stable")
    for part in gen_batches(len(order), _count_affordable_pairs(queries.shape[1])):
        pairs = order[part]
        chosen, places = np.unique(flat[pairs], return_inverse=True)
        rows = np.asarray(features.at(chosen.tolist()), dtype=np.float64)[places]
        # k[i] = sum_m q[i,m] f[i,m], with the query and the candidate of pair i
        own = doubled[pairs // candidates.shape[1]]
        result[pairs] = np.einsum("im,im->i", own, rows)
    return result.reshape(candidates.shape).clip(-1, 1)


def _count_affordable_pairs(width: int) -> int:
    """Return the number of pairs whose features of this width are in memory at a time."""
    # The features of queries and candidates as read and in float64, and those of distinct rows.
    affordable = memory_budget(CHUNK) // 5
    return max(1, min(_PAIRED_BYTES, affordable) // max(1, 8 * width))


def _similarities_to_all(query: np.ndarray, features: Any) -> np.ndarray:
    """Return the similarities of one query and all rows, of shape (n_samples,), float64."""
    products = [rows.astype(np.float64) @ query for _, rows in iterate_features(features)]
    return np.concatenate(products).clip(-1, 1)


def _make_float32(rows: Any) -> np.ndarray:
    """Return a contiguous float32 array."""
    return np.ascontiguousarray(np.asarray(rows), dtype=np.float32)
