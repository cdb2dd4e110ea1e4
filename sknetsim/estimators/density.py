"""The density of samples, by how many the network considers similar."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp

from .._kernels.similarities import (
    COUNTS,
    Count,
    distinct_squared_distances,
    make_count,
    two_nearest_dimension,
)
from .._networks.fingerprint import digest_samples
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.nearest import Nearest, find_nearest
from .._passes.weighted_means import (
    CountWeights,
    LinearWeights,
    Weights,
    make_empty_values,
    match_digests,
    total_influence,
)
from ._base import BaseReference, Interval, StrOptions, check_is_fitted, fit_context
from ._outliers import DensityOutlierMixin

# The intrinsic dimension is estimated on at most so many rows.
_DIMENSION_ROWS = 2000


class NetworkDensity(DensityOutlierMixin, BaseReference):
    r"""Density of samples as a trained network sees them.

    The count of similar samples is one of

    - "soft": :math:`\sum_i k^C(x, x_i)`, in time linear in the number of samples;
    - "threshold": :math:`\sum_i 1[k^C(x, x_i) \ge \tau]`;
    - "power": :math:`\sum_i \max(k^C(x, x_i), 0)^\alpha`.

    The log density is :math:`\log((1 + \sum_i \phi(k^C(x, x_i)) / Z) / (N + 1))`, with
    :math:`\phi` what is summed above (1 + k^C for "soft") and Z its mean over a sphere whose
    dimension is the data's intrinsic one, so that values for several thresholds and powers can be
    compared on held-out samples.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`.
    method : {"soft", "threshold", "power"}, default="soft"
        How similar samples are counted.
    threshold : float in [0, 1), default=0.9
        The threshold tau of method "threshold".
    alpha : float > 0, default=2.0
        The exponent of method "power".
    dimension : float >= 1 or None, default=None
        Intrinsic dimension of the data; None estimates it in `fit`. Give it to compare densities
        that were fitted on different rows.
    contamination : "auto" or float in (0, 0.5], default="auto"
        The share of outliers among the fitted rows that `predict` goes by; "auto" is 0.1.
    n_components : int or None, default=None
        None: similarities are exact. An integer: they are products of so many features, from
        landmarks among the fitted rows (see `GradientFeaturizer`), which are made once for each
        row: less exact, and much faster for many rows.
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
    dimension_ : float or None
        The intrinsic dimension used, at least 1; None for "soft", which needs none.
    kernel_error_ : float
        Root mean squared error of the similarity of held-out rows that features have, see
        `GradientFeaturizer`; 0 without ``n_components``.
    n_samples_fit_ : int
        Number of rows that are counted.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    NetworkNeighbors : Which samples are similar.

    Notes
    -----
    Held-out rows must be unseen by the network too: its training set looks dense by memory. Scores
    compare over method, threshold and alpha, never over outputs, parameters or networks.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] E. Facco, M. d'Errico, A. Rodriguez, A. Laio, "Estimating the intrinsic dimension of
       datasets by a minimal neighborhood information", Scientific Reports 7, 2017.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import NetworkDensity
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> density = NetworkDensity(network, method="threshold", threshold=0.99).fit(X)
    >>> density.neighbor_count(X[:2]).tolist()
    [2.0, 2.0]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseReference._parameter_constraints,
        **DensityOutlierMixin._parameter_constraints,
        "method": [StrOptions({"soft", *COUNTS})],
        "threshold": [Interval(numbers.Real, 0, 1, closed="left")],
        "alpha": [Interval(numbers.Real, 0, None, closed="neither")],
        "dimension": [Interval(numbers.Real, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        method: str = "soft",
        threshold: float = 0.9,
        alpha: float = 2.0,
        dimension: float | None = None,
        contamination: str | float = "auto",
        n_components: int | None = None,
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
        self.method = method
        self.threshold = threshold
        self.alpha = alpha
        self.dimension = dimension
        self.contamination = contamination
        self.n_components = n_components
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any = None) -> NetworkDensity:
        """Take the rows that are counted; train the network where it is not.

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
        X, source = self._fit_network(X, y)
        self._digests = digest_samples(X, source.dtype)
        self.n_samples_fit_ = len(self._digests)
        for name in ("_sum", "_references"):
            self.__dict__.pop(name, None)
        self._X, self._offset = X, {}
        self.dimension_ = self.dimension
        self._fit_projection(source, X)
        source, rows = self._project(source, X)
        if self.method == "soft":
            nothing = make_empty_values(self.n_samples_fit_)
            self._sum = LinearWeights.fit(source, rows, nothing, "unit", self.verbose)
            return self
        self._references = rows
        if self.dimension is None:
            self.dimension_ = self._estimated_dimension(source, rows)
        return self

    def _estimated_dimension(self, source: Source, X: Samples) -> float:
        """On rows chosen by their bytes, so that neither order nor seed matters."""
        chosen = np.argsort(np.array(self._digests, dtype="S16"), kind="stable")[:_DIMENSION_ROWS]
        rows = X.select(np.sort(chosen).tolist())
        distance = distinct_squared_distances
        kind = Nearest
        found = find_nearest(source, rows, None, kind, 2, distance, self.verbose)
        return two_nearest_dimension(found.distances)

    def neighbor_count(self, X: Any) -> np.ndarray:
        """Number of similar fitted rows; a fitted row counts itself.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.

        Returns
        -------
        counts : ndarray of shape (n_queries,), float64
            Method "threshold": 0 to ``n_samples_fit_``, whole numbers; "power": in the same range;
            "soft": between plus and minus ``n_samples_fit_``.
        """
        return self._counts(self._make_source(), self._queries(X))

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each row, relative to the uniform law on the sphere.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows. A fitted row with the same bytes is left out of its own density.

        Returns
        -------
        log_density : ndarray of shape (n_queries,), float64
            In nats; 0 is as dense as samples spread evenly over the sphere. Without neighbours it
            is -log(N + 1) by counts; method "soft" is at most log 2, 0 for a row that is on the
            whole unlike all, and -log(N + 1) for the opposite of all.
        """
        return self._log_density(self._queries(X))

    def _log_density_of_fitted(self) -> np.ndarray:
        return self._log_density(self._X)

    def _log_density(self, X: Samples) -> np.ndarray:
        source = self._make_source()
        own = match_digests(self._digests, digest_samples(X, source.dtype))
        counts, total = self._counts(source, X, own), self.n_samples_fit_ - (own >= 0)
        if self.method == "soft":
            return np.log1p(np.clip(total + counts, 0, None)) - np.log1p(total)
        with np.errstate(divide="ignore"):
            terms = [np.zeros_like(counts), np.log(counts.clip(0)) - self._log_mean()]
        return logsumexp(terms, axis=0) - np.log1p(total)

    def score(self, X: Any, y: Any = None) -> float:
        """Total log density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.
        y : None
            Not used.

        Returns
        -------
        log_likelihood : float
            Sum of `score_samples`, in nats.
        """
        return float(self.score_samples(X).sum())

    def reliability(self, X: Any, *, absolute: bool = False) -> np.ndarray:
        r"""How much of the network's answer at each row the fitted rows have a say in.

        With the kernel K as it is, not whitened: :math:`\sum_i \operatorname{tr} K(x, x_i) /
        \operatorname{tr} K(x, x)`, what a training step on each fitted row moves at x, where one on
        x itself moves 1. Exact whatever the method and ``n_components``, in one pass over the
        fitted rows and one over X.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.
        absolute : bool, default=False
            Whether to sum absolute values, so that no influences cancel: by all pairs.

        Returns
        -------
        reliability : ndarray of shape (n_queries,), float64
            In samples: about N where N fitted rows have the very gradient of a row, 0 where none
            moves it or where its gradient is zero; negative where they move it the other way.
            Not bounded by N: a fitted row with a longer gradient counts for more than one.
        """
        samples, source = self._queries(X), self._make_source()
        return total_influence(source, samples, self._X, absolute, self.verbose)

    def _log_mean(self) -> float:
        """Logarithm of Z on the sphere of the intrinsic dimension, which lies in one more."""
        assert self.dimension_ is not None
        return self._count().log_mean(self.dimension_ + 1)

    def _count(self) -> Count:
        """Return the count with the current threshold or power, for methods other than "soft"."""
        return make_count(self.method, self.threshold, self.alpha)

    def _queries(self, X: Any) -> Samples:
        """Validated rows, where the method was fitted."""
        check_is_fitted(self, "_sum" if self.method == "soft" else "_references")
        return self._check_X(X, reset=False)

    def _counts(self, source: Source, X: Samples, own: np.ndarray | None = None) -> np.ndarray:
        """Counts around rows; ``own`` are fitted ones that are not counted, one each, or -1."""
        sums = self._weights().sums(*self._project(source, X), own, verbose=self.verbose)
        return sums.total.flatten().numpy()

    def _weights(self) -> Weights:
        """Of the method and its level as they are now."""
        if self.method == "soft":
            return self._sum
        nothing = make_empty_values(self.n_samples_fit_)
        return CountWeights(self._count(), self._references, nothing)
