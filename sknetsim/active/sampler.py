"""Active learning: which samples to label next."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if

from .._kernels.similarities import COUNTS
from ..estimators._base import Interval, StrOptions, check_is_fitted, fit_context
from ._base import BaseSampler, has_utility_alone
from .strategies import STRATEGIES, select_greedily


class ActiveLearningSampler(BaseSampler):
    r"""Which samples of a pool to label next, by the gradients of a trained network.

    Strategies choose one row after the other, and take note of each, so that of nearly equal rows
    few are chosen (but for "random", "margin" and "entropy"). What they look at are gradients J(x)
    of the outputs with respect to the parameters, as features of m numbers:

    - "maxdet": the largest variance :math:`k(x, x) - K(x, Z) (K(Z, Z) + s I)^{-1} K(Z, x)` of a
      Gaussian process, given all that is labelled or chosen, Z; a greedy determinant [2]_. The
      kernel k is the trace of J(x) J(x')^T, and s is 1e-6 of its mean over labelled samples.
    - "lcmd": the farthest from its nearest in Z, in the cluster (samples with the same nearest in
      Z) with the largest sum of squared distances [2]_, as gradients are;
    - "kcenter": the farthest from its nearest in Z, as gradients are (core-set) [3]_;
    - "bait": what lowers the mean of the pool's variances the most, by forward steps [4]_;
    - "frank-wolfe": what a weighted sum of chosen gradients needs most to become that of the pool,
      in the metric of the posterior covariance [5]_;
    - "badge": drawn like the centers of k-means++, from gradients of the loss at the predicted
      class: uncertain and different samples [6]_;
    - "coverage": the most pool samples not yet covered with a similarity k^C of at least
      ``threshold`` (ProbCover) [7]_;
    - "typicality": the most typical sample, by its nearest neighbours in k^C, of the largest
      clusters with the fewest labels (TypiClust) [8]_;
    - "density": the fewest similar labelled or chosen samples, by ``method``, see `NetworkDensity`
      [1]_;
    - "reliability": the prediction in which labelled and chosen samples have the least say, see
      `NetworkDensity.reliability` [1]_;
    - "margin", "entropy": the smallest difference of the two largest probabilities, the largest
      entropy [9]_;
    - "random": any.

    "badge", "margin" and "entropy" need a classifier.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, see `NetworkKernel`. Train it again between queries as you like: gradients are
        those of the network as it is when `query` is called.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs' gradients are compared, see `NetworkKernel`; "badge" always compares "loss".
    strategy : str, default="lcmd"
        One of the above. Which one gained most on random choice, on which data, the documentation
        says; the default lost on none of them.
    n_components : int or None, default=512
        The number m of features that longer gradients are sketched into (see
        `GradientFeaturizer`); None: gradients as they are. Rows of ``estimator="features"`` are
        used as they are.
    method : {"soft", "threshold", "power"}, default="soft"
        How "density" counts similar samples, see `NetworkDensity`.
    threshold : "auto" or float in [0, 1), default="auto"
        Least similarity of similar samples. "auto": for "coverage", so that as many balls as there
        will be labels hold as many pairs as the pool has rows; for "density" with the method
        "threshold", so that a labelled sample has one similar one on the average.
    alpha : float > 0, default=2.0
        The exponent of "density" with the method "power".
    parameters : None, str, list of str or Module, default=None
        The parameters differentiated, see `NetworkKernel`.
    batch_size : int or None, default=None
        Samples per pass; None derives it from scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Where to compute gradients; None stays where the network is.
    input_shape : tuple of int or None, default=None
        Shape that the network takes a flat row of X in, such as (1, 28, 28); None: as it is.
    n_jobs : int or None, default=None
        Workers that share passes over the rows; None: one, or as ``joblib.parallel_config`` says.
    verbose : int, default=0
        Whether to show a progress bar over gradients.
    random_state : int, RandomState or None, default=None
        Seed of the sketch, of what is drawn, and of the perceptron of ``estimator=None``.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        The network's class, size and digest, and the versions of this and other packages.
    n_labelled_ : int
        Number of labelled samples.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    NetworkDensity : The counts of similar samples, and reliability, exactly.

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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSampler._parameter_constraints,
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
        """Take the labelled samples; train the network where it is not.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The labelled samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their labels, for an untrained network.

        Returns
        -------
        self : object
            The fitted sampler.
        """
        self._X, _ = self._fit_network(X, y)
        self.n_labelled_ = len(self._X)
        self._forget()
        return self

    @fit_context
    def partial_fit(self, X: Any, y: Any = None) -> ActiveLearningSampler:
        """Take more labelled samples; the network stays as it is.

        Features of those known are not computed again, unless the network has changed.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The newly labelled samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their labels: for an untrained network that has never been fitted.

        Returns
        -------
        self : object
            The sampler.
        """
        if not hasattr(self, "n_labelled_"):
            return self.fit(X, y)
        self._X = self._X.append(self._check_X(X, reset=False))
        self.n_labelled_ = len(self._X)
        return self

    def query(self, X_pool: Any, n_queries: int = 1, return_utilities: bool = False) -> Any:
        """Choose the samples of a pool that should be labelled next.

        Parameters
        ----------
        X_pool : array-like of shape (n_pool, ...)
            Samples without labels.
        n_queries : int, default=1
            How many to choose.
        return_utilities : bool, default=False
            Whether to return what each was chosen by.

        Returns
        -------
        indices : ndarray of shape (n_queries,), int64
            Positions in the pool, each once, in the order of choice.
        utilities : ndarray of shape (n_queries, n_pool), float64
            Only with ``return_utilities``: the utilities of all pool samples at each choice, in the
            unit of the strategy; the largest is chosen ("badge" draws in proportion to them), and
            NaN stands for those that were chosen before.

        Raises
        ------
        ValueError
            If there are fewer samples in the pool than are to be chosen, or if X_pool does not have
            the form of the labelled samples.
        """
        X = self._pool(X_pool)
        count = _checked_count(n_queries, len(X))
        selected = select_greedily(self._selection(X, count), count)
        if not return_utilities:
            return np.array([index for index, _ in selected], dtype=np.int64)
        indices, utilities = zip(*selected, strict=True)
        return np.array(indices, dtype=np.int64), np.stack(utilities)

    @available_if(has_utility_alone)
    def score_samples(self, X_pool: Any) -> np.ndarray:
        """How much each sample is worth by itself, given the labelled ones.

        Offered by "maxdet" (variance), "kcenter" (squared distance), "density" and "reliability"
        (counts, times -1), "badge" (squared length of the loss gradient), "margin" (difference of
        probabilities, times -1) and "entropy" (nats).

        Parameters
        ----------
        X_pool : array-like of shape (n_pool, ...)
            Samples without labels.

        Returns
        -------
        utilities : ndarray of shape (n_pool,), float64
            In the unit of the strategy; the largest should be labelled first.
        """
        return self._selection(self._pool(X_pool), 1).utilities().astype(np.float64)

    def __call__(self, learner: Any, X: Any, n_instances: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Query for a learner of modAL's protocol.

        Parameters
        ----------
        learner : object
            Whose ``estimator`` is a trained network, and ``X_training`` what it was trained on.
        X : array-like of shape (n_pool, ...)
            The pool.
        n_instances : int, default=1
            How many to choose.

        Returns
        -------
        indices : ndarray of shape (n_instances,), int64
            Positions in the pool.
        utilities : ndarray of shape (n_instances, n_pool), float64
            See `query`.
        """
        # A clone would have a copy of a generator, which is to go on from call to call.
        changed = {"estimator": learner.estimator, "random_state": self.random_state}
        sampler = clone(self).set_params(**changed).fit(learner.X_training)
        indices, utilities = sampler.query(X, n_instances, return_utilities=True)
        return indices, utilities

    def _pool(self, X: Any) -> Any:
        """Validated rows, once fitted."""
        check_is_fitted(self, "n_labelled_")
        return self._check_X(X, reset=False)


def _checked_count(n_queries: Any, available: int) -> int:
    if not isinstance(n_queries, int | np.integer) or not 1 <= n_queries <= available:
        raise ValueError(
            f"n_queries is {n_queries!r}; allowed are integers from 1 to {available}, the number of"
            " samples in the pool: ask for fewer, or hand over a larger pool."
        )
    return int(n_queries)
