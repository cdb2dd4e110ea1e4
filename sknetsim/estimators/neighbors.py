"""The most similar samples as the network sees them."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from .._features.indexes import (
    ALGORITHMS,
    MEASURED_NEAREST,
    find_nearest_candidates,
    fit_index,
    import_package,
)
from .._kernels.similarities import DISTANCES
from .._networks.network import FEATURES
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.nearest import Nearest, WithinRadius, find_nearest, rerank
from ._base import BaseReference, Interval, StrOptions, check_is_fitted, fit_context
from ._graphs import MODES, NeighborsGraphMixin


class NetworkNeighbors(NeighborsGraphMixin, BaseReference):
    r"""Nearest neighbours by the similarity k^C of a trained network.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`.
    n_neighbors : int, default=5
        Number of neighbours.
    radius : float in [0, 2], default=0.5
        Distance within which `radius_neighbors` finds all.
    distance : {"euclidean", "cosine"}, default="euclidean"
        :math:`\sqrt{2 - 2 k^C}`, the distance of the whitened gradients, or 1 - k^C. Both are 0
        for equal and 2 for opposite gradients.
    mode : {"distance", "connectivity"}, default="distance"
        What `transform` gives, as scikit-learn's ``KNeighborsTransformer``.
    n_components : int or None, default=None
        None: similarities are exact. An integer: they are products of so many features, from
        landmarks among the fitted rows (see `GradientFeaturizer`), which are made once for each
        row: less exact, and much faster for many rows.
    n_candidates : int or None, default=None
        With ``n_components``: so many nearest rows by their features are put in order by their
        exact similarity, and the nearest of them returned by `kneighbors`; None: features decide.
        Without ``n_components`` all similarities are exact.
    algorithm : {"brute", "faiss", "pynndescent"}, default="brute"
        "brute" compares a query with all fitted rows. The others look at some, by an index of the
        features in memory: faiss's inverted lists, or pynndescent's graph; `kneighbors` then misses
        some neighbours (see ``recall_``), and has the distances of those that it finds right.
    parameters : None, str, list of str or Module, default=None
        The parameters differentiated, see `NetworkKernel`.
    batch_size : int or None, default=None
        Samples per pass; None derives it from scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Where to compute; None stays where the network is.
    input_shape : tuple of int or None, default=None
        Shape that the network takes a flat row of X in, such as (1, 28, 28); None: as it is.
    n_jobs : int or None, default=None
        Workers that share passes over the rows; None: one, or as ``joblib.parallel_config`` says.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the landmarks, and of the perceptron of ``estimator=None``.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        The network's class, size and digest, and the versions of this and other packages.
    kernel_error_ : float
        Root mean squared error of the similarity of held-out rows that features have, see
        `GradientFeaturizer`; 0 without ``n_components``.
    recall_ : float in [0, 1]
        Share of the 10 nearest by their features that the index finds, of up to 256 fitted rows; 1
        for "brute".
    n_samples_fit_ : int
        Number of rows that neighbours are found among.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    NetworkDensity : How many samples are similar.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import NetworkNeighbors
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.5, 1.0], [-1.0, 0.0]])
    >>> neighbors = NetworkNeighbors(network, n_neighbors=1).fit(X)
    >>> distances, indices = neighbors.kneighbors(X)
    >>> indices[:, 0].tolist()
    [0, 1, 2]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseReference._parameter_constraints,
        "n_neighbors": [Interval(numbers.Integral, 1, None, closed="left")],
        "radius": [Interval(numbers.Real, 0, 2, closed="both")],
        "distance": [StrOptions(set(DISTANCES))],
        "mode": [StrOptions(set(MODES))],
        "algorithm": [StrOptions({"brute", *ALGORITHMS})],
        "n_candidates": [Interval(numbers.Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        n_neighbors: int = 5,
        radius: float = 0.5,
        distance: str = "euclidean",
        mode: str = "distance",
        n_components: int | None = None,
        n_candidates: int | None = None,
        algorithm: str = "brute",
        parameters: Any = None,
        batch_size: int | None = None,
        device: Any = None,
        input_shape: tuple[int, ...] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.output = output
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.distance = distance
        self.mode = mode
        self.n_components = n_components
        self.n_candidates = n_candidates
        self.algorithm = algorithm
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any = None) -> NetworkNeighbors:
        """Keep the rows that neighbours are found among; train the network where it is not.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, for an untrained network.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        if self.algorithm != "brute":
            import_package(self.algorithm)
        self._X, source = self._fit_network(X, y)
        self.n_samples_fit_ = self._n_features_out = len(self._X)
        self._fit_projection(source, self._X)
        self._references = self._project(source, self._X)[1]
        self._fit_index(source)
        return self

    def _fit_index(self, source: Source) -> None:
        """Where one is asked for."""
        self._index, self.recall_ = None, 1.0
        if self.algorithm == "brute":
            return
        if self._projection is None and self.estimator_ != FEATURES:
            raise ValueError(
                f"algorithm is {self.algorithm!r} and n_components is None; allowed without"
                " features is 'brute': set n_components, or hand over features to"
                " estimator='features'."
            )
        source = self._make_fitted_source(source)

        def all_pairs(queries: Samples) -> np.ndarray:
            count = min(MEASURED_NEAREST, self.n_samples_fit_)
            way = (Nearest, count, DISTANCES["cosine"], self.verbose)
            return np.asarray(find_nearest(source, queries, self._references, *way).distances)

        self._index, self.recall_ = fit_index(
            self.algorithm, self._references, all_pairs, self.random_state, self.verbose
        )

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """The most similar fitted rows of each row.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries; None: the fitted rows, none of them its own neighbour.
        n_neighbors : int, default=None
            Number of neighbours; None: that of the constructor.
        return_distance : bool, default=True
            Whether to return distances too.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors), float64
            In [0, 2], ascending; only with ``return_distance``.
        indices : ndarray of shape (n_queries, n_neighbors), int64
            Positions of the neighbours among the fitted rows; of equally distant ones the first.
        """
        check_is_fitted(self, "n_samples_fit_")
        count = self._checked_count(n_neighbors, self.n_samples_fit_ - (X is None))
        queries = self._queries(X)
        X = None if X is None else queries
        if self._projection is None or self.n_candidates is None:
            distances, indices = self._found(X, count)
        else:
            available = self.n_samples_fit_ - (X is None)
            wanted = min(max(count, self.n_candidates), available)
            distances, indices = self._reranked(queries, self._found(X, wanted)[1], count)
        return (distances, indices) if return_distance else indices

    def radius_neighbors(
        self, X: Any = None, radius: float | None = None, return_distance: bool = True
    ) -> Any:
        """All fitted rows within a distance of each row, with ``n_components`` by their features.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries; None: the fitted rows, none of them its own neighbour.
        radius : float in [0, 2], default=None
            The distance; None: that of the constructor.
        return_distance : bool, default=True
            Whether to return distances too.

        Returns
        -------
        distances : ndarray of shape (n_queries,) of ndarrays, float64
            Ascending; only with ``return_distance``.
        indices : ndarray of shape (n_queries,) of ndarrays, int64
            Positions of the neighbours among the fitted rows.
        """
        check_is_fitted(self, "n_samples_fit_")
        radius = self._checked_radius(radius)
        X = None if X is None else self._queries(X)
        distances, indices = self._nearest(X, WithinRadius, radius).found()
        return (distances, indices) if return_distance else indices

    def _queries(self, X: Any) -> Any:
        return self._X if X is None else self._check_X(X, reset=False)

    def _found(self, X: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest by looking at all fitted rows, or by the index."""
        if self._index is None:
            found = self._nearest(X, Nearest, count)
            return found.distances, found.indices
        source = self._make_source()
        rows = self._references if X is None else self._project(source, X)[1]
        own = np.arange(self.n_samples_fit_) if X is None else None
        way = (self._distance(source), own, self.verbose)
        return find_nearest_candidates(self._index, self._references, rows, count, *way)

    def _distance(self, source: Source) -> Callable[[np.ndarray], np.ndarray]:
        eps = float(torch.finfo(source.dtype).eps)
        return partial(DISTANCES[self.distance], eps=eps)

    def _reranked(
        self, queries: Any, candidates: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        source = self._make_source()
        found, indices = rerank(
            source, queries, self._X, candidates, self._distance(source), self.verbose
        )
        return found[:, :count], indices[:, :count]

    def _nearest(self, X: Any, kind: type[Any], limit: float) -> Any:
        """Among the fitted rows; without X, of each of these among the others."""
        source = self._make_source()
        if X is not None:
            source, rows, others = *self._project(source, X), self._references
        else:
            source, rows, others = self._make_fitted_source(source), self._references, None
        distance = DISTANCES[self.distance]
        return find_nearest(source, rows, others, kind, limit, distance, self.verbose)

    def _checked_count(self, n_neighbors: int | None, available: int) -> int:
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        if not isinstance(count, numbers.Integral) or not 1 <= count <= available:
            raise ValueError(
                f"n_neighbors is {count!r}; allowed are integers from 1 to {available}, the number"
                " of fitted rows that can be neighbours: ask for fewer, or fit more rows."
            )
        return int(count)

    def _checked_radius(self, radius: float | None) -> float:
        radius = self.radius if radius is None else radius
        if not isinstance(radius, numbers.Real) or not 0 <= radius <= 2:
            raise ValueError(
                f"radius is {radius!r}; allowed are numbers from 0 to 2, the range of the"
                f" {self.distance} distance."
            )
        return float(radius)
