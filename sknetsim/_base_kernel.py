"""What kernels have in common: matrices of similarities, on call and as a transformer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from torch import Tensor

from . import _pairs, _passes, _reductions
from ._base import BaseSimilarity, check_is_fitted, fit_context
from ._inputs import Rows
from ._kernel_protocol import KernelProtocol
from ._network import FEATURES, is_trained
from ._passes import Chunk, Source


class BaseKernel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseSimilarity, KernelProtocol):
    """Traces of products of Jacobians, whitened where normalised."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "normalize": ["boolean"],
    }

    _transient = ("_last", "_rows")

    @fit_context
    def fit(self, X: Any, y: Any = None) -> BaseKernel:
        """Keep the rows that `transform` compares with; train the network where it is not.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, for an untrained network.

        Returns
        -------
        self : object
            The fitted kernel.
        """
        self.X_fit_, _ = self._fit_network(X, y)
        self._n_features_out = len(Rows(self.X_fit_))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Similarity of each row of X with each row seen in `fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.

        Returns
        -------
        gram : ndarray of shape (n_samples, n_samples_fit), float64
            The similarities, in [-1, 1] where normalised.
        """
        check_is_fitted(self, "X_fit_")
        return self._gram(self._source(), self._check_X(X, reset=False), self.X_fit_)

    def diag(self, X: Any) -> np.ndarray:
        """Similarity of each row with itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The rows.

        Returns
        -------
        diagonal : ndarray of shape (n_samples,), float64
            Where normalised: 1, or 0 for a row whose similarity with every row is 0.
        """
        chunks = _passes.chunks(self._source(), X, self._similarity_whitening())
        shown = _passes.shown(chunks, len(Rows(X)), self.verbose)
        return np.concatenate([self._own_similarity(chunk) for chunk in shown])

    def _own_similarity(self, chunk: Chunk) -> np.ndarray:
        own = chunk.own_similarity()
        return own if self.normalize else own / chunk.jacobian.outputs.shape[1]

    def _gram(self, source: Source, X: Any, Y: Any) -> np.ndarray:
        whitening = self._similarity_whitening()
        return self._assembled(source, X, Y, (whitening, whitening), self._similarity)

    def _similarity_whitening(self) -> str:
        return self._whitening("unit")

    def _similarity(self, rows: Chunk, columns: Chunk) -> Tensor:
        """Of whitened chunks: their products."""
        if self.normalize:
            return _pairs.cosines(rows, columns)
        return rows.jacobian.trace_gram(columns.jacobian) / rows.jacobian.outputs.shape[1]

    def _whitening(self, normalized: str) -> str:
        return normalized if self.normalize else "none"

    def _network(self) -> Any:
        """The fitted network, or a trained one handed in."""
        if is_trained(self.estimator) or self.estimator == FEATURES:
            return self.estimator
        if not hasattr(self, "estimator_"):
            raise NotFittedError(
                f"estimator is not trained, and this {type(self).__name__} is not fitted; allowed"
                " in a kernel that is called directly are trained networks: train it, or call fit."
            )
        return self.estimator_

    def _source(self) -> Source:
        self._validate_params()
        return self._source_of(self._network())

    def _assembled(
        self, source: Source, X: Any, Y: Any, whitenings: tuple[str, str], function: Any
    ) -> np.ndarray:
        others = None if Y is X else Y
        return _reductions.assembled(source, X, others, whitenings, function, self.verbose)
