"""What was computed before: kept by joblib under a key of our own."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

from .._features import METHODS
from .._features.projection import compute_features
from .._networks.fingerprint import fingerprint_value
from .._networks.persistence import get_versions
from .._passes.chunks import Source
from ._base import BaseSimilarity, HasMethods, Interval, StrOptions, check_is_fitted, fit_context

Result = TypeVar("Result")


def cached(memory: Any, key: str | None, compute: Callable[[], Result]) -> Result:
    """What ``compute`` gives, or gave under the same key; without a key nothing is kept.

    joblib would hash a network's object, which is another one after every pickle.
    """
    if key is None:
        return compute()
    found: Result = check_memory(memory).cache(_computed, ignore=["compute"])(key, compute)
    return found


def _computed(key: str, compute: Callable[[], Result]) -> Result:
    return compute()


class GradientFeaturizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseSimilarity):
    r"""Parameter gradients as features, whose products are the similarities.

    Exact features are :math:`F(x) = K(x,x)^{-1/2} J(x) / \sqrt{d}`, written in one row, so that
    :math:`F(x) \cdot F(x') = k^C(x, x')`, the similarity of `NetworkKernel`. Shorter ones keep
    these products up to an error, which is measured:

    - "nystroem": :math:`F(x) = K(x, Z) K(Z, Z)^{-1/2}` from the similarities with m landmarks Z
      among the fitted rows, drawn by randomly pivoted Cholesky [2]_. Exact between landmarks;
      the error is the smallest of the two, and rows shorter than 1 are samples that the
      landmarks do not cover.
    - "sketch": count sketches of activations and cotangents, combined by the Fourier transform
      [3]_: a linear map of the gradient that depends on ``random_state`` alone, hence the same for
      every shard of the data. Products are unbiased, with a standard deviation in the order of
      :math:`1 / \sqrt{m}`.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`.
    n_components : int, "auto" or None, default=None
        Number m of features; "auto": as many as ``kernel_error`` asks for; None: the exact ones, d
        times the number of parameters.
    method : {"auto", "exact", "nystroem", "sketch"}, default="auto"
        How features are made; "auto": "exact" where ``n_components`` is None, else "nystroem".
    kernel_error : float > 0, default=0.01
        With ``n_components="auto"``: the root mean squared error of the similarity of held-out
        rows that features may have.
    parameters : None, str, list of str or Module, default=None
        The parameters differentiated, see `NetworkKernel`.
    batch_size : int or None, default=None
        Samples per pass; None derives it from scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Where to compute; None stays where the network is.
    memory : None, str or joblib.Memory, default=None
        Where landmarks and features are kept, under the bytes of the network's parameters, of the
        rows and of the settings, so that the same ones are never computed twice, whatever object
        or process asks. Where something is drawn and ``random_state`` is not an integer, nothing is
        kept. Warnings are given when something is computed. What the network's code finds under a
        global name is not in the key.
    input_shape : tuple of int or None, default=None
        Shape that the network takes a flat row of X in, such as (1, 28, 28); None: as it is.
    n_jobs : int or None, default=None
        Workers that share passes over the rows; None: one, or as ``joblib.parallel_config`` says.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the landmarks, of the sketch, and of the perceptron of ``estimator=None``.

    Attributes
    ----------
    estimator_ : object
        The trained network.
    made_with_ : dict of str to str
        The network's class, size and digest, and the versions of this and other packages.
    n_components_ : int
        Number of features; less than ``n_components`` where fewer landmarks span the gradients.
    kernel_error_ : float
        Root mean squared error of the products of features, against k^C, over pairs of different
        rows that the features were not made from (at most 256 of the fitted rows); of the
        landmarks' candidates, where no two rows could be spared. 0 for exact features.
    n_features_in_ : int
        Length of a row's first axis, seen in `fit`.
    feature_names_in_ : ndarray of str
        Names of the features, where X had any.

    See Also
    --------
    NetworkKernel : The products without the features.

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
        """Choose the features; train the network where it is not.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows such as the network takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, for an untrained network, and for landmarks with ``output="loss"``.

        Returns
        -------
        self : object
            The fitted featurizer.

        Raises
        ------
        ValueError
            If ``n_components`` exceeds the number of rows, or is given for exact features, or if
            all gradients are zero.
        """
        X, source = self._fit_network(X, y)
        method, labels = self._method(), self._choose_labels(y)
        settings = (self.n_components, self.kernel_error)
        self._key = self._fit_key(source, X, labels, (method, *settings))
        self._projection = cached(
            self.memory,
            self._key,
            lambda: METHODS[method](
                source, X, labels, *settings, check_random_state(self.random_state)
            ),
        )
        self.n_components_ = self._n_features_out = self._projection.n_components
        self.kernel_error_ = self._projection.kernel_error
        return self

    def _fit_key(self, source: Source, X: Any, y: Any, settings: tuple[Any, ...]) -> str | None:
        """Of all that the projection follows from; None where it is not to be kept."""
        draws = settings[0] != "exact"
        seeded = isinstance(self.random_state, numbers.Integral)
        if self.memory is None or (draws and not seeded):
            return None
        seed = int(self.random_state) if draws else None
        return fingerprint_value((settings, seed, source.fingerprint(X, y), get_versions()))

    def _method(self) -> str:
        if self.method == "auto":
            return "exact" if self.n_components is None else "nystroem"
        if self.n_components is None and self.method != "exact":
            raise ValueError(
                f"n_components is None and method is {self.method!r}; allowed are integers of at"
                " least 1 and 'auto', which follows kernel_error."
            )
        return self.method

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and featurize the same rows; with ``output="loss"`` at their labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, for an untrained network and for ``output="loss"``.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            The features.
        """
        return self.fit(X, y)._featurize(self._check_X(X, reset=False), self._choose_labels(y))

    def _choose_labels(self, y: Any) -> Any:
        return y if isinstance(self.output, str) and self.output == "loss" else None

    def transform(self, X: Any) -> np.ndarray:
        """Give the features of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            In the dtype of the gradients. Rows of length 1, or 0 for a zero gradient; of at most 1
            with landmarks, and of 1 but for the sketch's error.
        """
        check_is_fitted(self, "estimator_")
        return self._featurize(self._check_X(X, reset=False), None)

    def _featurize(self, X: Any, y: Any) -> np.ndarray:
        source = self._make_source()
        return cached(
            self.memory,
            self._key and f"{self._key} {source.fingerprint(X, y)}",
            lambda: compute_features(self._projection, source, X, y, self.verbose),
        )
