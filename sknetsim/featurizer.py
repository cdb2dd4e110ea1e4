"""Gradients as features: a vector for each input, whose products are the similarities."""

from __future__ import annotations

import numbers
import os
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state

from . import _passes, _sketch
from ._base import BaseSimilarity, Interval, check_is_fitted, fit_context
from ._inputs import Rows


class GradientFeaturizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseSimilarity):
    r"""Whitened parameter gradients as features.

    Features :math:`F(x) = K(x,x)^{-1/2} J(x) / \sqrt{d}`, written in one row, so that
    :math:`F(x) \cdot F(x') = k^C(x, x')`, the similarity of `NetworkKernel`. Rows have length 1,
    or 0 where the gradient is zero.

    Parameters
    ----------
    estimator : skorch net, FrozenEstimator, Pipeline, Module, "features" or None, default=None
        The network, see `NetworkKernel`.
    output : {"all", "predicted", "sum", "loss"}, int, list of int or callable, default="all"
        Which outputs are compared, see `NetworkKernel`.
    n_components : int or None, default=None
        None: exact features, d times the number of parameters. An integer m: features
        :math:`K(x, Z) K(Z, Z)^{-1/2}` from the similarities with m landmarks Z, drawn at random
        from the fitted rows (Nystroem's method); their products are exact between landmarks, and
        rows shorter than 1 are samples that the landmarks do not cover.
    parameters : None, str, list of str or Module, default=None
        The parameters differentiated, see `NetworkKernel`.
    batch_size : int or None, default=None
        Samples per pass; None derives it from scikit-learn's ``working_memory``.
    device : str, device or None, default=None
        Where to compute; None stays where the network is.
    verbose : int, default=0
        Whether to show a progress bar.
    random_state : int, RandomState or None, default=None
        Seed of the landmarks, and of the perceptron of ``estimator=None``.

    Attributes
    ----------
    estimator_ : object
        The trained network.
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

    Examples
    --------
    >>> import torch
    >>> from sknetsim import GradientFeaturizer
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.tensor([[0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
    >>> GradientFeaturizer(network).fit_transform(X).shape
    (3, 33)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "n_components": [Interval(numbers.Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        output: Any = "all",
        *,
        n_components: int | None = None,
        parameters: Any = None,
        batch_size: int | None = None,
        device: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.output = output
        self.n_components = n_components
        self.parameters = parameters
        self.batch_size = batch_size
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @fit_context
    def fit(self, X: Any, y: Any = None) -> GradientFeaturizer:
        """Train the network where it is not.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows such as the network takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, for an untrained network.

        Returns
        -------
        self : object
            The fitted featurizer.
        """
        X, source, first = self._fit_network(X, y)
        self._nystroem = None
        if self.n_components is not None:
            generator = check_random_state(self.random_state)
            self._nystroem = _sketch.fit_nystroem(source, X, self.n_components, generator)
        self._n_features_out = self.n_components or first.width
        return self

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
        return self.fit(X, y)._featurize(self._check_X(X, reset=False), self._labels(y))

    def _labels(self, y: Any) -> Any:
        return y if isinstance(self.output, str) and self.output == "loss" else None

    def transform(self, X: Any) -> np.ndarray:
        """Features of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Rows of length 1, or 0 for a zero gradient, in the dtype of the gradients.
        """
        check_is_fitted(self, "estimator_")
        return self._featurize(self._check_X(X, reset=False), None)

    def _featurize(self, X: Any, y: Any) -> np.ndarray:
        source, width = self._source(), self._n_features_out
        if self._nystroem is not None:
            return self._nystroem.transform(source, X, self.verbose)
        dtype = np.dtype(str(source.dtype).removeprefix("torch."))
        _refuse_beyond_memory(len(Rows(X)), width, dtype.itemsize)
        features = np.empty((len(Rows(X)), width), dtype=dtype)
        for chunk in _passes.shown(_passes.chunks(source, X, y=y), len(features), self.verbose):
            features[chunk.rows] = chunk.whitened().jacobian.materialize().flatten(1).cpu().numpy()
        return features


def _refuse_beyond_memory(samples: int, width: int, item_size: int) -> None:
    needed = samples * width * item_size
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise MemoryError(
            f"{samples} rows of {width} exact features take {needed / 2**30:,.1f} GiB; this machine"
            f" has {available / 2**30:,.1f} GiB: choose fewer `parameters` (such as 'last_layer'),"
            " output='predicted', or use NetworkKernel, which needs no features."
        )
