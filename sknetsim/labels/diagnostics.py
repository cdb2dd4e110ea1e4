"""Diagnosis of over- and underfitting, from how labels and predictions vary among neighbours.

Index legend: n samples; k neighbours of each sample; q columns of the values of labels.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .._kernels.similarities import DISTANCES
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.nearest import Nearest, find_nearest
from ..estimators._base import Interval, check_is_fitted, fit_context
from ..estimators._base_reference import BaseLabelledReference
from ._label_arrays import check_labels
from ._problems import infer_target


@dataclass(frozen=True)
class Neighborhoods:
    """Neighbourhoods N_i of n samples, each of sample i and its k nearest neighbours.

    Attributes
    ----------
    indices : ndarray of shape (n, k), int64
        Neighbours of each sample, without the sample itself.
    squares : ndarray of shape (n, k), float64
        Squared distances s of the neighbours.
    """

    indices: np.ndarray
    squares: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over N_i of values of shape (n, ...)."""
        # E_i[v] = (v_i + sum_j v_j) / (k + 1)
        total = values + values[self.indices].sum(axis=1)
        mean: np.ndarray = total / self._size
        return mean

    def variance(self, values: np.ndarray) -> np.ndarray:
        """Return the unbiased variance over N_i, summed over the columns, of shape (n,)."""
        members = np.concatenate([values[:, None], values[self.indices]], axis=1)
        variance: np.ndarray = members.var(axis=1, ddof=1).sum(axis=1)
        return variance

    def noise(self, values: np.ndarray) -> np.ndarray:
        """Return the variance at distance 0, of shape (n,), of values of shape (n, q).

        The pairs of N_i are its members j with their neighbours l. The halved squared difference of
        the values, h = |v_j - v_l|^2 / 2, is fitted by a line in the squared distance s of the
        pair. The noise is its value at s = 0. Negative slopes and values are set to 0.
        """
        # h[j,l] = |v_j - v_l|^2 / 2
        halves = np.square(values[self.indices] - values[:, None]).sum(axis=2) / 2
        # E[s], E[h], E[s^2] and E[s h] over the pairs of each N_i
        products = (self.squares, halves, self.squares**2, self.squares * halves)
        s, h, ss, sh = (self.mean(product.mean(axis=1)) for product in products)
        # Var[s] = E[s^2] - E[s]^2; distances that are equal up to rounding give no slope.
        variance = ss - s**2
        variance = np.where(variance > 1e-12 * ss, variance, np.inf)
        # slope = Cov[s, h] / Var[s];  noise = E[h] - slope E[s]
        slope = np.clip((sh - s * h) / variance, 0, None)
        return np.clip(h - slope * s, 0, None)

    def common_squares(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of the mean square over N_i that its members share, and the mean square.

        The first is unbiased. For independent noise it is 0 on average, and so can be negative.
        """
        # common = |E_i[r]|^2 - Var_i[r] / (k + 1), as E[|E_i[r]|^2] = |E[r]|^2 + Var[r] / (k + 1)
        square = np.square(self.mean(residuals)).sum(axis=1)
        common = square - self.variance(residuals) / self._size
        # E_i[|r|^2]
        return common, self.mean(np.square(residuals).sum(axis=1))

    @property
    def _size(self) -> int:
        """Number k + 1 of samples in N_i."""
        return self.indices.shape[1] + 1


# Noise and squared residuals are at least this share of the variance of the labels. Without noise
# in the labels, ratios of two numbers near 0 would be arbitrary.
_LEAST_SHARE = 0.01

# A sample lies in a region of over- or underfitting from this value of `overfit_` or `underfit_`.
_REGION_SHARE = 0.5


class FitDiagnostics(BaseLabelledReference):
    r"""Diagnosis of over- and underfitting at each sample, from noisy labels.

    Let :math:`N_i` be sample i with its ``n_neighbors`` nearest neighbours by :math:`k^C` [1]_. Let
    :math:`E_i` and :math:`\operatorname{Var}_i` be the mean and the unbiased variance over
    :math:`N_i`, y the labels, :math:`\hat y` the predictions, and :math:`r = y - \hat y`. Then

    .. math::
        \text{overfit}_i = \frac{\nu_i(\hat y)}{\max(\nu_i(y), v / 100)}, \qquad
        \text{underfit}_i = \frac{\|E_i[r]\|^2 - \operatorname{Var}_i[r] / |N_i|}
        {\max(E_i[\|r\|^2], v / 100)},

    both clipped to [0, 1], where v is the variance of all labels, summed over the columns.

    The noise :math:`\nu_i(a)` is the variance that remains at distance 0. A line in the squared
    distance :math:`2 - 2 k^C` is fitted to the halved squared differences
    :math:`\|a_j - a_l\|^2 / 2` of the members of :math:`N_i` and their neighbours, and
    :math:`\nu_i` is its value at 0 (the nugget of geostatistics) [2]_. A steep function therefore
    does not count as noise.

    The network considers neighbours nearly equal, so differences between their labels are noise. If
    the predictions vary like the labels, the network follows that noise: it overfits. If the
    residuals of neighbours have a common part, that part is not noise, but structure that the
    network misses: it underfits.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module or None, default=None
        The network, trained on these labels. The criterion of a skorch net decides whether labels
        are classes, several labels of 0 and 1, or numbers; see the notes of `LabelDenoiser`. A
        module has no criterion: with a single output, or with several labels per sample, it is
        treated as regression; for two classes or several labels, pass the skorch net.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. "loss" is the loss at the
        predicted label, because the given labels are what is judged.
    n_neighbors : int, default=10
        Number of neighbours of each sample, at least 2. All other samples are used if there are
        fewer. More neighbours are less similar; fewer give a less precise estimate.
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
    label_mean_, prediction_mean_ : ndarray of shape (n_samples, n_columns), float64
        Means :math:`E_i` in the unit of the labels. For classes: one column per class, with its
        share of the labels, or its mean probability. For several labels per sample: one column per
        label, with its share, or its mean probability.
    label_variance_, prediction_variance_ : ndarray of shape (n_samples,), float64
        Variances :math:`\operatorname{Var}_i` in the squared unit of the labels, summed over the
        columns.
    label_noise_, prediction_noise_ : ndarray of shape (n_samples,), float64
        Noise :math:`\nu_i` in the squared unit of the labels, at least 0.
    overfit_ : ndarray of shape (n_samples,), float64
        Noise of the predictions as a share of the noise of the labels, in [0, 1]: 0 if the
        predictions are as smooth as the similarity, and 1 if they vary like the noise of the
        labels. Noise below a hundredth of the labels' variance counts as a hundredth, because
        labels without noise leave nothing to overfit.
    underfit_ : ndarray of shape (n_samples,), float64
        Share of the squared residuals that neighbours have in common, in [0, 1]: 0 if the residuals
        look like independent noise, and 1 if all residuals are equal. Squared residuals below a
        hundredth of the labels' variance count as a hundredth.
    region_ : ndarray of shape (n_samples,), str
        "overfit" or "underfit", by the larger of the two values, if it is .5 or more. Otherwise
        "fit".
    kernel_error_ : float
        Root mean squared error of the similarities that features give, on held-out samples (see
        `GradientFeaturizer`); 0 without ``n_components``.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    LabelDenoiser : Smoothing of labels over similar samples.

    Notes
    -----
    If a network cannot distinguish inputs with different labels, because it is too small or lacks
    the relevant feature, this estimator counts the difference as noise. Compare the noise in
    `summary` between several networks on the same labels: noise above the lowest value is structure
    that a network misses.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] A. Stefansson, N. Koncar, A. J. Jones, "A note on the Gamma test", Neural Computing &
       Applications 5, 1997: noise as the variance that remains at distance 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import FitDiagnostics
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-2, 2, (300, 1))
    >>> y = np.sin(2 * X[:, 0]) + rng.normal(scale=0.3, size=300)
    >>> diagnostics = FitDiagnostics(random_state=0).fit(X, y)
    >>> summary = diagnostics.summary()
    >>> summary["overfit"] < 0.3, summary["underfit"] < 0.1
    (True, True)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseLabelledReference._parameter_constraints,
        "n_neighbors": [Interval(numbers.Integral, 2, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        n_neighbors: int = 10,
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
        self.n_neighbors = n_neighbors
        self.n_components = n_components
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any) -> FitDiagnostics:
        """Train the network if it is untrained, and compare labels and predictions of neighbours.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples that the network was trained on, at least 3.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            The labels that it was trained on: numbers, or classes numbered as in its training.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If there are fewer than 3 samples, if the labels are missing, not finite, names that the
            network does not take or all of one class, or if they do not fit the outputs or the
            criterion of the network.
        UnsupportedNetworkError
            If a prediction for a sample is NaN or infinite.

        Warns
        -----
        UserWarning
            If the labels are 0 and 1, and are treated as numbers because the network has no known
            criterion, although its outputs may be logits.
        """
        y = None if y is None else check_labels(y)
        samples, source = self._fit_network(X, y)
        target = infer_target(source, samples, y)
        labels = target.values(y)
        predictions = target.predictions(source, samples)
        self._fit_projection(source, samples)
        self._measure(self._find_neighborhoods(source, samples), labels, predictions)
        return self

    def _find_neighborhoods(self, source: Source, X: Samples) -> Neighborhoods:
        """Return each sample with its nearest neighbours among the other samples."""
        count = len(X)
        if count < 3:
            raise ValueError(
                f"`X` must have at least 3 samples, so that neighbours can differ; got n_samples="
                f"{count}. Pass more samples."
            )
        source, X = self._project(source, X)
        neighbors = find_nearest(
            source,
            X,
            None,
            Nearest,
            min(self.n_neighbors, count - 1),
            DISTANCES["cosine"],
            self.verbose,
        )
        # |phi_j - phi_l|^2 = 2 - 2 k^C, which is twice the cosine distance 1 - k^C.
        return Neighborhoods(neighbors.indices, 2 * neighbors.distances)

    def _measure(
        self, neighborhoods: Neighborhoods, labels: np.ndarray, predictions: np.ndarray
    ) -> None:
        """Set the attributes, from labels and predictions of shape (n, q)."""
        self.label_mean_ = neighborhoods.mean(labels)
        self.label_variance_ = neighborhoods.variance(labels)
        self.label_noise_ = neighborhoods.noise(labels)
        self.prediction_mean_ = neighborhoods.mean(predictions)
        self.prediction_variance_ = neighborhoods.variance(predictions)
        self.prediction_noise_ = neighborhoods.noise(predictions)
        # v = Var[y], summed over the columns
        self._label_variance = float(labels.var(axis=0).sum())
        least = _LEAST_SHARE * self._label_variance
        self._common_squares, squares = neighborhoods.common_squares(labels - predictions)
        self._least_squares = np.maximum(squares, least)
        self._least_noise = np.maximum(self.label_noise_, least)
        self.overfit_ = _clipped_ratio(self.prediction_noise_, self._least_noise)
        self.underfit_ = _clipped_ratio(self._common_squares, self._least_squares)
        self.region_ = np.where(self.overfit_ >= self.underfit_, "overfit", "underfit")
        self.region_[np.maximum(self.overfit_, self.underfit_) < _REGION_SHARE] = "fit"

    def summary(self) -> dict[str, float]:
        """Summarise the diagnosis of all samples.

        Returns
        -------
        summary : dict of str to float
            Shares in [0, 1]. "noise": share of the labels' variance that is noise, that is, not
            explained by neighbours. "overfit" and "underfit": as the attributes, with the means of
            numerator and denominator over all samples. "overfit region" and "underfit region":
            shares of the samples in these regions.

        Raises
        ------
        NotFittedError
            If `fit` has not been called.
        """
        check_is_fitted(self, "region_")
        ratios = {
            "noise": (self.label_noise_, self._label_variance),
            "overfit": (self.prediction_noise_, self._least_noise),
            "underfit": (self._common_squares, self._least_squares),
        }
        shares = {
            name: float(_clipped_ratio(np.mean(part), np.mean(whole)))
            for name, (part, whole) in ratios.items()
        }
        regions = ("overfit", "underfit")
        return shares | {f"{name} region": float((self.region_ == name).mean()) for name in regions}


def _clipped_ratio(part: Any, whole: Any) -> Any:
    """Return part / whole, clipped to [0, 1]; it is 0 if the whole is 0."""
    part, whole = np.asarray(part), np.asarray(whole)
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0).clip(0, 1)
