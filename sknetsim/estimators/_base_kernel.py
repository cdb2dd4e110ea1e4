"""Base class of kernels: scikit-learn's kernel interface, and a cache of single samples."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process.kernels import Kernel
from torch import Tensor

from .._networks.fingerprint import digest_samples, fingerprint_value
from .._networks.fitting import warn_if_without_epochs
from .._networks.memory import SINGLE_SAMPLES, memory_budget
from .._networks.network import check_is_network, is_trained, list_steps, make_samples
from .._networks.samples import Samples
from .._passes.chunks import Chunk, Source, iterate_chunks, with_progress
from .._passes.pairs import prepare_for_pairs
from .._passes.reductions import compute_pair_matrix
from ..exceptions import start_call
from ._base import BaseSimilarity, LabelledTransformerMixin, check_is_fitted, fit_context
from ._validation import check_columns


class SampleCache:
    """Cache of the whitened Jacobians of single samples, by a digest of their values.

    If the Jacobians take more than half of the memory budget, the oldest ones are dropped.

    Parameters
    ----------
    source : Source
        Source of the Jacobians.
    whitening : str
        One of `WHITENINGS`.
    """

    def __init__(self, source: Source, whitening: str):
        self.source = source
        self.whitening = whitening
        self._chunks: OrderedDict[bytes, Chunk] = OrderedDict()
        self._bytes = 0

    def get_chunk(self, sample: Samples) -> Chunk:
        """Return the chunk of one sample; compute it if it is not cached."""
        # In float64, because the steps of a Pipeline receive the sample before it is cast.
        key = digest_samples(sample, torch.float64)[0]
        if key not in self._chunks:
            chunk = next(iter(iterate_chunks(self.source, sample, self.whitening)))
            self._store(key, prepare_for_pairs(chunk))
        return self._chunks[key]

    def _store(self, key: bytes, chunk: Chunk) -> None:
        self._chunks[key] = chunk
        self._bytes += chunk.jacobian.nbytes
        # The two samples of the current pair stay.
        while self._bytes > memory_budget(SINGLE_SAMPLES) and len(self._chunks) > 2:
            self._bytes -= self._chunks.popitem(last=False)[1].jacobian.nbytes


def _is_vector(x: Any) -> bool:
    """Return whether x is a single sample: a vector of numbers, and not of texts."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind not in "OSU"


class BaseKernel(LabelledTransformerMixin, BaseSimilarity, Kernel):
    """Base class of kernels tr(J(x) J(x')^T) / d, whitened if ``normalize``.

    scikit-learn's estimators call a kernel with whole matrices (SVC), request the same gram matrix
    many times (Gaussian processes), or call it for pairs of single samples (as a metric). All
    three are supported.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSimilarity._parameter_constraints,
        "normalize": ["boolean"],
    }

    _transient = ("_last", "_rows")

    @fit_context
    def fit(self, X: Any, y: Any = None) -> BaseKernel:
        """Train the network if it is untrained, and keep the samples for `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels, to train an untrained network, and at which the losses of the fitted samples
            are compared with ``output="loss"``.

        Returns
        -------
        self : object
            The fitted kernel.

        Raises
        ------
        ValueError
            If an untrained network has no labels, or labels that are missing, not finite, not
            numbers, or do not fit its outputs.

        Warns
        -----
        UntrainedNetworkWarning
            If the network is initialised, but was not trained for any epoch.
        """
        samples, _ = self._fit_network(X, y)
        self.X_fit_, self._labels_fit = samples.data, samples.labels
        self._n_features_out = len(samples)
        return self

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute the similarity of each query with each fitted sample.

        Parameters
        ----------
        X : array-like of shape (n_queries, ...)
            The queries.
        y : array-like of shape (n_queries,) or (n_queries, n_outputs), default=None
            Labels of the queries, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        gram : ndarray of shape (n_queries, n_samples_fit), float64
            The similarities, in [-1, 1] if ``normalize``.
        """
        check_is_fitted(self, "X_fit_")
        samples = self._check_X(X, y, reset=False)
        fitted = self._make_samples(self.X_fit_).with_labels(self._labels_fit)
        return self._compute_gram(self._make_source(), samples, fitted)

    def __call__(
        self,
        X: Any,
        Y: Any = None,
        eval_gradient: bool = False,
        *,
        y_X: Any = None,
        y_Y: Any = None,
    ) -> Any:
        """Compute the similarity of each sample of X with each sample of Y.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            The samples.
        Y : array-like of shape (n_samples_Y, ...), default=None
            The other samples. None: those of X.
        eval_gradient : bool, default=False
            Whether to return the gradient with respect to the hyper-parameters too. There are no
            hyper-parameters, so it is empty. The last gram matrix that was requested with its
            gradient is kept, because a Gaussian process requests the same one about 35 times in one
            fit.
        y_X, y_Y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels of X and of Y, only with ``output="loss"``. None: the predicted ones. Without Y,
            both sets have the labels of X.

        Returns
        -------
        gram : ndarray of shape (n_samples_X, n_samples_Y), float64
            The similarities, in [-1, 1] if ``normalize``. If X and Y are single samples of shape
            (n_features,), as scikit-learn passes them to a metric, it is a float. The Jacobians of
            single samples are cached, but `NetworkNeighbors` or a precomputed gram matrix is much
            faster.
        gradient : ndarray of shape (n_samples_X, n_samples_X, 0)
            Only with ``eval_gradient``.
        """
        if _is_vector(X) and _is_vector(Y):
            return self._compare_pair(
                self._make_samples(X[None], y_X, "y_X"), self._make_samples(Y[None], y_Y, "y_Y")
            )
        gram = self._get_gram(*self._make_pair(X, Y, y_X, y_Y), eval_gradient)
        return (gram, np.empty((*gram.shape, 0))) if eval_gradient else gram

    def _make_pair(self, X: Any, Y: Any, y_X: Any, y_Y: Any) -> tuple[Samples, Samples | None]:
        """Return the samples of X and of Y with their labels, or X and None if they are equal."""
        check_columns(self, self._get_estimator(), X, Y)
        if Y is None and y_Y is not None:
            raise ValueError(
                "`y_Y` must be None if `Y` is None, because X is compared with itself; got labels."
                " Pass them as `y_X`, or pass Y."
            )
        samples = self._make_samples(X, y_X, "y_X")
        if Y is None or (Y is X and y_Y is y_X):
            return samples, None
        return samples, self._make_samples(Y, y_Y, "y_Y")

    def _get_gram(self, X: Samples, Y: Samples | None, keep: bool) -> np.ndarray:
        """Return the kept gram matrix if it has the same fingerprint, else compute it."""
        source = self._make_source()
        if Y is not None or not (keep or hasattr(self, "_last")):
            return self._compute_gram(source, X, Y)
        key = fingerprint_value((self._get_settings(), source.fingerprint(X)))
        if getattr(self, "_last", ("", None))[0] != key:
            gram = self._compute_gram(source, X, Y)
            if not keep:
                return gram
            self._last = (key, gram)
        # A copy, because Gaussian processes add their noise in place.
        return self._last[1].copy()

    def _compare_pair(self, first: Samples, second: Samples) -> float:
        """Return the similarity of two single samples."""
        fingerprint = self._fingerprint()
        previous, cache = getattr(self, "_rows", ("", None))
        if cache is None or previous != fingerprint:
            cache = SampleCache(self._make_source(), self._similarity_whitening())
            self._rows = (fingerprint, cache)
        return float(self._similarity(cache.get_chunk(first), cache.get_chunk(second)))

    def diag(self, X: Any, y: Any = None) -> np.ndarray:
        """Compute the similarity of each sample with itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels of the samples, only with ``output="loss"``. None: the predicted ones.

        Returns
        -------
        diagonal : ndarray of shape (n_samples,), float64
            If ``normalize``: 1, or 0 for a sample whose similarity with every sample is 0.
        """
        samples = self._make_samples(X, y)
        chunks = iterate_chunks(self._make_source(), samples, self._similarity_whitening())
        chunks = with_progress(chunks, len(samples), self.verbose)
        return np.concatenate([self._own_similarity(chunk) for chunk in chunks])

    def is_stationary(self) -> bool:
        """Return whether the kernel depends only on the difference of two samples.

        Returns
        -------
        stationary : bool
            False.
        """
        return False

    @property
    def requires_vector_input(self) -> bool:
        """False if there are steps before the network, which may take texts; else True."""
        return not list_steps(self.estimator)

    @property
    def hyperparameters(self) -> list[Any]:
        """Hyper-parameters for a Gaussian process to tune: an empty list."""
        return []

    def _compute_gram(self, source: Source, X: Samples, Y: Samples | None) -> np.ndarray:
        whitening = self._similarity_whitening()
        return self._compute_pairs(source, X, Y, (whitening, whitening), self._similarity)

    def _similarity_whitening(self) -> str:
        """Return the whitening of the chunks that `_similarity` takes."""
        return self._choose_whitening("unit")

    def _similarity(self, rows: Chunk, columns: Chunk) -> Tensor:
        """Return the similarities of two whitened chunks, of shape (n, m), float64."""
        if self.normalize:
            return rows.cosines(columns)
        # tr(J(x) J(x')^T) / d
        return rows.jacobian.trace_gram(columns.jacobian) / rows.jacobian.outputs.shape[1]

    def _own_similarity(self, chunk: Chunk) -> np.ndarray:
        """Return the similarity of each sample of a whitened chunk with itself."""
        trace = chunk.own_similarity()
        return trace if self.normalize else trace / chunk.jacobian.outputs.shape[1]

    def _choose_whitening(self, normalized: str) -> str:
        """Return the given whitening if ``normalize``, else "none"."""
        return normalized if self.normalize else "none"

    def _compute_pairs(
        self,
        source: Source,
        X: Samples,
        Y: Samples | None,
        whitenings: tuple[str, str],
        compare: Callable[[Chunk, Chunk], Tensor],
    ) -> np.ndarray:
        """Return the results of ``compare``, a function of two whitened chunks, for all pairs."""
        source.check_samples_independent(X)
        Y = None if Y is not None and X.is_same(Y) else Y
        return compute_pair_matrix(source, X, Y, whitenings, compare, self.verbose)

    def _make_samples(self, X: Any, y: Any = None, parameter: str = "y") -> Samples:
        """Return the samples of X with labels, without the validation of `fit`."""
        start_call(self._shown_in_fit)
        return self._label_queries(make_samples(self._get_estimator(), X), y, parameter)

    def _get_estimator(self) -> Any:
        """Return the fitted network, or a trained one that was passed to the constructor."""
        check_is_network(self.estimator)
        is_features = isinstance(self.estimator, str)
        if is_features or is_trained(self.estimator):
            if not hasattr(self, "estimator_"):  # `fit` has warned.
                warn_if_without_epochs(self.estimator)
            return self.estimator
        if not hasattr(self, "estimator_"):
            raise NotFittedError(
                f"`estimator` must be a trained network if {type(self).__name__} is not fitted; got"
                " an untrained network. Train it, or call fit."
            )
        return self.estimator_

    def _make_source(self) -> Source:
        # A kernel with a trained network works without `fit`.
        self._validate_params()
        return self._make_source_for(self._get_estimator())
