"""Nearest neighbours of samples, as arrays and as sparse graphs."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_matrix

from .._features.indexes import (
    ALGORITHMS,
    RECALL_NEIGHBORS,
    find_nearest_candidates,
    fit_index,
    import_package,
)
from .._kernels.similarities import DISTANCES
from .._networks.network import FEATURES
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.nearest import Nearest, WithinRadius, find_nearest, rerank
from ..exceptions import describe_integers
from ._base import Interval, LabelledTransformerMixin, StrOptions, check_is_fitted, fit_context
from ._base_reference import BaseReference

#: Possible entries of a graph.
MODES = ("distance", "connectivity")


class NetworkNeighbors(LabelledTransformerMixin, BaseReference):
    r"""Nearest neighbours under the similarity :math:`k^C` of a trained network.

    The distance of two samples is :math:`\sqrt{2 - 2 k^C(x, x')}`, the Euclidean distance of their
    whitened gradients [1]_, or the cosine distance :math:`1 - k^C(x, x')`. Both are 0 for equal
    gradients and 2 for opposite ones.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network; see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`.
    n_neighbors : int, default=5
        Number of neighbours.
    radius : float in [0, 2], default=0.5
        Distance up to which `radius_neighbors` finds all neighbours.
    distance : {"euclidean", "cosine"}, default="euclidean"
        The distance: :math:`\sqrt{2 - 2 k^C}`, or :math:`1 - k^C`.
    mode : {"distance", "connectivity"}, default="distance"
        Entries of the graph that `transform` returns, as in scikit-learn's
        ``KNeighborsTransformer``.
    n_components : int or None, default=None
        Number of Nyström features, made from landmarks among the fitted samples (see
        `GradientFeaturizer`). Similarities are then inner products of features that are computed
        once per sample: less exact, and much faster for many samples. None: exact similarities.
    n_candidates : int or None, default=None
        Used only with ``n_components``. `kneighbors` finds this number of nearest samples by their
        features, sorts them by their exact similarity, and returns the nearest of them. None:
        neighbours and distances are those of the features.
    algorithm : {"brute", "faiss", "pynndescent"}, default="brute"
        How `kneighbors` searches. "brute" compares each query with all fitted samples. The other
        two compare it with some of them, which they choose by an index of the features in memory:
        inverted lists of faiss, or a graph of pynndescent. They miss some neighbours (see
        ``recall_``); the distances of the neighbours that they find are correct.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`.
    batch_size : int or None, default=None
        Number of samples per pass. None chooses it to fit scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Device to compute on. None uses the device of the network.
    input_shape : tuple of int or None, default=None
        Shape that each sample gets before it enters the network, such as (1, 28, 28) for flat
        images. None leaves samples unchanged.
    n_jobs : int or None, default=None
        Number of workers that share the passes over the samples. None: 1, or the number set by
        ``joblib.parallel_config``.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the landmarks, of the index, and of the perceptron that ``estimator=None`` trains.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        Class, size and digest of the network, and the versions of sknetsim and other packages.
    kernel_error_ : float
        Root mean squared error of the similarities that features give, on held-out samples (see
        `GradientFeaturizer`); 0 without ``n_components``.
    recall_ : float in [0, 1]
        Share of the 10 nearest neighbours by features that the index finds, measured on up to 256
        fitted samples; 1 for "brute".
    n_samples_fit_ : int
        Number of fitted samples.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    NetworkDensity : The number of similar samples.

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
        """Train the network if it is untrained, and keep the samples to search.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, to train an untrained network, and at which the losses of the fitted samples
            are compared with ``output="loss"``.

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
        """Build the index of ``algorithm``, and measure its recall; "brute" needs no index."""
        self._index, self.recall_ = None, 1.0
        if self.algorithm == "brute":
            return
        if self._projection is None and self.estimator_ != FEATURES:
            raise ValueError(
                "`n_components` must be an integer if `algorithm` indexes features; got None with"
                f" algorithm={self.algorithm!r}. Set n_components, pass features with"
                " estimator='features', or use algorithm='brute'."
            )
        source = self._make_fitted_source(source)

        def measure_nearest(queries: Samples) -> np.ndarray:
            count = min(RECALL_NEIGHBORS, self.n_samples_fit_)
            settings = (Nearest, count, DISTANCES["cosine"], self.verbose)
            nearest = find_nearest(source, queries, self._references, *settings)
            return np.asarray(nearest.distances)

        self._index, self.recall_ = fit_index(
            self.algorithm, self._references, measure_nearest, self.random_state, self.verbose
        )

    def kneighbors(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
        *,
        y: Any = None,
    ) -> Any:
        """Find the nearest fitted samples of each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries. None: the fitted samples, none of which is its own neighbour.
        n_neighbors : int, default=None
            Number of neighbours. None: the parameter of the estimator.
        return_distance : bool, default=True
            Whether to return distances too.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones, or for
            the fitted samples those of `fit`.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors), float64
            Distances in [0, 2], in ascending order. Only with ``return_distance``.
        indices : ndarray of shape (n_queries, n_neighbors), int64
            Positions of the neighbours among the fitted samples; ties are in the order of the
            fitted samples.

        Raises
        ------
        ValueError
            If there are fewer fitted samples than neighbours.
        ChangedNetworkError
            With ``n_components``, if the network has changed since `fit`.
        """
        check_is_fitted(self, "n_samples_fit_")
        available = self.n_samples_fit_ - (X is None)
        count = self._check_n_neighbors(n_neighbors, available)
        queries = self._check_queries(X, y)
        if self._projection is None or self.n_candidates is None:
            distances, indices = self._find_neighbors(queries, count)
        else:
            n_candidates = min(max(count, self.n_candidates), available)
            candidates = self._find_neighbors(queries, n_candidates)[1]
            distances, indices = self._rerank(queries, candidates, count)
        return (distances, indices) if return_distance else indices

    def radius_neighbors(
        self,
        X: Any = None,
        radius: float | None = None,
        return_distance: bool = True,
        *,
        y: Any = None,
    ) -> Any:
        """Find all fitted samples within a distance of each query.

        All fitted samples are searched, whatever the ``algorithm``. With ``n_components``, the
        distances are those of the features. The arrays of all queries share one memory: copy an
        array to keep it without the others.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries. None: the fitted samples, none of which is its own neighbour.
        radius : float in [0, 2], default=None
            The distance. None: the parameter of the estimator.
        return_distance : bool, default=True
            Whether to return distances too.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones, or for
            the fitted samples those of `fit`.

        Returns
        -------
        distances : ndarray of shape (n_queries,) of ndarrays, float64
            Distances in [0, ``radius``], in ascending order. Only with ``return_distance``.
        indices : ndarray of shape (n_queries,) of ndarrays, int64
            Positions of the neighbours among the fitted samples.

        Raises
        ------
        ValueError
            If ``radius`` is outside of [0, 2].
        ChangedNetworkError
            With ``n_components``, if the network has changed since `fit`.
        """
        check_is_fitted(self, "n_samples_fit_")
        radius = self._check_radius(radius)
        queries = self._check_queries(X, y)
        distances, indices = self._search_all(queries, WithinRadius, radius).to_arrays()
        return (distances, indices) if return_distance else indices

    def kneighbors_graph(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        mode: str = "connectivity",
        *,
        y: Any = None,
    ) -> csr_matrix:
        """Make the sparse graph of the nearest fitted samples of each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries. None: the fitted samples, none of which is its own neighbour.
        n_neighbors : int, default=None
            Number of neighbours. None: the parameter of the estimator.
        mode : {"connectivity", "distance"}, default="connectivity"
            Entries of the graph: 1 for each neighbour, or its distance. Distances of 0 are stored
            explicitly.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones, or for
            the fitted samples those of `fit`.

        Returns
        -------
        graph : csr_matrix of shape (n_queries, n_samples_fit), float64
            The graph; each row is sorted by distance.

        Raises
        ------
        ValueError
            If ``mode`` is unknown, or if there are fewer fitted samples than neighbours.
        """
        if mode not in MODES:
            raise ValueError(
                f"`mode` must be one of {', '.join(map(repr, MODES))}; got {mode!r}. Use one of"
                " these."
            )
        if mode == "connectivity":
            # The distances are freed before the entries are allocated.
            indices = self.kneighbors(X, n_neighbors, return_distance=False, y=y)
            values = np.ones(indices.shape)
        else:
            values, indices = self.kneighbors(X, n_neighbors, y=y)
        starts = np.arange(0, indices.size + 1, indices.shape[1])
        shape = (len(indices), self.n_samples_fit_)
        return csr_matrix((values.ravel(), indices.ravel(), starts), shape=shape)

    def transform(self, X: Any, y: Any = None) -> csr_matrix:
        """Make the sparse graph of the queries for estimators with ``metric="precomputed"``.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted sample is its own first neighbour. Its distance to itself is 0;
            with ``n_components`` it is larger if the landmarks do not cover the sample.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        graph : csr_matrix of shape (n_queries, n_samples_fit), float64
            The graph; each row is sorted by distance. With ``mode="distance"``: the distances of
            ``n_neighbors + 1`` neighbours, one more for estimators that do not count a sample as
            its own neighbour; distances of 0 are stored explicitly. With ``mode="connectivity"``:
            1 for each of ``n_neighbors`` neighbours.
        """
        check_is_fitted(self, "n_samples_fit_")
        extra = self.mode == "distance"
        count = self._check_n_neighbors(None, self.n_samples_fit_ - extra)
        return self.kneighbors_graph(X, count + extra, self.mode, y=y)

    def _check_queries(self, X: Any, y: Any) -> Samples | None:
        """Return the queries after validation, or None for the fitted samples."""
        if X is not None:
            return self._check_X(X, y, reset=False)
        if y is not None:
            raise ValueError(
                "`y` must be None if `X` is None, because the fitted samples have the labels of"
                " fit; got labels. Pass X, or leave out `y`."
            )
        return None

    def _check_n_neighbors(self, n_neighbors: int | None, available: int) -> int:
        """Return the requested number of neighbours."""
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        if available == 0:
            raise ValueError(
                "`n_neighbors` must be at most the number of other fitted samples; got a single"
                f" fitted sample, which has no other neighbours, and n_neighbors={count!r}. Fit"
                " more samples."
            )
        if not isinstance(count, numbers.Integral) or not 1 <= count <= available:
            raise ValueError(
                f"`n_neighbors` must be {describe_integers(1, available)} (the number of fitted"
                f" samples that can be neighbours); got {count!r}. Ask for fewer neighbours or fit"
                " more samples."
            )
        return int(count)

    def _check_radius(self, radius: float | None) -> float:
        """Return the requested radius."""
        radius = self.radius if radius is None else radius
        if not isinstance(radius, numbers.Real) or not 0 <= radius <= 2:
            raise ValueError(
                f"`radius` must be a number between 0 and 2 (the range of the {self.distance}"
                f" distance); got {radius!r}. Set it within this range."
            )
        return float(radius)

    def _find_neighbors(self, X: Samples | None, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and indices of the nearest fitted samples, of shape (n, count) each.

        The queries None are the fitted samples. Without an index, all fitted samples are searched.
        """
        if self._index is None:
            nearest = self._search_all(X, Nearest, count)
            return nearest.distances, nearest.indices
        source = self._make_source()
        if X is None:
            self._make_fitted_source(source)
            queries, own = self._references, np.arange(self.n_samples_fit_)
        else:
            queries, own = self._project(source, X)[1], None
        settings = (self._make_distance(source), own, self.verbose)
        return find_nearest_candidates(self._index, self._references, queries, count, *settings)

    def _search_all(self, X: Samples | None, reduction: type[Any], limit: float) -> Any:
        """Search all fitted samples for the neighbours of the queries, as `find_nearest` does.

        The queries None are the fitted samples. ``reduction`` is `Nearest`, with the number of
        neighbours as ``limit``, or `WithinRadius`, with the radius.
        """
        source = self._make_source()
        if X is not None:
            source, queries, others = *self._project(source, X), self._references
        else:
            source, queries, others = self._make_fitted_source(source), self._references, None
        distance = DISTANCES[self.distance]
        return find_nearest(source, queries, others, reduction, limit, distance, self.verbose)

    def _rerank(
        self, queries: Samples | None, candidates: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and indices of the nearest candidates by their exact similarity."""
        source, queries = self._make_source(), self._X if queries is None else queries
        distances, indices = rerank(
            source, queries, self._X, candidates, self._make_distance(source), self.verbose
        )
        return distances[:, :count], indices[:, :count]

    def _make_distance(self, source: Source) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function from similarities to distances."""
        eps = float(torch.finfo(source.dtype).eps)
        return partial(DISTANCES[self.distance], eps=eps)
