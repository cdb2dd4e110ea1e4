"""Density of samples: the number of similar samples, its logarithm, and outliers."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.base import OutlierMixin
from torch import Tensor

from .._kernels.similarities import (
    COUNTS,
    Count,
    distinct_squared_distances,
    make_count,
    two_nearest_dimension,
)
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.nearest import Nearest, find_nearest
from .._passes.weighted_means import (
    CountWeights,
    LinearWeights,
    Weights,
    make_empty_values,
    match_digests,
    merge_equal_samples,
    total_influence,
)
from ..exceptions import ChangedNetworkError
from ._base import Interval, StrOptions, check_is_fitted, fit_context
from ._base_reference import BaseReference

# Largest number of samples from which the intrinsic dimension is estimated: the cost is quadratic.
_DIMENSION_ROWS = 2000

# Share of outliers for contamination="auto", as in scikit-learn's EllipticEnvelope.
_AUTO_CONTAMINATION = 0.1


class NetworkDensity(OutlierMixin, BaseReference):
    r"""Kernel density of samples under the similarity :math:`k^C` of a trained network.

    The ``method`` chooses how samples similar to x are counted among the N fitted samples [1]_:

    - "soft": :math:`\sum_i k^C(x, x_i)`, in time linear in the number of samples;
    - "threshold": :math:`\sum_i 1[k^C(x, x_i) \ge \tau]`;
    - "power": :math:`\sum_i \max(k^C(x, x_i), 0)^\alpha`.

    The log density is

    .. math:: \log \frac{1 + \sum_i \phi(k^C(x, x_i)) / Z}{N + 1},

    where :math:`\phi` is the summand of the count (:math:`1 + k^C` for "soft") and Z its mean over
    a sphere with the intrinsic dimension of the data [2]_. Log densities for several thresholds and
    powers can therefore be compared on held-out samples, as bandwidths are in kernel density
    estimation.

    If `fit` gets weights :math:`w_i`, each summand of a count is multiplied by :math:`w_i`, and N
    is :math:`\sum_i w_i`:

    .. math:: \log \frac{1 + \sum_i w_i \phi(k^C(x, x_i)) / Z}{\sum_i w_i + 1}.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network; see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`.
    method : {"soft", "threshold", "power"}, default="soft"
        How similar samples are counted.
    threshold : float in [0, 1), default=0.9
        The threshold :math:`\tau` of method "threshold".
    alpha : float > 0, default=2.0
        The exponent :math:`\alpha` of method "power".
    dimension : float >= 1 or None, default=None
        Intrinsic dimension of the data. None estimates it in `fit`. Set it to compare densities
        that were fitted on different samples.
    contamination : "auto" or float in (0, 0.5], default="auto"
        Share of the fitted samples that are considered outliers, measured by their weight; "auto"
        is 0.1. It determines ``offset_``.
    n_components : int or None, default=None
        Number of Nyström features, made from landmarks among the fitted samples (see
        `GradientFeaturizer`). Similarities are then inner products of features that are computed
        once per sample: less exact, and much faster for many samples. None: exact similarities.
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
        Seed of the landmarks, and of the perceptron that ``estimator=None`` trains.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        Class, size and digest of the network, and the versions of sknetsim and other packages.
    dimension_ : float or None
        Intrinsic dimension of the data, at least 1; None for "soft", which does not use it. It
        depends on the different samples among the fitted ones, and not on their weights.
    kernel_error_ : float
        Root mean squared error of the similarities that features give, on held-out samples (see
        `GradientFeaturizer`); 0 without ``n_components``.
    n_samples_fit_ : int
        Number of fitted samples, without samples of weight 0.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    NetworkNeighbors : The similar samples themselves.

    Notes
    -----
    If the network is trained further after `fit`, queries use its new gradients. Method "soft",
    ``n_components``, and log densities with an estimated ``dimension_`` need values from `fit`
    and raise a `ChangedNetworkError`; call `fit` again.

    Weights are numbers of samples, so the results of a weight 2 are those of a sample that is
    fitted twice, except for random landmarks (``n_components``), which do not depend on weights.
    The scale of the weights matters, because the 1 in the log density is the weight of one sample
    of the uniform density: weights with the mean 1 keep the number of samples. A fitted sample that
    is left out at a query loses the weight 1, or all its weight if that is less; the weights of
    equal samples are added first.

    Held-out samples must be unseen by the network too, because a network memorises its training
    set, which therefore looks dense. Compare log densities between values of ``method``,
    ``threshold`` and ``alpha``, but never between outputs, parameters or networks.

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
        "method": [StrOptions({"soft", *COUNTS})],
        "threshold": [Interval(numbers.Real, 0, 1, closed="left")],
        "alpha": [Interval(numbers.Real, 0, None, closed="neither")],
        "dimension": [Interval(numbers.Real, 1, None, closed="left"), None],
        "contamination": [StrOptions({"auto"}), Interval(numbers.Real, 0, 0.5, closed="right")],
    }

    #: Offsets by the fingerprint of parameters and network; empty after `fit`.
    _offset: dict[str, float]

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
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> NetworkDensity:
        """Train the network if it is untrained, and fit the density to the samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, to train an untrained network, and at which the losses of the fitted samples
            are compared with ``output="loss"``.
        sample_weight : array-like of shape (n_samples,), float or None, default=None
            Weights of the samples, not negative, in numbers of samples: weight 2 equals the same
            sample twice, and weight 0 equals its absence. The default network is trained with them;
            other untrained networks cannot be. None: 1 for each sample.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        X, source = self._fit_network(X, y, sample_weight)
        self._dtype = source.dtype
        self._digests: list[Any] = source.digest(X, self._dtype)
        self.n_samples_fit_ = len(self._digests)
        if self._sample_weight is not None:
            # Only the total weight of equal samples matters if one of them is left out.
            merged = merge_equal_samples(self._digests, self._sample_weight)
            self._digests, self._sample_weight = merged
        for name in ("_sum", "_references"):
            self.__dict__.pop(name, None)
        self._X, self._offset = X, {}
        self.dimension_ = self.dimension
        self._fit_projection(source, X)
        source, rows = self._project(source, X)
        if self.method == "soft":
            # sum_i k^C(x, x_i) = <F(x), sum_i F(x_i)>, where F is the Jacobian whitened to length 1
            nothing = make_empty_values(self.n_samples_fit_)
            self._sum = LinearWeights.fit(
                source, rows, nothing, "unit", self.verbose, self._get_weight_tensor()
            )
            return self
        self._references = rows
        if self.dimension is None:
            self.dimension_ = self._estimate_dimension(source, rows)
        return self

    def _estimate_dimension(self, source: Source, X: Samples) -> float:
        """Return the intrinsic dimension, from different samples chosen by their digests.

        The choice depends neither on the order, number and weights of equal samples nor on
        ``random_state``.
        """
        indices = {digest: index for index, digest in enumerate(self._digests) if digest}
        chosen = X.select(sorted(indices[digest] for digest in sorted(indices)[:_DIMENSION_ROWS]))
        nearest = find_nearest(
            source, chosen, None, Nearest, 2, distinct_squared_distances, self.verbose
        )
        return two_nearest_dimension(nearest.distances)

    def neighbor_count(self, X: Any, y: Any = None) -> np.ndarray:
        """Count the fitted samples that are similar to each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A query that was fitted counts itself.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        counts : ndarray of shape (n_queries,), float64
            Method "threshold": whole numbers from 0 to ``n_samples_fit_``; "power": numbers in the
            same range; "soft": numbers between ``-n_samples_fit_`` and ``n_samples_fit_``. With
            weights, the numbers are sums of weights, and the limit is the sum of all weights.

        Raises
        ------
        ChangedNetworkError
            If the network has changed since `fit`, for method "soft" and with ``n_components``.
        """
        return self._compute_counts(self._make_source(), self._check_queries(X, y))

    def score_samples(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute the log density of each query, relative to the uniform density on the sphere.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted sample with the same bytes as a query is left out of the density
            at that query; of a larger weight than 1, only 1 is left out.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones. Equal
            samples with different labels, or one of them without, are different samples, of which
            none is left out.

        Returns
        -------
        log_density : ndarray of shape (n_queries,), float64
            Log densities in nats. 0 is the log density of samples spread evenly over the sphere.
            With N samples, or weights with the sum N, the methods "threshold" and "power" give
            -log(N + 1) to a query without neighbours. Method "soft" gives at most log 2, 0 to a
            query whose similarities sum to 0, and -log(N + 1) to a query that is opposite to all
            samples.

        Raises
        ------
        ChangedNetworkError
            If the network has changed since `fit`, unless ``dimension`` is given, ``n_components``
            is None, and the method is not "soft".
        """
        return self._log_density(self._check_queries(X, y))

    def _log_density(self, X: Samples) -> np.ndarray:
        source = self._make_source()
        own = match_digests(self._digests, source.digest(X, self._dtype))
        counts, total = self._compute_counts(source, X, own), self._sum_other_weights(own)
        if self.method == "soft":
            # log((1 + sum_i (1 + k_i)) / (N + 1)), where the mean of 1 + k is Z = 1
            return np.log1p(np.clip(total + counts, 0, None)) - np.log1p(total)
        if self.dimension_ != self.dimension:
            # The dimension was estimated from the gradients in `fit`.
            self._check_unchanged(source)
        # log((1 + exp(log(count) - log(Z))) / (N + 1)), in logarithms because Z is tiny
        with np.errstate(divide="ignore"):
            terms = [np.zeros_like(counts), np.log(counts.clip(0)) - self._log_mean()]
        return logsumexp(terms, axis=0) - np.log1p(total)

    def _sum_other_weights(self, own: np.ndarray) -> np.ndarray:
        """Return the weight of all fitted samples, up to 1 less for a fitted sample ``own``."""
        if self._sample_weight is None:
            return self.n_samples_fit_ - (own >= 0)
        return self._sample_weight.sum() - (own >= 0) * self._sample_weight[own].clip(max=1)

    def score(self, X: Any, y: Any = None) -> float:
        """Compute the total log density of the queries.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, used only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        log_likelihood : float
            Sum of `score_samples`, in nats.
        """
        return float(self.score_samples(X, y if self._takes_labels() else None).sum())

    @property
    def offset_(self) -> float:
        """Log density below which a sample is an outlier, in nats.

        It is the ``contamination`` quantile of the log densities of the fitted samples, each left
        out of its own density and weighted by its weight. It is computed on first access, which
        scores the fitted samples.
        """
        check_is_fitted(self, "n_samples_fit_")
        key = self._fingerprint()
        if key not in self._offset:
            auto = self.contamination == "auto"
            share = _AUTO_CONTAMINATION if auto else float(self.contamination)
            scores = self._log_density(self._X)
            # In a dict, because scikit-learn allows no new attribute after `predict`.
            self._offset[key] = _compute_quantile(scores, share, self._sample_weight)
        return self._offset[key]

    def __dir__(self) -> list[str]:
        """List all attributes except ``offset_``, because a notebook displays the values of all."""
        names = (name for name in object.__dir__(self) if name != "offset_")
        return [name for name in names if hasattr(self, name)]

    def decision_function(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute how far the log density of each query is above ``offset_``.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        decision : ndarray of shape (n_queries,), float64
            `score_samples` minus ``offset_``, in nats; negative for outliers.
        """
        return self.score_samples(X, y) - self.offset_

    def predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Predict which queries are outliers.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        labels : ndarray of shape (n_queries,), int64
            -1 for outliers, 1 for inliers.
        """
        return np.where(self.decision_function(X, y) < 0, -1, 1)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit the density, and predict which of the fitted samples are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels of the samples, see `fit`.
        sample_weight : array-like of shape (n_samples,), float or None, default=None
            Weights of the samples, see `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            -1 for outliers, 1 for inliers.
        """
        self.fit(X, y, sample_weight)
        return self.predict(X, y if self._takes_labels() else None)

    def reliability(self, X: Any, y: Any = None, *, absolute: bool = False) -> np.ndarray:
        r"""Estimate how strongly the fitted samples support the prediction for each query.

        The reliability is :math:`\sum_i \operatorname{tr} K(x, x_i) / \operatorname{tr} K(x, x)`,
        with the kernel K before whitening. Each term is the change of the output at x by a training
        step on the sample :math:`x_i`, if a step on x itself changes it by 1. Weights multiply the
        terms. The result is exact for each ``method`` and with ``n_components``. It takes one pass
        over the fitted samples and one over the queries.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones.
        absolute : bool, default=False
            Whether to sum absolute values, so that influences do not cancel. This computes all
            pairs of queries and fitted samples.

        Returns
        -------
        reliability : ndarray of shape (n_queries,), float64
            Reliabilities in units of samples: N if N fitted samples have the gradient of the query
            and the others do not affect it, 0 if no fitted sample affects the query or if its
            gradient is zero, and negative if the fitted samples change its output in the opposite
            direction. They are not bounded by the number of fitted samples, because a sample with
            a longer gradient counts more than one.
        """
        samples, source = self._check_queries(X, y), self._make_source()
        weights = self._get_weight_tensor()
        return total_influence(source, samples, self._X, absolute, self.verbose, weights)

    def _log_mean(self) -> float:
        """Return log(Z): the sphere of the intrinsic dimension lies in one dimension more."""
        assert self.dimension_ is not None
        return self._make_count().log_mean(self.dimension_ + 1)

    def _make_count(self) -> Count:
        """Return the count with the current threshold or power, for methods other than "soft"."""
        return make_count(self.method, self.threshold, self.alpha)

    def _check_queries(self, X: Any, y: Any) -> Samples:
        """Return the queries after validation; raise if `fit` was called with another method."""
        check_is_fitted(self, "_sum" if self.method == "soft" else "_references")
        if self._X.labels is not None and not self._takes_labels():
            # Without their labels, queries would not equal the fitted samples.
            raise ChangedNetworkError(
                "`output` must be 'loss', as in fit, which kept the labels of the fitted samples;"
                f" got {self.output!r}. Call fit again."
            )
        return self._check_X(X, y, reset=False)

    def _compute_counts(
        self, source: Source, X: Samples, own: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the count around each query, without the fitted sample ``own``; -1 for none."""
        sums = self._get_weights(source).sums(*self._project(source, X), own, verbose=self.verbose)
        return sums.total.flatten().numpy()

    def _get_weights(self, source: Source) -> Weights:
        """Return the weights of the fitted samples by the current method, threshold and power."""
        if self.method == "soft":
            if self._projection is None:  # Otherwise, `_project` checks the network.
                self._check_unchanged(source)
            return self._sum
        nothing = make_empty_values(self.n_samples_fit_)
        return CountWeights(
            self._make_count(), self._references, nothing, self._get_weight_tensor()
        )

    def _get_weight_tensor(self) -> Tensor | None:
        """Return the weights of the fitted samples, or None if all are 1."""
        return None if self._sample_weight is None else torch.as_tensor(self._sample_weight)


def _compute_quantile(values: np.ndarray, share: float, sample_weight: np.ndarray | None) -> float:
    """Return the quantile of values at a share of their weight, by linear interpolation.

    It equals numpy's quantile of values that are repeated as often as their weights say.
    """
    if sample_weight is None:
        return float(np.percentile(values, 100 * share))
    order = np.argsort(values)
    order = order[sample_weight[order] > 0]
    values, weights = values[order], sample_weight[order]
    # The copies of a value lie at the positions from `first` to `last`, for weights up to 1 at one.
    last = np.cumsum(weights) - weights.clip(max=1)
    first = np.cumsum(weights) - weights
    positions = np.stack([first, last], axis=1).ravel()
    return float(np.interp(share * last[-1], positions, values.repeat(2)))
