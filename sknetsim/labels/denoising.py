"""Denoising of labels: means over similar samples, and the noise that remains in them."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import Tensor

from .._kernels.similarities import COUNTS, make_count
from .._networks.network import resolve_network
from .._networks.samples import Samples
from .._passes.chunks import Source
from .._passes.weighted_means import LINEAR, METHODS, WeightedSums
from ..estimators._base import Interval, StrOptions, check_is_fitted, fit_context
from ..estimators._base_reference import BaseLabelledReference
from ..exceptions import NoNeighborsWarning, warn
from ._label_arrays import check_labels
from ._label_weights import LabelWeights, compute_values
from ._problems import infer_target
from ._targets import Target, require_network


@dataclass(frozen=True, eq=False)
class Denoising:
    r"""Smoothed labels and predictions of n samples, and the label noise that remains in them.

    With weights :math:`A_j = (\sum_l W_l)^{-1} W_j` of the fitted samples (see `LabelDenoiser`),
    the mean of labels with independent noise of variance :math:`\sigma^2` has a noise of variance
    :math:`\sigma^2 \operatorname{tr} \sum_j A_j A_j^T / d`, averaged over the d coordinates of
    the weights (1 if they are numbers).

    Parameters
    ----------
    labels : ndarray of shape (n, q), float64
        Weighted means of the fitted labels, in their unit. For classes: one column per class, with
        the share of its labels. For several labels per sample: one column per label, with the share
        of the samples that have it.
    predictions : ndarray of shape (n, q), float64
        Weighted means of the network's predictions for the fitted samples, in the same unit:
        numbers, or probabilities of classes or labels.
    shift : ndarray of shape (n, q), float64
        The network's prediction for the sample, minus ``predictions``.
    variance_factor : ndarray of shape (n,), float64
        Share of the variance of the label noise that remains in the mean, at least 0: 1/N if N
        samples have equal weight, and 1 if a single sample has all the weight. It exceeds 1 if
        weights of both signs amplify the noise.

    See Also
    --------
    LabelDenoiser : Estimator whose method ``denoising`` returns this.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import LabelDenoiser
    >>> X = np.repeat([[0.0], [1.0]], 25, axis=0)
    >>> y = np.random.default_rng(0).normal(size=50)
    >>> denoiser = LabelDenoiser(method="threshold", threshold=0.9999, random_state=0).fit(X, y)
    >>> denoising = denoiser.denoising(X[:1])  # one of 25 equal samples
    >>> denoising.variance_factor.round(3), denoising.deviation_factor.round(3)
    (array([0.04]), array([0.2]))
    """

    labels: np.ndarray
    predictions: np.ndarray
    shift: np.ndarray
    variance_factor: np.ndarray

    @property
    def deviation_factor(self) -> np.ndarray:
        """Share of the noise's standard deviation that remains in the mean, of shape (n,)."""
        return np.sqrt(self.variance_factor)


class LabelDenoiser(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseLabelledReference):
    r"""Smoothing of noisy labels over the samples that a trained network considers similar.

    The fitted samples :math:`x_j` have weights around a sample x, and

    .. math:: E_k[a](x) = \Big( \sum_j W_j \Big)^{-1} \sum_j W_j a_j

    is the weighted mean of their labels or predictions :math:`a_j` [1]_. The ``method`` chooses
    :math:`W_j`:

    - "power": :math:`\max(k^C(x, x_j), 0)^\alpha`, or "threshold": :math:`1[k^C(x, x_j) \ge \tau]`.
      Only near neighbours count. Use these to predict, and to find wrong labels.
    - "unnormalized": :math:`K(x, x_j) = J(x) J(x_j)^T`, a matrix over the d outputs. If training
      has reached a stationary point of the squared error or of a cross-entropy,
      :math:`E_k[\hat y] = E_k[\tilde y]` for predictions :math:`\hat y` and labels
      :math:`\tilde y`: the mean of the predictions equals the mean of the labels, whose noise has
      shrunk by the factors that `denoising` returns. The means take time linear in the number of
      samples: one pass over the fitted samples and one over the queries.
    - "soft": :math:`k^C(x, x_j)`, also in linear time.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, trained on these labels; see `NetworkKernel`. The criterion of a skorch net
        decides what the labels are, see Notes. A module has no criterion: its labels are classes if
        it has several outputs and the labels are whole numbers, which are the indices of the
        outputs; other labels are numbers. With None and "features", names and whole numbers are
        classes, unless they are in a column; with "features", several columns of 0 and 1 are
        several labels per sample. Other networks take no names, because the order of
        their outputs is known for numbers only.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. "loss" is the loss at the
        predicted label, because the given labels are what is judged. For other values than "all",
        and for ``estimator="features"``, "unnormalized" uses the trace of K(x, x_j).
    method : {"power", "threshold", "soft", "unnormalized"}, default="power"
        The weights.
    threshold : float in [0, 1), default=0.9
        The threshold tau of method "threshold".
    alpha : float > 0, default=16.0
        The exponent of method "power".
    n_components : int or None, default=None
        Number of Nyström features, made from landmarks among the fitted samples (see
        `GradientFeaturizer`). Similarities are then inner products of features that are computed
        once per sample: less exact, and much faster for many samples. None: exact similarities.
        "unnormalized" is always exact.
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
    stationarity_ : float or None
        Distance from a stationary point of the loss, for "unnormalized" with all outputs; otherwise
        None. It is :math:`\| \sum_j g_j \| / \sqrt{\sum_j \| g_j \|^2}` with the loss gradients
        :math:`g_j` of the m samples, between 0 and :math:`\sqrt m`: 0 at a stationary point, about
        1 if the gradients have random directions, and :math:`\sqrt m` if they are all equal. The
        means of labels and of predictions differ by about this number times the remaining noise.
    kernel_error_ : float
        Root mean squared error of the similarities that features give, on held-out samples (see
        `GradientFeaturizer`); 0 without ``n_components``.
    n_samples_fit_ : int
        Number of fitted samples.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    FitDiagnostics : Samples at which a network overfits or underfits noisy labels.

    Notes
    -----
    If the network is trained further after `fit`, "power" and "threshold" use its new gradients.
    "soft", "unnormalized", ``n_components`` and `denoising` need sums, features or predictions from
    `fit` and raise a `ChangedNetworkError`; call `fit` again.

    ``threshold`` and ``alpha`` can be changed after `fit`, as can ``method`` to "power" or
    "threshold".

    The criterion of a skorch net decides what labels and predictions are:

    - Classes, for a cross-entropy (``CrossEntropyLoss``, ``NLLLoss``, ``MultiMarginLoss``) and for
      other criteria of a classifier. Predictions are probabilities: the softmax of the logits.
    - Several independent labels, each of them 0 or 1, for a binary cross-entropy (``BCELoss``,
      ``BCEWithLogitsLoss``, ``MultiLabelSoftMarginLoss``) with several outputs. Predictions are the
      probabilities of the labels: the sigmoids of the logits. A single output is a classification
      into two classes, 0 and 1. Labels between 0 and 1 are numbers, which are compared with the
      probabilities.
    - Numbers, for all other criteria. Predictions are the outputs, or their exponentials for
      ``PoissonNLLLoss`` and ``KLDivLoss``, whose outputs are logarithms.

    If weights are matrices, the logits of classes are compared without their common part, which
    does not change a softmax.

    A sample without any similar sample, or whose weights sum to zero up to rounding, gets the mean
    of all fitted labels; a `NoNeighborsWarning` reports the number of these samples.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] J. Lehtinen et al., "Noise2Noise: Learning Image Restoration without Clean Data", ICML
       2018.
    .. [3] C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
       Labels", JAIR 70, 2021: the convention of label quality.

    Examples
    --------
    >>> import numpy as np
    >>> from sknetsim import LabelDenoiser
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-2, 2, (200, 1))
    >>> clean = np.sin(2 * X[:, 0])
    >>> y = clean + rng.normal(scale=0.3, size=200)
    >>> denoiser = LabelDenoiser(alpha=64, random_state=0).fit(X, y)
    >>> bool(np.std(denoiser.predict(X) - clean) < 0.5 * np.std(y - clean))
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseLabelledReference._parameter_constraints,
        "method": [StrOptions(set(METHODS))],
        "threshold": [Interval(numbers.Real, 0, 1, closed="left")],
        "alpha": [Interval(numbers.Real, 0, None, closed="neither")],
    }

    _target: Target
    _label_weights: LabelWeights

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        method: str = "power",
        threshold: float = 0.9,
        alpha: float = 16.0,
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
        self.n_components = n_components
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any) -> LabelDenoiser:
        """Train the network if it is untrained, and store the samples with their labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples that the network was trained on.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            The labels that it was trained on: numbers, or classes numbered as in its training.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the labels are missing, not finite, names that the network does not take, all of one
            class, or do not fit the outputs or the criterion of the network.
        UnsupportedNetworkError
            If a prediction for a sample is NaN or infinite.

        Warns
        -----
        ConvergenceWarning
            If ``stationarity_`` exceeds 1.
        UserWarning
            If the labels are 0 and 1, and are treated as numbers because the network has no known
            criterion, although its outputs may be logits.
        """
        # `_choose_output` must not see the target of an earlier fit.
        self.__dict__.pop("_target", None)
        y = None if y is None else check_labels(y)
        samples, source = self._fit_network(X, y)
        self._target = infer_target(source, samples, y)
        self._dtype = source.dtype
        digests = source.digest(samples, self._dtype)
        label_keys = self._target.label_keys(y)
        self.n_samples_fit_ = len(digests)
        self._n_features_out = len(self._target.basis[0])
        self._fit_projection(source, samples)
        values = compute_values(self._target, source, samples, y)
        if self._uses_matrices():
            source = self._make_source()
        source, samples = self._project(source, samples)
        weights = LabelWeights(self._target, samples, digests, label_keys, values)
        if self.method in LINEAR:
            whitening, matrices = LINEAR[self.method], self._uses_matrices()
            weights = weights.with_linear(source, whitening, matrices, self.verbose)
        self._label_weights = weights
        self._fitted_settings = self.method, self.output
        self.stationarity_ = self._measure_stationarity()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean of the fitted labels around each query.

        A fitted sample's own label contributes to its mean.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.

        Returns
        -------
        labels : ndarray of shape (n_queries, n_columns), float64
            Means in the unit of the labels. For classes: one column per class, with the share of
            its labels. Shares sum to 1; they are in [0, 1] for "power" and "threshold", and can
            leave that range for "soft" and "unnormalized", whose weights have both signs. For
            several labels per sample: one column per label, with its share; these shares have the
            same range, but do not sum to 1.
        """
        queries = self._check_queries(X)
        sums, singular = self._sum_around(self._make_source(), queries)
        return self._choose_weights().means(sums, singular)[0]

    def predict(self, X: Any) -> np.ndarray:
        """Predict the label of each query from the mean of the fitted labels around it.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.

        Returns
        -------
        y : ndarray of shape (n_queries,) or (n_queries, n_columns)
            For numbers: the means, with as many axes as the labels in `fit`. For classes: the class
            with the largest share, of shape (n_queries,). For several labels per sample: 1 for each
            label whose share exceeds 1/2, and otherwise 0, int64, of shape (n_queries, n_columns),
            like the predictions of scikit-learn's multilabel classifiers.
        """
        labels = self.transform(X)
        return self._target.labels(labels)

    def denoising(self, X: Any = None) -> Denoising:
        """Return the smoothed labels and predictions, and the share of the noise that remains.

        This computes all pairs of queries and fitted samples.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The queries. None: the fitted samples.

        Returns
        -------
        denoising : Denoising
            Means of labels and predictions, noise factors, and shift.

        Raises
        ------
        ValueError
            If ``estimator`` is "features", because features have no predictions.
        ChangedNetworkError
            If the network has changed since `fit`, which computed the predictions for the fitted
            samples.
        """
        queries = self._check_queries(X)
        source = self._make_source()
        network, weights = require_network(source), self._choose_weights()
        # The predictions for the fitted samples were computed in `fit`.
        self._check_unchanged(source)
        sums, singular = self._sum_around(source, queries, squared=True)
        labels, means = weights.means(sums, singular)
        kept = sums.noise_kept(singular, 1 / self.n_samples_fit_)
        if queries is None:
            predictions = weights.predictions
        else:
            predictions = self._target.predictions(network, queries)
        # shift(x) = y^(x) - E_k[y^](x)
        return Denoising(labels, means, predictions - means, kept.numpy())

    def leave_one_out(self, X: Any, y: Any = None) -> np.ndarray:
        """Return the mean of the labels around each query, without the query's own label.

        For classes or several labels, and with weights that are not negative, these are
        out-of-sample probabilities. cleanlab's Datalab accepts those of classes as ``pred_probs``.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted sample with the same bytes as a query is left out of the mean
            around that query.
        y : array-like of shape (n_queries,) or (n_queries, n_columns), default=None
            Labels of the queries. Among several fitted samples with the same bytes, the one with
            the label of the query is left out. None: they are left out in the order of `fit`.

        Returns
        -------
        labels : ndarray of shape (n_queries, n_columns), float64
            Means in the unit of the labels, or shares of classes or labels, see `transform`. A
            query without other similar samples gets the mean of all other labels.
        """
        check_is_fitted(self, "n_samples_fit_")
        queries, source = self._check_X(X, reset=False), self._make_source()
        own = self._label_weights.match(source.digest(queries, self._dtype), y)
        sums, singular = self._sum_around(source, queries, own)
        return self._choose_weights().means_of_others(sums, singular, own)

    def score(self, X: Any, y: Any) -> float:
        """Return R^2, or the accuracy for classes, of the means over other samples.

        For several labels per sample, this is scikit-learn's subset accuracy: the share of the
        queries for which all labels are right.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted sample with the same bytes as a query is left out of the mean
            around that query.
        y : array-like of shape (n_queries,) or (n_queries, n_columns)
            Their labels.

        Returns
        -------
        score : float
            At most 1. An R^2 of 0 is as good as the mean of y; worse means have a negative R^2.
        """
        return self._target.score(y, self.leave_one_out(X, y))

    def label_quality(self, X: Any, y: Any) -> np.ndarray:
        r"""Return how well each label agrees with the labels of other samples around it.

        For classes, this is the share of the label's class among the others, clipped to [0, 1]. For
        several labels per sample, each label has the share of the others with the same value, 0 or
        1, and the quality is the smallest of these shares: one wrong label gives a low quality. For
        numbers, it is :math:`1 / (1 + r^2)`, where r is the difference from the mean of the others
        in standard deviations of the fitted labels (for several columns, the root mean square).

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted sample with the same bytes as a query is left out of the mean
            around that query.
        y : array-like of shape (n_queries,) or (n_queries, n_columns)
            Their labels.

        Returns
        -------
        quality : ndarray of shape (n_queries,), float64
            In [0, 1], as in cleanlab: 1 if the others agree, and low if the label is suspicious.
        """
        return self._agreement(X, y).clip(0, 1)

    def label_issues(self, X: Any, y: Any) -> np.ndarray:
        """Rank all queries, with the most suspicious label first.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries. A fitted sample with the same bytes as a query is left out of the mean
            around that query.
        y : array-like of shape (n_queries,) or (n_queries, n_columns)
            Their labels.

        Returns
        -------
        indices : ndarray of shape (n_queries,), int64
            Positions in X, by ascending `label_quality`; shares outside [0, 1] are not clipped for
            the ranking.
        """
        return np.argsort(self._agreement(X, y), kind="stable")

    def _agreement(self, X: Any, y: Any) -> np.ndarray:
        """Return how well each label agrees with the mean of the others, of shape (n_queries,)."""
        others = self.leave_one_out(X, y)
        return self._target.agreement(y, others)

    def _check_queries(self, X: Any) -> Samples | None:
        """Return the samples of X after validation, or None for the fitted samples."""
        check_is_fitted(self, "n_samples_fit_")
        return None if X is None else self._check_X(X, reset=False)

    def _fit_projection(self, source: Source, X: Samples) -> None:
        """Draw the landmarks, but not for "unnormalized".

        Features are normalised, so they do not give the unnormalised kernel.
        """
        if self.method != "unnormalized":
            return super()._fit_projection(source, X)
        self._projection, self.kernel_error_ = None, 0.0

    def _uses_matrices(self) -> bool:
        """Return whether the weights are K(x, x_j), as in the loss, instead of numbers."""
        return (
            self.method == "unnormalized"
            and not isinstance(self.estimator_, str)
            and isinstance(self.output, str)
            and self.output == "all"
        )

    def _choose_output(self) -> Any:
        """Return ``output``; if weights are matrices, the output whose gradients the loss sums."""
        if hasattr(self, "_target") and self._uses_matrices():
            return self._target.compared_output(resolve_network(self.estimator_))
        return self.output

    def _choose_weights(self) -> LabelWeights:
        """Return the weights with the current method, threshold and alpha."""
        if self.method not in LINEAR:
            count = make_count(self.method, self.threshold, self.alpha)
            return self._label_weights.with_count(count)
        if (self.method, self.output) != self._fitted_settings:
            method, output = self._fitted_settings
            raise NotFittedError(
                f"`method` and `output` must be {method!r} and {output!r}, as in fit; got"
                f" {self.method!r} and {self.output!r}. Call fit again. Without it, you can change"
                f" `threshold` and `alpha`, and set `method` to {' or '.join(map(repr, COUNTS))}."
            )
        return self._label_weights

    def _sum_around(
        self,
        source: Source,
        queries: Samples | None,
        own: np.ndarray | None = None,
        squared: bool = False,
    ) -> tuple[WeightedSums, Tensor]:
        """Return the weighted sums around the queries, and which of the sums are singular.

        The queries None are the fitted samples. A warning reports the number of singular sums.
        """
        weights = self._choose_weights()
        if self.method in LINEAR and self._projection is None:
            # With features, `_project` checks the network.
            self._check_unchanged(source)
        if queries is None:
            source, queries = self._make_fitted_source(source), self._label_weights.samples
        else:
            source, queries = self._project(source, queries)
        sums = weights.sums(source, queries, own, squared, self.verbose)
        singular = sums.is_singular(torch.finfo(source.dtype).eps)
        if singular.any():
            self._warn_of_singular(int(singular.sum()), len(singular))
        return sums, singular

    def _warn_of_singular(self, count: int, total: int) -> None:
        """Warn that the weights of some queries cannot be normalised."""
        parameter = COUNTS.get(self.method)
        cure = (
            "Use method='power', whose weights do not cancel."
            if parameter is None
            else f"Set a lower `{parameter}` to include less similar samples."
        )
        warn(
            f"{count} of {total} samples have no similar sample, or weights that sum to zero. Their"
            f" label is the mean of all labels. {cure}",
            NoNeighborsWarning,
        )

    def _measure_stationarity(self) -> float | None:
        """Return ``stationarity_``, and warn if it exceeds 1."""
        linear = self._label_weights.linear
        if linear is None or not self._uses_matrices():
            return None
        # The residual z^_j - z~_j is the last value of each fitted sample, so the weighted sum of
        # the Jacobians is sum_j J_j^T (z^_j - z~_j), the gradient of the loss.
        stationarity = linear.alignment(-1)
        if stationarity > 1:
            warn(
                "The network is not at a stationary point of its loss: the sum of the samples'"
                f" gradients is {stationarity:.3g} times as long as for gradients of random"
                " directions. The means of labels and of predictions then differ by more than the"
                " remaining noise. Train the network longer, without weight decay or early"
                " stopping.",
                ConvergenceWarning,
            )
        return stationarity
