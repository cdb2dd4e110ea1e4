"""Nearest rows as sparse matrices, as scikit-learn's estimators exchange them."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from ._base import check_is_fitted

#: What the entries of a graph are.
MODES = ("distance", "connectivity")


class NeighborsGraphMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin, abc.ABC):
    """Graphs of what `kneighbors` finds, for an estimator with a ``mode``."""

    mode: str
    n_samples_fit_: int

    @abc.abstractmethod
    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """The nearest fitted rows of each row."""

    @abc.abstractmethod
    def _checked_count(self, n_neighbors: int | None, available: int) -> int:
        """How many neighbours are asked for."""

    def kneighbors_graph(
        self, X: Any = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> csr_matrix:
        """The most similar fitted rows as a sparse matrix.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries; None: the fitted rows, none of them its own neighbour.
        n_neighbors : int, default=None
            Number of neighbours; None: that of the constructor.
        mode : {"connectivity", "distance"}, default="connectivity"
            Whether entries are 1 or the distances (zeros stored).

        Returns
        -------
        graph : csr_matrix of shape (n_queries, n_samples_fit), float64
            Rows sorted by distance.
        """
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; allowed are {', '.join(map(repr, MODES))}.")
        distances, indices = self.kneighbors(X, n_neighbors)
        values = np.ones_like(distances) if mode == "connectivity" else distances
        starts = np.arange(0, indices.size + 1, indices.shape[1])
        shape = (len(indices), self.n_samples_fit_)
        return csr_matrix((values.ravel(), indices.ravel(), starts), shape=shape)

    def transform(self, X: Any) -> csr_matrix:
        """The graph of each row's most similar fitted rows, for ``metric="precomputed"``.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted row is its own first neighbour, at distance 0; with
            ``n_components`` it lies as far off as the landmarks leave it uncovered.

        Returns
        -------
        graph : csr_matrix of shape (n_queries, n_samples_fit), float64
            ``mode="distance"``: distances to ``n_neighbors + 1`` rows, one more for those who do
            not count a row itself; "connectivity": ones for ``n_neighbors``. Rows sorted by
            distance, zeros stored.
        """
        check_is_fitted(self, "n_samples_fit_")
        itself = self.mode == "distance"
        count = self._checked_count(None, self.n_samples_fit_ - itself)
        return self.kneighbors_graph(X, count + itself, self.mode)
