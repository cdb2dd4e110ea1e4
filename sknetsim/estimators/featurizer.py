"""Gradients of samples as features: exact, from landmarks, or sketched."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

from .._features import METHODS
from .._features.nystroem import Nystroem
from .._features.projection import compute_features
from .._networks.fingerprint import fingerprint_value
from .._networks.persistence import Verified, get_versions
from .._networks.samples import Samples
from .._passes.chunks import Source
from ._base import (
    BaseSimilarity,
    HasMethods,
    Interval,
    LabelledTransformerMixin,
    StrOptions,
    check_is_fitted,
    fit_context,
)

Result = TypeVar("Result")


def load_or_compute(memory: Any, key: str | None, compute: Callable[[], Result]) -> Result:
    """Return the cached result of a key, or compute and cache it; the key None caches nothing.

    The key is not joblib's hash, because that hash of a network changes with every pickle.
    """
    if key is None:
        return compute()
    cached = check_memory(memory).cache(_compute, ignore=["compute"])(key, compute)
    result: Result = cached.value
    return result


def _compute(key: str, compute: Callable[[], Result]) -> Verified:
    """Return a result whose file joblib computes again if its bytes are damaged."""
    return Verified(compute())


class GradientFeaturizer(LabelledTransformerMixin, BaseSimilarity):
    r"""Gradient features whose inner products are the similarity of `NetworkKernel`.

    Exact features are the whitened Jacobian, flattened into one row,

    .. math:: F(x) = \frac{1}{\sqrt{d}} K(x,x)^{-1/2} J(x),
        \qquad F(x) \cdot F(x') = k^C(x, x').

    Two methods make only m features, whose inner products approximate the similarity with an error
    that `fit` measures:

    - "nystroem": :math:`F(x) = K(x, Z) K(Z, Z)^{-1/2}`, where K is the matrix of similarities
      :math:`k^C` and Z are m landmarks, drawn from the fitted samples by randomly pivoted Cholesky
      [2]_. Inner products are exact between landmarks. The error is smaller than that of "sketch".
      If a feature vector is shorter than 1, the landmarks do not cover the sample.
    - "sketch": count sketches of activations and cotangents, combined by the Fourier transform
      [3]_. This is a linear map of the gradient that depends only on ``random_state``, so it is the
      same for every shard of the data. Inner products are unbiased, with a standard deviation in
      the order of :math:`1 / \sqrt{m}`.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network; see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        The outputs whose gradients are compared; see `NetworkKernel`. Features of the loss at given
        labels contain these labels, so do not predict the labels from them.
    n_components : int, "auto" or None, default=None
        Number m of features. "auto": the number that reaches ``kernel_error``. None: exact
        features, whose number is d times the number of parameters.
    method : {"auto", "exact", "nystroem", "sketch"}, default="auto"
        How features are made. "auto": "exact" if ``n_components`` is None, else "nystroem".
    kernel_error : float > 0, default=0.01
        Only with ``n_components="auto"``: the largest acceptable ``kernel_error_``.
    parameters : None, str, list of str or Module, default=None
        The parameters of the network that are differentiated; see `NetworkKernel`.
    batch_size : int or None, default=None
        Number of samples per pass. None chooses it to fit scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Device to compute on. None uses the device of the network.
    memory : None, str or joblib.Memory, default=None
        Cache for landmarks and features: a folder, or a joblib.Memory. The key is a hash of the
        weights of the network, the samples and the parameters, so objects and processes share
        results. Nothing is cached if the method is random and ``random_state`` is not an integer.
        A cached result does not repeat its warnings. Global variables that the code of the network
        uses are not part of the key. If a file of the cache is damaged, joblib logs a warning, and
        the result is computed again. Features that ``joblib.Memory(mmap_mode=...)`` maps to memory
        are not verified.
    input_shape : tuple of int or None, default=None
        Shape that each sample gets before it enters the network, such as (1, 28, 28) for flat
        images. None leaves samples unchanged.
    n_jobs : int or None, default=None
        Number of workers that share the passes over the samples. None: 1, or the number set by
        ``joblib.parallel_config``.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the landmarks, of the sketch, and of the perceptron that ``estimator=None`` trains.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        Class, size and digest of the network, and the versions of sknetsim and other packages.
    n_components_ : int
        Number of features; less than ``n_components`` if fewer landmarks span all gradients.
    kernel_error_ : float
        Root mean squared error of the inner products of features as estimates of :math:`k^C`, over
        pairs of different samples that are held out from the choice of features (at most 256 of
        the fitted samples). If there are too few samples to hold out two, the pairs are those of
        the candidates for landmarks. 0 for exact features.
    n_features_in_ : int
        Length of the first axis of a sample, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    See Also
    --------
    NetworkKernel : The similarity itself, without features.

    References
    ----------
    .. [1] G. Charpiat, N. Girard, L. Felardos, Y. Tarabalka, "Input Similarity from the Neural
       Network Perspective", NeurIPS 2019.
    .. [2] Y. Chen, E. Epperly, J. Tropp, R. Webber, "Randomly pivoted Cholesky: practical
       approximation of a kernel matrix with few entry evaluations", Communications on Pure and
       Applied Mathematics 78, 2025.
    .. [3] N. Pham, R. Pagh, "Fast and scalable polynomial kernels via explicit feature maps",
       KDD 2013.

    Examples
    --------
    >>> import torch
    >>> from sknetsim import GradientFeaturizer
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
    >>> GradientFeaturizer(network).fit_transform(X).shape
    (3, 33)
    >>> GradientFeaturizer(network, n_components=2, random_state=0).fit_transform(X).shape
    (3, 2)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "n_components": [
            Interval(numbers.Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "method": [StrOptions({"auto", *METHODS})],
        "kernel_error": [Interval(numbers.Real, 0, None, closed="neither")],
        "memory": [str, HasMethods(["cache"]), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        n_components: int | str | None = None,
        method: str = "auto",
        kernel_error: float = 0.01,
        parameters: Any = None,
        batch_size: int | None = None,
        device: Any = None,
        memory: Any = None,
        input_shape: tuple[int, ...] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.output = output
        self.n_components = n_components
        self.method = method
        self.kernel_error = kernel_error
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.memory = memory
        self.input_shape = input_shape
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any = None) -> GradientFeaturizer:
        """Train the network if it is untrained, and determine the features.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, to train an untrained network, and at which the losses of the landmarks are
            compared with ``output="loss"``.

        Returns
        -------
        self : object
            The fitted featurizer.

        Raises
        ------
        ValueError
            If ``n_components`` exceeds the number of samples for landmarks, if it is an integer
            for exact features or None for others, or if all gradients are zero.
        """
        X, source = self._fit_network(X, y)
        if self._fitted_network is not None:
            self._fitted_network.record_outputs(source, X)
        method, settings = self._choose_method(), (self.n_components, self.kernel_error)
        self._key = self._make_key(source, X, (method, *settings))
        self._projection = load_or_compute(
            self.memory,
            self._key,
            lambda: METHODS[method](source, X, *settings, check_random_state(self.random_state)),
        )
        self.n_components_ = self._n_features_out = self._projection.n_components
        self.kernel_error_ = self._projection.kernel_error
        return self

    def _make_key(self, source: Source, X: Samples, settings: tuple[Any, ...]) -> str | None:
        """Return a key of everything that determines the projection, or None to cache nothing."""
        random = settings[0] != "exact"
        seeded = isinstance(self.random_state, numbers.Integral)
        if self.memory is None or (random and not seeded):
            return None
        seed = int(self.random_state) if random else None
        return fingerprint_value((settings, seed, source.fingerprint(X), get_versions()))

    def _choose_method(self) -> str:
        """Return the method; "auto" is replaced by the method that it stands for."""
        if self.method == "auto":
            return "exact" if self.n_components is None else "nystroem"
        if self.n_components is None and self.method != "exact":
            raise ValueError(
                f"`n_components` must be a positive integer or 'auto' for method={self.method!r};"
                " got None. Set a number of features, or 'auto', which reaches `kernel_error`."
            )
        return self.method

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute the features of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels of the samples, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        features : ndarray of shape (n_samples, n_components)
            The features, in the dtype of the gradients. A zero gradient gives zeros. Otherwise,
            exact feature vectors have length 1, those from landmarks have at most length 1, and
            those from sketches have length 1 up to the error of the sketch.

        Raises
        ------
        ChangedNetworkError
            If features are made from landmarks and the network has changed since `fit`, or if other
            outputs or other parameters are compared than in `fit`.
        """
        check_is_fitted(self, "estimator_")
        samples, source = self._check_X(X, y, reset=False), self._make_source()
        self._check_projection(source)
        return load_or_compute(
            self.memory,
            self._key and f"{self._key} {source.fingerprint(samples)}",
            lambda: compute_features(self._projection, source, samples, self.verbose),
        )

    def _check_projection(self, source: Source) -> None:
        """Raise an error if the projection does not fit the network as it is now.

        Landmarks belong to the gradients of the network in `fit`. The other projections depend only
        on which gradients are compared.
        """
        if isinstance(self._projection, Nystroem):
            self._check_unchanged(source)
        elif self._fitted_network is not None:
            self._fitted_network.check_compared(self, source)
