"""Approximate indexes: rows whose features are likely the nearest, found without looking at all.

Index legend: n queries; c candidates of each; m features.
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

from .._networks.samples import Samples
from .rows import check_features

# An index looks at more rows until it finds this share of the nearest ones, of some fitted rows.
_RECALL = 0.99

# How many fitted rows that is measured on, and how many nearest ones of each.
MEASURED, MEASURED_NEAREST = 256, 10

# Rows that faiss wants to see for each of its lists, and at most.
_TRAINED, _MOST_TRAINED = 64, 2**17

# Neighbours of a row in a graph of descent; farther ones are looked at where they are this near.
_DEGREE, _EPSILON = 30, 0.2

_CHUNK = 256

# Candidates for each neighbour wanted: by a graph, the nearest are found among more of them.
_SPARE = 3

# Similarities by float32 features differ by no more.
_ROUNDING = 1e-6


class Index(Protocol):
    """Knows features, and finds those whose products with others are large."""

    def widen(self) -> bool:
        """Look at more rows from now on; whether there were more."""

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Rows that are likely the nearest of queries (n, m), of shape (n, c).

        Some may be named twice, and places that nothing was found for are negative.
        """


class InvertedLists:
    """faiss: rows in as many lists as the square root of their number; the nearest lists are read.

    Parameters
    ----------
    features : array-like of shape (n_samples, m)
        The rows.
    random_state : RandomState
        What chooses the rows that the lists' centres are found from.
    verbose : int
        Whether to show a progress bar.
    """

    def __init__(self, features: Any, random_state: np.random.RandomState, verbose: Any = 0):
        faiss = import_package("faiss")
        samples, width = len(features), _single(features.at([0])).shape[1]
        lists = max(1, min(math.isqrt(samples), samples // _TRAINED))
        quantizer = faiss.IndexFlatIP(width)
        self._index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        count = min(samples, _TRAINED * lists, _MOST_TRAINED)
        chosen = np.sort(random_state.choice(samples, count, replace=False))
        self._index.train(_single(features.at(chosen.tolist())))
        for _, rows in in_chunks(features, verbose):
            self._index.add(rows)

    def widen(self) -> bool:
        """Look at twice as many lists; whether there were more."""
        more = self._index.nprobe < self._index.nlist
        self._index.nprobe = min(2 * self._index.nprobe, self._index.nlist)
        return bool(more)

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Of short lists more are read, until there are enough rows."""
        probed = self._index.nprobe
        _, found = self._index.search(queries, count)
        while (found < 0).any() and self.widen():
            _, found = self._index.search(queries, count)
        self._index.nprobe = probed
        return np.asarray(found)

    def __getstate__(self) -> dict[str, Any]:
        return {"index": import_package("faiss").serialize_index(self._index)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._index = import_package("faiss").deserialize_index(state["index"])


class DescentGraph:
    """pynndescent: a graph of near rows, followed from row to nearer row.

    It goes by angles: another feature gives all rows the same length, and queries have none of it.

    Parameters
    ----------
    features : array-like of shape (n_samples, m)
        The rows.
    random_state : RandomState
        What the graph starts from.
    verbose : int
        Whether to show a progress bar.
    """

    def __init__(self, features: Any, random_state: np.random.RandomState, verbose: Any = 0):
        pynndescent = import_package("pynndescent")
        rows = np.concatenate([rows for _, rows in in_chunks(features, verbose)])
        squares = np.square(rows).sum(axis=1, keepdims=True)
        longer = np.hstack([rows, np.sqrt(squares.max() - squares)])
        degree, seed = min(_DEGREE, len(rows) - 1), int(random_state.randint(2**31))
        self._graph = pynndescent.NNDescent(
            longer, metric="cosine", n_neighbors=degree, random_state=seed
        )
        self._graph.prepare()

    def widen(self) -> bool:
        """Nothing more is looked at: that is for the number of candidates to do."""
        return False

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """As the graph leads to them."""
        longer = np.hstack([queries, np.zeros((len(queries), 1), queries.dtype)])
        found, _ = self._graph.query(longer, count, epsilon=_EPSILON)
        return np.asarray(found, dtype=np.int64)


#: Of (features, random_state, verbose).
ALGORITHMS: dict[str, type[Any]] = {"faiss": InvertedLists, "pynndescent": DescentGraph}


def import_package(algorithm: str) -> ModuleType:
    """The package of an algorithm, or an error that says how to get it."""
    try:
        return importlib.import_module(algorithm)
    except ImportError as error:
        raise ImportError(
            f"algorithm is {algorithm!r}, whose package is not installed ({error}); allowed is"
            " 'brute': or call pip install 'sknetsim[neighbors]'."
        ) from error


def fit_index(
    algorithm: str, features: Any, all_pairs: Any, random_state: Any, verbose: Any = 0
) -> tuple[Index, float]:
    """An index, and the share of the nearest rows of some fitted ones that it finds.

    ``all_pairs`` gives the distances 1 - k of rows (n, m) to their nearest ones, ascending, of
    shape (n, c), by looking at all.
    """
    generator = check_random_state(random_state)
    index = ALGORITHMS[algorithm](features, generator, verbose)
    samples = len(features)
    chosen = np.sort(generator.permutation(samples)[:MEASURED])
    queries = Samples(_single(features.at(chosen.tolist())))
    expected = all_pairs(queries)
    while True:
        found, _ = find_nearest_candidates(
            index, features, queries, expected.shape[1], _pair_similarity, None
        )
        # Rows that are as near are as good.
        recall = float((found <= expected[:, -1:] + _ROUNDING).mean())
        if recall >= _RECALL or not index.widen():
            return index, recall


def _pair_similarity(similarities: np.ndarray) -> np.ndarray:
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
    """The nearest candidates of queries by their distance, ascending, of equal ones the first.

    ``own``: for each query the row of the index that it is, which is not its own neighbour. Where
    an index has too few candidates, all rows are looked at.
    """
    samples = len(features)
    wanted = min(_SPARE * count + (own is not None), samples)
    found = []
    for chunk, rows in in_chunks(queries, verbose):
        candidates = np.sort(index.candidates(rows, wanted), axis=1)
        excluded = None if own is None else own[chunk]
        distances = _distances(rows, features, candidates, distance, excluded)
        for row in np.flatnonzero(np.isfinite(distances).sum(axis=1) < count):
            exact = distance(_similarities_to_all(rows[row], features))
            if excluded is not None:
                exact[excluded[row]] = np.inf
            candidates[row] = np.argsort(exact, kind="stable")[:wanted]
            distances[row] = exact[candidates[row]]
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        both = (np.take_along_axis(array, order, axis=1) for array in (distances, candidates))
        found.append(tuple(both))
    distances, indices = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return distances, indices


def _distances(
    queries: np.ndarray,
    features: Any,
    candidates: np.ndarray,
    distance: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray | None,
) -> np.ndarray:
    """Of sorted candidates; infinite of what is none: named before, no row, or the query itself."""
    found = distance(similarities(queries, features, np.maximum(candidates, 0)))
    found[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = np.inf
    found[candidates < 0] = np.inf
    if own is not None:
        found[candidates == own[:, None]] = np.inf
    return found


def in_chunks(features: Any, verbose: Any = 0) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows in memory, in single precision."""
    with tqdm(total=len(features), disable=not verbose, unit="row") as progress:
        for chunk in gen_batches(len(features), _CHUNK):
            yield chunk, _single(check_features(features.take(chunk)))
            progress.update(chunk.stop - chunk.start)


def similarities(queries: np.ndarray, features: Any, candidates: np.ndarray) -> np.ndarray:
    """Products of the features of queries and of their candidates, (n, c), float64, in [-1, 1]."""
    chosen, places = np.unique(candidates, return_inverse=True)
    rows = np.asarray(features.at(chosen.tolist()), dtype=np.float64)
    rows = rows[places.reshape(candidates.shape)]
    return np.einsum("nm,ncm->nc", queries.astype(np.float64), rows).clip(-1, 1)


def _similarities_to_all(query: np.ndarray, features: Any) -> np.ndarray:
    products = [rows.astype(np.float64) @ query for _, rows in in_chunks(features)]
    return np.concatenate(products).clip(-1, 1)


def _single(rows: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(rows), dtype=np.float32)
