"""Active learning: the choice of the samples to label next."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.metaestimators import available_if

from .._features.exact import Exact
from .._features.projection import Projection, compute_features
from .._features.sketch import TensorSketch
from .._gradients.criterion import predicts_classes
from .._gradients.engine import GradientEngine
from .._gradients.outputs import SelectedOutput, check_output
from .._gradients.predictions import predict_distributions
from .._kernels.similarities import COUNTS
from .._networks.fingerprint import fingerprint_value
from .._networks.network import FEATURES, resolve_network
from .._networks.samples import Samples
from .._passes.chunks import Source
from ..estimators._base import (
    BaseSimilarity,
    Interval,
    StrOptions,
    check_is_fitted,
    fit_context,
)
from ..exceptions import describe_integers
from ._missing import check_no_missing
from .strategies import STRATEGIES, Selection, Setting, select_greedily


def check_pool_independent(sampler: ActiveLearningSampler) -> bool:
    """Return whether `score_samples` is available; otherwise raise an error with the reason."""
    names = [name for name, strategy in STRATEGIES.items() if strategy.pool_independent]
    if sampler.strategy not in names:
        raise AttributeError(
            f"`strategy` must be one of {', '.join(map(repr, names))} for score_samples; got"
            f" {sampler.strategy!r}, which defines no utility of a sample on its own. Use another"
            " strategy, or call query(..., return_utilities=True)."
        )
    return True


class ActiveLearningSampler(BaseSimilarity):
    r"""Choice of the samples of a pool to label next, from the gradients of a trained network.

    Each strategy chooses one sample after the other, each time the one with the largest utility
    u(x). Let f(x) be the gradient of the outputs with respect to the parameters, as m features,
    :math:`k(x, x') = f(x) \cdot f(x')`, and Z the samples that are labelled or already chosen. The
    utility is, by ``strategy``,

    - "maxdet": the posterior variance of a Gaussian process with the kernel k,
      :math:`u(x) = k(x, x) - K(x, Z) (K(Z, Z) + s I)^{-1} K(Z, x)`. This choice increases the
      determinant of K(Z, Z) + s I the most [2]_. s is 1e-6 times the mean of k(x, x) over the
      labelled samples.
    - "kcenter": the squared distance to the nearest sample of Z,
      :math:`u(x) = \min_{z \in Z} \| f(x) - f(z) \|^2` (core-set) [3]_;
    - "lcmd": the same, but only in the largest cluster. A cluster is the samples with the same
      nearest sample in Z, and its size is the sum of their squared distances [2]_.
    - "bait": the decrease of the mean posterior variance of the pool, in forward steps [4]_;
    - "frank-wolfe": how well the sample completes a weighted sum of chosen gradients that is to
      equal the sum over the pool, in the metric of the posterior covariance [5]_;
    - "badge": the squared length of the gradient of the loss at the predicted class, or the squared
      distance to the nearest chosen sample if that is smaller. Samples are drawn in proportion to
      it, like the centres of k-means++, and are therefore uncertain and diverse [6]_. For
      independent labels, it is the loss at all predicted labels;
    - "coverage": the number of pool samples with a similarity :math:`k^C` of at least
      ``threshold``, without those similar to a sample of Z (ProbCover) [7]_;
    - "typicality": 1 / (mean distance to the 20 nearest neighbours by :math:`k^C`), in the largest
      of the clusters with the fewest labels (TypiClust) [8]_;
    - "density": the number of samples in Z that are similar to x by :math:`k^C`, times -1, counted
      by ``method`` as in `NetworkDensity` [1]_;
    - "reliability": :math:`u(x) = - \sum_{z \in Z} k(x, z) / k(x, x)`, how little Z supports the
      prediction, see `NetworkDensity.reliability` [1]_;
    - "margin": the difference of the two largest probabilities, times -1. For independent labels
      with the probabilities :math:`p_l`, it is :math:`u(x) = - \min_l |2 p_l - 1|` [10]_;
    - "entropy": the entropy of the probabilities, or for independent labels the sum of the labels'
      entropies [9]_;
    - "random": a random number, for which the network is not evaluated.

    All strategies except "margin", "entropy" and "random" update the utilities after each choice,
    and therefore choose few nearly equal samples. "badge", "margin" and "entropy" need a skorch net
    that predicts classes or independent labels. The net has independent labels if its criterion is
    BCEWithLogitsLoss, BCELoss or MultiLabelSoftMarginLoss; a single output is then one label.
    Probabilities are the softmax of the logits, or for independent labels the sigmoid of each
    logit, with any criterion; a ``predict_nonlinearity`` of the net is not used.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network; see `NetworkKernel`. It may be trained further between queries: `query` uses
        the weights that it has at that time.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. "loss" is the loss at the
        predicted label, because a pool has no labels; "badge" always compares it. If the network
        returns several tensors, a callable selects the one that "badge", "margin" and "entropy"
        use.
    strategy : str, default="lcmd"
        Query strategy, one of the above. The user guide compares them on several datasets; the
        default was never worse than random selection there.
    n_components : int or None, default=512
        Number m of features that longer gradients are sketched to (see `GradientFeaturizer`). None
        keeps the full gradients. The rows of ``estimator="features"`` are never sketched.
    method : {"soft", "threshold", "power"}, default="soft"
        How "density" counts similar samples; see `NetworkDensity`.
    threshold : "auto" or float in [0, 1), default="auto"
        Least similarity of similar samples, for "coverage", and for "density" with method
        "threshold". "auto" is a quantile of the similarities of pairs. For "coverage", the samples
        similar to each labelled sample and to each sample to be chosen are then, in total, as many
        as the pool has. For "density", each labelled sample is similar to one other on average.
    alpha : float > 0, default=2.0
        Exponent of "density" with the method "power".
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
        Seed of the sketch, of random choices, and of the perceptron that ``estimator=None`` trains.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        Class, size and digest of the network, and the versions of sknetsim and other packages.
    n_labelled_ : int
        Number of labelled samples.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    NetworkDensity : Exact counts of similar samples, and reliability.
    active_learning_curve : Loop of training, querying and labelling.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, "A framework and benchmark for deep
       batch active learning for regression", JMLR 24, 2023.
    .. [3] O. Sener, S. Savarese, "Active learning for convolutional neural networks: a core-set
       approach", ICLR 2018.
    .. [4] J. Ash, S. Goel, A. Krishnamurthy, S. Kakade, "Gone fishing: neural active learning with
       Fisher embeddings", NeurIPS 2021.
    .. [5] R. Pinsler, J. Gordon, E. Nalisnick, J. Hernández-Lobato, "Bayesian batch active learning
       as sparse subset approximation", NeurIPS 2019.
    .. [6] J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, "Deep batch active learning
       by diverse, uncertain gradient lower bounds", ICLR 2020.
    .. [7] O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active learning through a covering lens",
       NeurIPS 2022.
    .. [8] G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies
       suit high and low budgets", ICML 2022.
    .. [9] B. Settles, "Active learning literature survey", University of Wisconsin-Madison, 2009.
    .. [10] K. Brinker, "On active learning in multi-label classification", in: From Data and
       Information Analysis to Knowledge Engineering, Springer, 2006.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import ActiveLearningSampler
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X_labelled = torch.tensor([[0.0, 1.0], [0.1, 1.0]])
    >>> X_pool = torch.tensor([[0.05, 1.0], [-1.0, 0.0], [-1.0, 0.1], [0.0, 0.9]])
    >>> sampler = ActiveLearningSampler(network, strategy="kcenter").fit(X_labelled)
    >>> sampler.query(X_pool, n_queries=2).shape
    (2,)
    """

    # A pool has no labels.
    _uses_labels = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "strategy": [StrOptions(set(STRATEGIES))],
        "n_components": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "method": [StrOptions({"soft", *COUNTS})],
        "threshold": [StrOptions({"auto"}), Interval(numbers.Real, 0, 1, closed="left")],
        "alpha": [Interval(numbers.Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        strategy: str = "lcmd",
        n_components: int | None = 512,
        method: str = "soft",
        threshold: float | str = "auto",
        alpha: float = 2.0,
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
        self.strategy = strategy
        self.n_components = n_components
        self.method = method
        self.threshold = threshold
        self.alpha = alpha
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any = None) -> ActiveLearningSampler:
        """Train the network if it is untrained, and store the labelled samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            All labelled samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, to train an untrained network. They may be of any type if the network is
            trained, but none may be missing (NaN or None).

        Returns
        -------
        self : object
            The fitted sampler.

        Raises
        ------
        ValueError
            If the strategy needs a network that predicts classes, and ``estimator`` contains none;
            if the strategy is "badge" and the criterion returns no loss for each sample; or if a
            label is missing.
        UnsupportedNetworkError
            If the outputs of the network are NaN or infinite, or are no probabilities although its
            criterion takes probabilities.
        """
        check_no_missing(y)
        self._X, _ = self._fit_network(X, y)
        self.n_labelled_ = len(self._X)
        # Another sketch invalidates the features of an earlier fit.
        self._seed = int(check_random_state(self.random_state).randint(2**31))
        self._labelled_features: dict[str, np.ndarray] = {}
        return self

    @fit_context
    def partial_fit(self, X: Any, y: Any = None) -> ActiveLearningSampler:
        """Add labelled samples, without training the network again.

        Features of earlier samples are not computed again, unless the network has changed.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The newly labelled samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, none of them missing (NaN or None). They are used only if the sampler is not
            fitted and its network is untrained.

        Returns
        -------
        self : object
            The sampler.

        Raises
        ------
        ValueError
            If a label is missing, or if there is not one label for each sample.
        """
        if not hasattr(self, "n_labelled_"):
            return self.fit(X, y)
        check_no_missing(y)
        samples = self._check_X(X, reset=False)
        if y is not None:
            check_consistent_length(np.empty(len(samples)), y)
        bad = samples.find_non_finite()
        if bad is not None:
            # Only some networks take NaN. Later errors would name a row of all labelled samples.
            self._try_network(self._make_source(), samples.select([bad]))
        self._X = self._X.append(samples)
        self.n_labelled_ = len(self._X)
        return self

    def query(self, X_pool: Any, n_queries: int = 1, return_utilities: bool = False) -> Any:
        """Choose the samples of a pool to label next.

        Parameters
        ----------
        X_pool : array-like of shape (n_pool, ...)
            Samples without labels.
        n_queries : int, default=1
            Number of samples to choose, at least 1.
        return_utilities : bool, default=False
            Whether to return the utilities too.

        Returns
        -------
        indices : ndarray of shape (n_queries,), int64
            Distinct positions in the pool, in the order of choice.
        utilities : ndarray of shape (n_queries, n_pool), float64
            Utilities of all pool samples at each choice, in the unit of the strategy; NaN for
            samples chosen before. The sample with the largest utility is chosen, but "badge" draws
            a sample in proportion to the utilities. Only with ``return_utilities``.

        Raises
        ------
        ValueError
            If ``n_queries`` is not between 1 and the number of samples in the pool, or if the
            samples of the pool have another shape than the labelled ones.
        UnsupportedNetworkError
            If the outputs of the network are NaN or infinite at a sample. "random" does not
            evaluate the network.
        """
        X = self._check_pool(X_pool)
        count = _check_n_queries(n_queries, len(X))
        selected = select_greedily(self._make_selection(X, count), count)
        if not return_utilities:
            return np.array([index for index, _ in selected], dtype=np.int64)
        indices, utilities = zip(*selected, strict=True)
        return np.array(indices, dtype=np.int64), np.stack(utilities)

    @available_if(check_pool_independent)
    def score_samples(self, X_pool: Any) -> np.ndarray:
        """Return the utility of each sample on its own, given the labelled samples.

        It is available for "maxdet" (variance), "kcenter" (squared distance), "density" and
        "reliability" (count, times -1), "badge" (squared length of the loss gradient), "margin"
        (difference of probabilities, times -1) and "entropy" (nats). Errors are those of `query`.

        Parameters
        ----------
        X_pool : array-like of shape (n_pool, ...)
            Samples without labels.

        Returns
        -------
        utilities : ndarray of shape (n_pool,), float64
            Utilities in the unit of the strategy. The sample with the largest one should be
            labelled first.
        """
        return self._make_selection(self._check_pool(X_pool), 1).utilities().astype(np.float64)

    def __call__(self, learner: Any, X: Any, n_instances: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Query as a strategy of modAL.

        Parameters
        ----------
        learner : object
            Learner with a trained network as ``estimator``, and its training samples as
            ``X_training``.
        X : array-like of shape (n_pool, ...)
            The pool.
        n_instances : int, default=1
            Number of samples to choose.

        Returns
        -------
        indices : ndarray of shape (n_instances,), int64
            Positions in the pool.
        utilities : ndarray of shape (n_instances, n_pool), float64
            Utilities at each choice, see `query`.
        """
        if learner.X_training is None:
            raise ValueError(
                "`learner` must contain labelled samples as its `X_training`; got None. Teach it"
                " some samples first."
            )
        # Set again after the clone, which copies a RandomState: the copy would repeat its numbers.
        changed = {"estimator": learner.estimator, "random_state": self.random_state}
        sampler = clone(self).set_params(**changed).fit(learner.X_training)
        indices, utilities = sampler.query(X, n_instances, return_utilities=True)
        return indices, utilities

    def _check_pool(self, X: Any) -> Samples:
        """Return the samples of the pool after validation."""
        check_is_fitted(self, "n_labelled_")
        return self._check_X(X, reset=False)

    def _get_strategy(self) -> type[Selection]:
        return STRATEGIES[self.strategy]

    def _choose_output(self) -> Any:
        """Return the output that the strategy prescribes, or ``output`` if it prescribes none."""
        strategy = self._get_strategy()
        if not strategy.needs_classes:
            return self.output
        check_output(self.output)
        select = self.output if callable(self.output) else None
        return SelectedOutput(strategy.output, select, f"`strategy` is {self.strategy!r}")

    def _make_source_for(self, estimator: Any) -> Source:
        """Return the source of Jacobians, after a check that the strategy can use the network."""
        if self._get_strategy().needs_classes:
            self._check_classifier(estimator)
        return super()._make_source_for(estimator)

    def _check_classifier(self, estimator: Any) -> None:
        is_features = isinstance(estimator, str) and estimator == FEATURES
        network = None if is_features else resolve_network(estimator)
        if network is None or not predicts_classes(network):
            given = self.estimator
            text = repr(given) if is_features or given is None else type(given).__name__
            if network is not None and network.criterion is not None:
                text += f" with the criterion {type(network.criterion).__name__}"
            others = [name for name, other in STRATEGIES.items() if not other.needs_classes]
            raise ValueError(
                f"`estimator` must contain a skorch classifier for strategy={self.strategy!r}; got"
                f" {text}. Wrap the network in a NeuralNetClassifier whose criterion fits its"
                " outputs (CrossEntropyLoss for the logits of classes, BCEWithLogitsLoss for those"
                " of independent labels), or use one of the strategies"
                f" {', '.join(map(repr, others))}."
            )

    def _try_network(self, source: Source, X: Samples) -> None:
        """Compute gradients or predictions of a few samples, so that `fit` raises their errors."""
        if self._get_strategy().whitening is not None:
            super()._try_network(source, X)
        elif self._get_strategy().needs_classes:
            self._predict_distributions(source, X)

    def _predict_distributions(self, source: Source, X: Samples) -> np.ndarray:
        assert isinstance(source, GradientEngine)
        return predict_distributions(source, X)

    def _make_selection(self, X: Samples, count: int) -> Selection:
        """Return the strategy, prepared to choose ``count`` samples of the pool."""
        source, strategy = self._make_source(), self._get_strategy()
        generator = check_random_state(self.random_state)
        pool = labelled = probabilities = np.empty((len(X), 0))
        if strategy.whitening is not None:
            projection = self._make_projection(source, X)
            pool = self._compute_features(projection, source, X)
            labelled = pool[:0]
            if strategy.needs_labelled:
                labelled = self._compute_labelled_features(projection, source)
        elif strategy.needs_classes:
            probabilities = self._predict_distributions(source, X)
        levels = (self.method, self.threshold, self.alpha)
        return strategy(Setting(pool, labelled, probabilities, count, *levels, generator))

    def _make_projection(self, source: Source, X: Samples) -> Projection:
        """Return the map from Jacobians to features, which does not depend on the samples."""
        _, jacobian = next(source.jacobians(X.select([0])))
        whitening = self._get_strategy().whitening
        assert whitening is not None
        is_features = isinstance(self.estimator_, str)
        if is_features or self.n_components is None or jacobian.width <= self.n_components:
            return Exact(jacobian.width, whitening=whitening)
        return TensorSketch(self.n_components, self._seed, whitening=whitening)

    def _compute_features(self, projection: Projection, source: Source, X: Samples) -> np.ndarray:
        """Return the features of the samples, of shape (n, m).

        Sketches of unit gradients are scaled to length 1 again. The similarities of near samples
        are then closer to the exact ones.
        """
        features = compute_features(projection, source, X, verbose=self.verbose)
        if isinstance(projection, TensorSketch) and projection.whitening == "unit":
            lengths = np.linalg.norm(features, axis=1, keepdims=True)
            np.divide(features, lengths, out=features, where=lengths > 0)
        return features

    def _compute_labelled_features(self, projection: Projection, source: Source) -> np.ndarray:
        """Return the features of the labelled samples, of shape (l, m).

        Features of earlier queries are used again if neither the network nor a parameter that they
        depend on has changed.
        """
        key = self._fingerprint_features(projection)
        features = self._labelled_features.get(key, np.empty((0, projection.n_components)))
        if len(features) < self.n_labelled_:
            missing = self._X.select(range(len(features), self.n_labelled_))
            new = self._compute_features(projection, source, missing)
            features = np.concatenate([features.astype(new.dtype), new])
            self._labelled_features = {key: features}
        return features

    def _fingerprint_features(self, projection: Projection) -> str:
        """Return a fingerprint of everything that features of a sample depend on."""
        settings = (self._choose_output(), self.parameters, self.input_shape)
        return fingerprint_value((projection, self._identify_network(), settings))


def _check_n_queries(n_queries: Any, available: int) -> int:
    if not isinstance(n_queries, int | np.integer) or not 1 <= n_queries <= available:
        raise ValueError(
            f"`n_queries` must be {describe_integers(1, available)} (the number of samples in"
            f" the pool); got {n_queries!r}. Choose fewer samples, or pass a larger pool."
        )
    return int(n_queries)
