"""Moments over neighbourhoods, and what is left of them where distances vanish.

Index legend: n samples; k neighbours of each, itself not among them; q columns.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .._kernels.similarities import DISTANCES
from .._passes.chunks import Source
from .._passes.nearest import Nearest, find_nearest
from ..estimators._base import BaseLabelledReference, Interval, check_is_fitted, fit_context
from ._targets import infer_target


@dataclass(frozen=True)
class Neighborhoods:
    """The nearest others of n samples.

    Attributes
    ----------
    indices : ndarray of shape (n, k)
        The neighbours.
    squares : ndarray of shape (n, k)
        Their squared distances.
    """

    indices: np.ndarray
    squares: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Over a sample and its neighbours, for values of shape (n, ...)."""
        total = values + values[self.indices].sum(axis=1)
        found: np.ndarray = total / self._count
        return found

    def variance(self, values: np.ndarray) -> np.ndarray:
        """Unbiased, summed over columns, of shape (n,), for values (n, q)."""
        members = np.concatenate([values[:, None], values[self.indices]], axis=1)
        found: np.ndarray = members.var(axis=1, ddof=1).sum(axis=1)
        return found

    def noise(self, values: np.ndarray) -> np.ndarray:
        """The variance between samples that have come to be the same, of shape (n,).

        Half of the squared differences of neighbours, around each sample, as a line in their
        squared distance: its value at 0, neither slope nor value below 0.
        """
        halves = np.square(values[self.indices] - values[:, None]).sum(axis=2) / 2
        products = (self.squares, halves, self.squares**2, self.squares * halves)
        x, y, xx, xy = (self.mean(product.mean(axis=1)) for product in products)
        spread = xx - x**2
        # Distances that are all alike up to rounding have no slope.
        spread = np.where(spread > 1e-12 * xx, spread, np.inf)
        return np.clip(y - np.clip((xy - x * y) / spread, 0, None) * x, 0, None)

    def shared(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean square around each sample what neighbours have in common, and all of it.

        The first is unbiased: 0 on average, and so at times negative, for independent noise.
        """
        square = np.square(self.mean(residuals)).sum(axis=1)
        common = square - self.variance(residuals) / self._count
        return common, self.mean(np.square(residuals).sum(axis=1))

    @property
    def _count(self) -> int:
        return self.indices.shape[1] + 1


# Noise and residuals below this share of the labels' variance count as so much.
_LEAST = 0.01

# From this share on, a sample lies in a region of over- or underfit.
_REGION = 0.5


class FitDiagnostics(BaseLabelledReference):
    r"""Where a network follows the noise of its labels, and where it misses what they say.

    Neighbours in the network's own eyes, the ``n_neighbors`` nearest by :math:`k^C`, should have
    nearly the same label. What varies among them nevertheless is noise. Around each sample,

    - predictions that vary as labels do follow the noise: overfit;
    - residuals that neighbours have in common are no noise, but what the network misses: underfit.

    Noise is measured where distances vanish: half of the squared differences of neighbours is
    fitted by a line in their squared distance :math:`2 - 2 k^C`, whose value at 0 (the nugget of
    geostatistics) is free of how fast the labels themselves change.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module or None, default=None
        The network, trained on the labels in question, see `LabelDenoiser`. One output of a bare
        module is a number: of two classes hand over the skorch classifier.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`.
    n_neighbors : int, default=10
        Size of the neighbourhoods, at most the number of samples less one. More neighbours lie
        further off, fewer say less.
    n_components : int or None, default=None
        None: similarities are exact. An integer: they are products of so many features, see
        `NetworkDensity`.
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
    label_mean_, prediction_mean_ : ndarray of shape (n_samples, n_columns), float64
        Means over each sample and its neighbours, in the unit of the labels; of classes, shares.
    label_variance_, prediction_variance_ : ndarray of shape (n_samples,), float64
        Unbiased variances over each sample and its neighbours, in the labels' unit squared, summed
        over columns.
    label_noise_, prediction_noise_ : ndarray of shape (n_samples,), float64
        What is left of these where distances vanish, at least 0.
    overfit_ : ndarray of shape (n_samples,), float64
        ``prediction_noise_ / label_noise_``, in [0, 1]: 0 where predictions are as smooth as the
        network sees its inputs, 1 where they vary as the labels' noise does. Noise below a
        hundredth of the labels' variance counts as so much: labels without noise leave nothing to
        follow.
    underfit_ : ndarray of shape (n_samples,), float64
        Share of the squared residuals that neighbours have in common, in [0, 1]: 0 where residuals
        are like independent noise, 1 where all are missed alike. Squared residuals below a
        hundredth of the labels' variance count as so much.
    region_ : ndarray of shape (n_samples,), str
        "overfit" or "underfit" where that share is .5 or more (the larger one), "fit" elsewhere.
    kernel_error_ : float
        Root mean squared error of the similarity of held-out rows that features have, see
        `GradientFeaturizer`; 0 without ``n_components``.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    LabelDenoiser : Labels as their neighbours have them.

    Notes
    -----
    A network that cannot tell inputs apart whose labels differ (too small, or without the feature
    that matters) takes the difference for noise, and so does this. Compare the share of noise in
    `summary` between networks: the same labels hold the same noise, so what exceeds the least is
    what a network is blind to.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] A. Stefansson, N. Koncar, A. J. Jones, "A note on the Gamma test", Neural Computing &
       Applications 5, 1997: noise as the variance left at distance 0.

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
        """Look at labels and predictions around each row; train the network where it is not.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows that the network was trained on.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            The labels that it was trained on: numbers, or classes, numbered as in its training.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        X, source = self._fit_network(X, y)
        task = infer_target(source, X, y)
        labels = task.values(y)
        predictions = task.predictions(source, X)
        self._fit_projection(source, X)
        self._measure(self._neighborhoods(source, X, len(labels)), labels, predictions)
        return self

    def _neighborhoods(self, source: Source, X: Any, samples: int) -> Neighborhoods:
        """The nearest others of each row."""
        if samples < 3:
            raise ValueError(
                f"X has n_samples={samples}; allowed are 3 or more, for neighbours to differ."
            )
        source, rows = self._project(source, X)
        distance = DISTANCES["cosine"]
        count = min(self.n_neighbors, samples - 1)
        kind = Nearest
        found = find_nearest(source, rows, None, kind, count, distance, self.verbose)
        return Neighborhoods(found.indices, 2 * found.distances)

    def _measure(self, around: Neighborhoods, labels: np.ndarray, predictions: np.ndarray) -> None:
        self.label_mean_ = around.mean(labels)
        self.label_variance_ = around.variance(labels)
        self.label_noise_ = around.noise(labels)
        self.prediction_mean_ = around.mean(predictions)
        self.prediction_variance_ = around.variance(predictions)
        self.prediction_noise_ = around.noise(predictions)
        self._variance = float(labels.var(axis=0).sum())
        least = _LEAST * self._variance
        self._common, squares = around.shared(labels - predictions)
        self._squares = np.maximum(squares, least)
        self._followed = np.maximum(self.label_noise_, least)
        self.overfit_ = _share(self.prediction_noise_, self._followed)
        self.underfit_ = _share(self._common, self._squares)
        self.region_ = np.where(self.overfit_ >= self.underfit_, "overfit", "underfit")
        self.region_[np.maximum(self.overfit_, self.underfit_) < _REGION] = "fit"

    def summary(self) -> dict[str, float]:
        """The whole data set in a few shares.

        Returns
        -------
        summary : dict of str to float
            "noise": share of the labels' variance that neighbours do not explain, at least 0;
            "overfit" and "underfit": the attributes of these names for all samples together, in
            [0, 1]; "overfit region" and "underfit region": shares of the samples in these.
        """
        check_is_fitted(self, "region_")
        parts = {
            "noise": (self.label_noise_, self._variance),
            "overfit": (self.prediction_noise_, self._followed),
            "underfit": (self._common, self._squares),
        }
        shares = {name: float(_share(*map(np.mean, pair))) for name, pair in parts.items()}
        regions = ("overfit", "underfit")
        return shares | {f"{name} region": float((self.region_ == name).mean()) for name in regions}


def _share(part: Any, whole: Any) -> Any:
    """In [0, 1]; 0 of nothing."""
    part, whole = np.asarray(part), np.asarray(whole)
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0).clip(0, 1)
