"""What scikit-learn's kernel machines ask of a kernel, beyond the values of its matrix."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from sklearn.gaussian_process.kernels import Kernel
from torch import Tensor

from ._fingerprint import of_value
from ._passes import Chunk, Source
from ._row_cache import RowCache


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
    def _settings(self) -> dict[str, Any]:
        """All parameters but the network."""

    @abc.abstractmethod
    def _state(self) -> str:
        """A fingerprint of parameters and network."""

    @abc.abstractmethod
    def _source(self) -> Source:
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
        source = self._source()
        symmetric = Y is None or Y is X
        if not symmetric or not (keep or hasattr(self, "_last")):
            return self._gram(source, X, Y)
        key = of_value((self._settings(), source.fingerprint(X)))
        if getattr(self, "_last", ("", None))[0] != key:
            gram = self._gram(source, X, Y)
            if not keep:
                return gram
            self._last = (key, gram)
        # Gaussian processes add their noise in place.
        return self._last[1].copy()

    def _of_two_rows(self, x: np.ndarray, y: np.ndarray) -> float:
        state = self._state()
        before, cache = getattr(self, "_rows", ("", None))
        if cache is None or before != state:
            cache = RowCache(self._source(), self._similarity_whitening())
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
