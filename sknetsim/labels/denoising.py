"""Labels as their neighbours have them: how much of their noise a network averages out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from ..estimators._base import fit_context
from ._label_means import BaseLabelMeans


@dataclass(frozen=True, eq=False)
class Denoising:
    """What a network makes of labels around each of n rows.

    Parameters
    ----------
    labels : ndarray of shape (n, q), float64
        Weighted means of the fitted labels; of classes, of their indicators.
    predictions : ndarray of shape (n, q), float64
        Weighted means of the network's predictions for the fitted rows.
    shift : ndarray of shape (n, q), float64
        The network's prediction for a row, less the mean of predictions around it.
    variance_factor : ndarray of shape (n,), float64
        Share of the variance of the labels' noise that a mean keeps: 1/N where N rows count alike,
        1 where a row counts alone; more where weights of both signs amplify noise.

    See Also
    --------
    LabelDenoiser : Which gives it.
    """

    labels: np.ndarray
    predictions: np.ndarray
    shift: np.ndarray
    variance_factor: np.ndarray

    @property
    def deviation_factor(self) -> np.ndarray:
        """Share of the noise's standard deviation that a mean keeps, of shape (n,)."""
        return np.sqrt(self.variance_factor)


class LabelDenoiser(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseLabelMeans):
    r"""Means of noisy labels around each sample, as a trained network weighs its neighbours.

    Around a sample x the fitted samples :math:`x_j` have weights that sum to 1, and

    .. math:: E_k[a](x) = \Big( \sum_j W_j \Big)^{-1} \sum_j W_j a_j

    is the mean of what they are labelled, or predicted, to be. W_j is, by ``method``,

    - "power": :math:`\max(k^C(x, x_j), 0)^\alpha`, or "threshold": :math:`1[k^C(x, x_j) \ge \tau]`:
      the labels of close neighbours, which predict best and find wrong labels;
    - "unnormalized": :math:`K(x, x_j)` itself, a matrix over the d outputs. Where training has
      come to a stationary point of the squared error, or of the cross-entropy,
      :math:`E_k[\hat y] = E_k[\tilde y]` for predictions and labels: the network's answers are, on
      the mean, those of labels whose noise has shrunk by the factors that `denoising` gives.
      One pass over the samples, in time linear in their number;
    - "soft": :math:`k^C(x, x_j)`, in linear time too.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, trained on the labels in question; see `NetworkKernel`. Classes have skorch
        classifiers, and other networks of several outputs where labels are classes, numbered as
        the outputs or sorted by their names; all else is regression. The perceptron of None takes
        whole numbers for classes, but for those in a column.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`. With anything but "all", or rows of
        features, "unnormalized" weighs by the trace of K(x, x_j).
    method : {"power", "threshold", "soft", "unnormalized"}, default="power"
        The weights.
    threshold : float in [0, 1), default=0.9
        The threshold tau of method "threshold".
    alpha : float > 0, default=16.0
        The exponent of method "power".
    n_components : int or None, default=None
        None: similarities are exact. An integer: they are products of so many features, see
        `NetworkDensity`; "unnormalized" is exact whatever this is.
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
    stationarity_ : float or None
        For "unnormalized" with all outputs: length of the sum of the samples' loss gradients,
        against the root of the sum of their squared lengths. 0 at a stationary point, 1 if they
        pointed anywhere, the root of the number of samples if all pointed one way. The means of
        labels and of predictions differ by about so many times the noise that is left.
    kernel_error_ : float
        Root mean squared error of the similarity of held-out rows that features have, see
        `GradientFeaturizer`; 0 without ``n_components``.
    n_samples_fit_ : int
        Number of fitted rows.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    FitDiagnostics : Where a network follows the noise, and where it misses what labels say.

    Notes
    -----
    Logits are compared without what they all share, which no softmax sees, where weights are
    matrices. A sample without any neighbour, or whose weights sum to nothing up to rounding, gets
    the mean of all fitted labels; a warning counts such samples.

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
        """Take the labels; train the network where it is not.

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

        Warns
        -----
        ConvergenceWarning
            Where weights are "unnormalized" and ``stationarity_`` exceeds 1.
        """
        self._fit_weights(X, y)
        self._n_features_out = len(self._task.basis[0])
        self.stationarity_ = self._measured_stationarity()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Mean of the fitted labels around each row, its own among them where it was fitted.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_queries, n_columns), float64
            In the unit of the labels. For classes, one column each: the share of the class, between
            0 and 1 but for methods with weights of both signs; rows sum to 1.
        """
        source, rows = self._queries(X)
        return self._means(*self._sums(source, rows))[0]

    def predict(self, X: Any) -> np.ndarray:
        """Denoised label of each row: the mean around it, or the class with the largest share.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_queries,) or (n_queries, n_columns)
            Numbers, or classes, with as many axes as the labels in `fit`.
        """
        labels = self.transform(X)
        return self._task.labels(labels)

    def denoising(self, X: Any = None) -> Denoising:
        """What the network makes of labels and predictions around each row, by all pairs.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...), default=None
            The rows; None: the fitted ones.

        Returns
        -------
        denoising : Denoising
            Means of labels and predictions, the factors by which noise shrinks, and the shift.
        """
        source, rows = self._queries(X)
        sums, lost = self._sums(source, rows, squared=True)
        labels, predictions = self._means(sums, lost)
        kept = sums.noise_kept(lost, 1 / self.n_samples_fit_)
        own = self._predictions(X)
        return Denoising(labels, predictions, own - predictions, kept.numpy())

    def score(self, X: Any, y: Any) -> float:
        """How well the others predict the labels: R^2, or accuracy for classes.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows. A fitted row with the same bytes is left out of its own mean.
        y : array-like of shape (n_queries,) or (n_queries, n_columns)
            Their labels.

        Returns
        -------
        score : float
            At most 1; R^2 is 0 for the mean of y and negative below it.
        """
        return self._task.score(y, self.leave_one_out(X, y))

    def label_quality(self, X: Any, y: Any) -> np.ndarray:
        r"""How far each label agrees with those of the other samples around it.

        For classes the share of the label's class among the others (cut off at 0 and 1); for
        numbers :math:`1 / (1 + r^2)`, r the difference from the others' mean in standard
        deviations of the fitted labels (for several columns, the root of the mean square).

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows. A fitted row with the same bytes is left out of its own mean.
        y : array-like of shape (n_queries,) or (n_queries, n_columns)
            Their labels.

        Returns
        -------
        quality : ndarray of shape (n_queries,), float64
            In [0, 1], as cleanlab has it: 1 where the others agree, low where a label is
            suspicious.
        """
        return self._agreement(X, y).clip(0, 1)

    def label_issues(self, X: Any, y: Any) -> np.ndarray:
        """All rows, the most suspicious label first.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The rows. A fitted row with the same bytes is left out of its own mean.
        y : array-like of shape (n_queries,) or (n_queries, n_columns)
            Their labels.

        Returns
        -------
        indices : ndarray of shape (n_queries,), int64
            By ascending `label_quality`; shares beyond 0 and 1 are not cut off for this.
        """
        return np.argsort(self._agreement(X, y), kind="stable")

    def _agreement(self, X: Any, y: Any) -> np.ndarray:
        others = self.leave_one_out(X, y)
        return self._task.agreement(y, others)
