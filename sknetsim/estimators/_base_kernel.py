"""Jacobians of single rows, for those who ask for one pair of rows at a time."""

from __future__ import annotations

import abc
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process.kernels import Kernel
from torch import Tensor

from .._networks.fingerprint import digest_samples, fingerprint_value
from .._networks.memory import SINGLE_ROWS, memory_budget
from .._networks.network import FEATURES, is_trained
from .._networks.samples import Samples
from .._passes.chunks import Chunk, Source, iterate_chunks, with_progress
from .._passes.pairs import prepare_for_pairs
from .._passes.reductions import compute_pair_matrix
from ._base import BaseSimilarity, check_is_fitted, fit_context


class RowCache:
    """Whitened Jacobians of rows by their bytes; where memory is short the oldest go first.

    Parameters
    ----------
    source : Source
        What gives Jacobians.
    whitening : str
        One of `_kernels.WHITENINGS`.
    """

    def __init__(self, source: Source, whitening: str):
        self.source = source
        self.whitening = whitening
        self._chunks: OrderedDict[bytes, Chunk] = OrderedDict()
        self._bytes = 0

    def chunk(self, row: Any) -> Chunk:
        """The Jacobian of one row, of shape (1, ...)."""
        # In double, for what a Pipeline does to a row comes before it is cast.
        sample = Samples(row)
        key = digest_samples(sample, torch.float64)[0]
        if key not in self._chunks:
            found = next(iter(iterate_chunks(self.source, sample, self.whitening)))
            self._keep(key, prepare_for_pairs(found))
        return self._chunks[key]

    def _keep(self, key: bytes, chunk: Chunk) -> None:
        self._chunks[key] = chunk
        self._bytes += chunk.jacobian.nbytes
        while self._bytes > memory_budget(SINGLE_ROWS) and len(self._chunks) > 2:
            self._bytes -= self._chunks.popitem(last=False)[1].jacobian.nbytes


class KernelProtocol(Kernel):
    """Matrices at one call, the last gram of a Gaussian process, and pairs of single rows."""

    @abc.abstractmethod
    def _gram(self, source: Source, X: Any, Y: Any) -> np.ndarray:
        """Similarities of all pairs."""

    @abc.abstractmethod
    def _similarity(self, rows: Chunk, columns: Chunk) -> Tensor:
        """Similarities of two chunks, whitened."""

    @abc.abstractmethod
    def _similarity_whitening(self) -> str:
        """How chunks are whitened for that."""

    @abc.abstractmethod
    def _get_settings(self) -> dict[str, Any]:
        """All parameters but the network."""

    @abc.abstractmethod
    def _fingerprint(self) -> str:
        """A fingerprint of parameters and network."""

    @abc.abstractmethod
    def _make_source(self) -> Source:
        """Where the Jacobians come from."""

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """Similarity of each row of X with each row of Y.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            The rows.
        Y : array-like of shape (n_samples_Y, ...), default=None
            The other rows; None: those of X.
        eval_gradient : bool, default=False
            Whether to return the gradient in the hyper-parameters too, of which there are none.
            The last gram that was asked for so is kept: Gaussian processes ask for it, and for its
            gradient, some 35 times in one fit.

        Returns
        -------
        gram : ndarray of shape (n_samples_X, n_samples_Y), float64
            The similarities, in [-1, 1] where normalised. A float for two single rows of shape
            (n_features,), which is how scikit-learn calls a metric: their Jacobians are kept, and
            yet `NetworkNeighbors`, or a precomputed gram, is much faster.
        gradient : ndarray of shape (n_samples_X, n_samples_X, 0)
            Only with ``eval_gradient``.
        """
        if all(isinstance(rows, np.ndarray) and rows.ndim == 1 for rows in (X, Y)):
            return self._of_two_rows(X[None], Y[None])
        gram = self._kept_gram(X, Y, eval_gradient)
        return (gram, np.empty((*gram.shape, 0))) if eval_gradient else gram

    def _kept_gram(self, X: Any, Y: Any, keep: bool) -> np.ndarray:
        """The gram; the last one kept where it is of the same bytes."""
        source = self._make_source()
        symmetric = Y is None or Y is X
        X, Y = Samples.of(X), None if symmetric else Samples.of(Y)
        if not symmetric or not (keep or hasattr(self, "_last")):
            return self._gram(source, X, Y)
        key = fingerprint_value((self._get_settings(), source.fingerprint(X)))
        if getattr(self, "_last", ("", None))[0] != key:
            gram = self._gram(source, X, Y)
            if not keep:
                return gram
            self._last = (key, gram)
        # Gaussian processes add their noise in place.
        return self._last[1].copy()

    def _of_two_rows(self, x: np.ndarray, y: np.ndarray) -> float:
        state = self._fingerprint()
        before, cache = getattr(self, "_rows", ("", None))
        if cache is None or before != state:
            cache = RowCache(self._make_source(), self._similarity_whitening())
            self._rows = (state, cache)
        return float(self._similarity(cache.chunk(x), cache.chunk(y)))

    def is_stationary(self) -> bool:
        """Whether the kernel depends on differences of inputs alone; it does not.

        Returns
        -------
        stationary : bool
            False.
        """
        return False

    @property
    def hyperparameters(self) -> list[Any]:
        """No hyper-parameter is tuned by a Gaussian process."""
        return []


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
        samples, _ = self._fit_network(X, y)
        self.X_fit_ = samples.data
        self._n_features_out = len(samples)
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
        return self._gram(self._make_source(), self._check_X(X, reset=False), Samples(self.X_fit_))

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
        samples = Samples.of(X)
        chunks = iterate_chunks(self._make_source(), samples, self._similarity_whitening())
        shown = with_progress(chunks, len(samples), self.verbose)
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
            return rows.cosines(columns)
        return rows.jacobian.trace_gram(columns.jacobian) / rows.jacobian.outputs.shape[1]

    def _whitening(self, normalized: str) -> str:
        return normalized if self.normalize else "none"

    def _get_estimator(self) -> Any:
        """The fitted network, or a trained one handed in."""
        if is_trained(self.estimator) or self.estimator == FEATURES:
            return self.estimator
        if not hasattr(self, "estimator_"):
            raise NotFittedError(
                f"estimator is not trained, and this {type(self).__name__} is not fitted; allowed"
                " in a kernel that is called directly are trained networks: train it, or call fit."
            )
        return self.estimator_

    def _make_source(self) -> Source:
        self._validate_params()
        return self._make_source_for(self._get_estimator())

    def _assembled(
        self, source: Source, X: Any, Y: Any, whitenings: tuple[str, str], function: Any
    ) -> np.ndarray:
        others = None if Y is None or Y is X else Samples.of(Y)
        return compute_pair_matrix(
            source, Samples.of(X), others, whitenings, function, self.verbose
        )
