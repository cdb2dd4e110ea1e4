"""Weighted means of values over the fitted samples: (sum_j W_j)^{-1} sum_j W_j v_j.

The weight W_j = W(x_n, x_j) of the fitted sample x_j for the sample x_n is a matrix with the axes a
and b: a d x d kernel, or a single number, whose axes have length 1. If the fitted samples have
weights c_j of their own, W_j is multiplied by c_j in all sums.

Index legend: n samples; j fitted samples (m of them); a, b, c axes of a weight; s, q values; d the
number of outputs of the network.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._kernels.jacobian import ParameterVectors
from .._kernels.similarities import COUNTS, Count
from .._kernels.whitening import METRICS
from .._networks.samples import Samples
from .chunks import Chunk, Source
from .sums import kernel_sums, linear_sums, pair_sums, sum_and_measure, sum_jacobians

#: Whitening of the Jacobians for the methods whose weights are linear in them.
LINEAR = {"unnormalized": "none", "soft": "unit"}

#: Names of all methods.
METHODS = (*LINEAR, *COUNTS)

# A sum of weights counts as rounding if it is at most this number times a eps times its size, where
# a is the length of its axis. Ranks of self-kernels use the same number.
_ROUNDING = 10

# The squares of smaller sums of weights would underflow.
_LEAST = 1e-150


@dataclass(frozen=True)
class WeightedSums:
    """Sums over the fitted samples for n samples.

    Attributes
    ----------
    total : Tensor of shape (n, a, b)
        sum_j W_j.
    values : Tensor of shape (n, a, s)
        sum_j W_j v_j.
    size : Tensor of shape (n,)
        Upper bound of sum_j |W_j|, the size that the total would have if no weights cancelled.
    squares : Tensor of shape (n, a, c) or None
        sum_j W_j W_j^T if requested.
    """

    total: Tensor
    values: Tensor
    size: Tensor
    squares: Tensor | None = None

    def is_singular(self, eps: float) -> Tensor:
        """Return a mask of shape (n,) of the samples whose weights cannot be normalised.

        The smallest singular value of sum_j W_j is 0 up to rounding, because a sample has no
        similar samples or because their weights cancel.
        """
        least = torch.linalg.svdvals(self.total)[:, -1]
        rounding = _ROUNDING * self.total.shape[1] * eps * self.size
        return least <= rounding.clamp(min=_LEAST)

    def means(self, singular: Tensor, instead: Tensor) -> Tensor:
        """Return the weighted means, of shape (n, a, s), with ``instead`` at singular samples."""
        # means = (sum_j W_j)^{-1} sum_j W_j v_j
        means = torch.linalg.solve(self._make_regular(singular), self.values)
        return torch.where(singular[:, None, None], instead, means)

    def noise_kept(self, singular: Tensor, instead: float) -> Tensor:
        r"""Return the share of the variance of independent noise that remains in the means.

        The share :math:`\operatorname{tr} \sum_j A_j A_j^T / a`, of shape (n,), with the normalised
        weights :math:`A_j = (\sum_l W_l)^{-1} W_j` and the length a of their axis. It is
        ``instead`` at singular samples.
        """
        inverse = torch.linalg.inv(self._make_regular(singular))
        # sum_j A_j A_j^T = B (sum_j W_j W_j^T) B^T with B = (sum_l W_l)^{-1}
        kept = torch.einsum("nab,nbc,nac->n", inverse, self.squares, inverse) / len(inverse[0])
        return torch.where(singular, instead, kept)

    def _make_regular(self, singular: Tensor) -> Tensor:
        """Return sum_j W_j, with the identity at singular samples."""
        identity = torch.eye(self.total.shape[1], dtype=self.total.dtype)
        return torch.where(singular[:, None, None], identity, self.total)


class Weights(Protocol):
    """Weights of the fitted samples, with their values."""

    def sums(
        self,
        source: Source,
        X: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """Return the sums over the fitted samples for each sample of X.

        Parameters
        ----------
        source : Source
            The source of Jacobians.
        X : Samples
            The samples x_n.
        own : ndarray of shape (n,), int64, or None
            For each sample, the fitted sample that is left out of its sums, or -1 for none. Of a
            fitted sample with c_j > 1, only the weight 1 is left out.
        squared : bool
            Whether to sum the squares of the weights. ``LinearWeights`` leaves no fitted sample out
            of the squares.
        verbose : int
            Whether to show a progress bar.
        """


@dataclass(frozen=True)
class LinearWeights:
    r"""Weights W_j = K(x_n, x_j) or W_j = tr K(x_n, x_j), whose sums need no pass over pairs.

    The sum over the fitted samples moves to their Jacobians: :math:`\sum_j K(x_n, x_j) v_j = J(x_n)
    \sum_j J(x_j)^T v_j`. The values 1 (the identity) give :math:`\sum_j W_j` by the same product.

    Attributes
    ----------
    whitening : str
        One of `WHITENINGS`, which K and J contain.
    fitted : Samples
        The fitted samples.
    values : Tensor of shape (m, a, a + s)
        The identity and the values v_j of each fitted sample, column by column, multiplied by c_j.
    vectors : dict
        Sums of the fitted samples' Jacobians, weighted by these columns.
    length : float
        Sum of the lengths c_j ||J(x_j)|| of the fitted samples' Jacobians.
    energy : Tensor of shape (a + s,)
        Sums of squared lengths sum_j ||J(x_j)^T v_j||^2, one for each column.
    """

    whitening: str
    fitted: Any
    values: Tensor
    vectors: ParameterVectors
    length: float
    energy: Tensor

    @classmethod
    def fit(
        cls,
        source: Source,
        fitted: Any,
        values: Tensor,
        whitening: str,
        verbose: Any = 0,
        sample_weight: Tensor | None = None,
    ) -> LinearWeights:
        """Return the weights of fitted samples with values of shape (m, a, s)."""
        values = _prepend_identity(values)
        if sample_weight is not None:
            values = values * sample_weight[:, None, None]
        weights = values if values.shape[1] > 1 else values[:, 0]
        vectors, measures = sum_and_measure(
            source, fitted, weights, whitening, _measure_lengths, verbose
        )
        lengths, energies = zip(*measures, strict=True)
        return cls(whitening, fitted, values, vectors, sum(lengths), sum(energies))

    def sums(
        self,
        source: Source,
        X: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """Return the sums by one pass over X, and by one over all pairs for the squares."""
        sums, weights = linear_sums(
            source, X, self.vectors, self.whitening, self._are_matrices, verbose
        )
        if own is not None:
            # The left-out fitted sample is x_n itself: sum_{j != n} W_j v_j = sums - W(x_n,x_n) v_n
            known = torch.as_tensor(own >= 0)
            left_out = self.values[torch.as_tensor(own)[known]]
            # The identity is multiplied by c_n. Of c_n > 1, only 1 is left out: c_n v_n / c_n.
            sums[known] -= weights[known] @ (left_out / left_out[:, :1, :1].clamp(min=1))
        # By Cauchy and Schwarz, sum_j |W(x_n, x_j)| <= ||J(x_n)|| sum_j ||J(x_j)||.
        axis, size = self.values.shape[1], _lengths(weights) * self.length
        squares = self._sum_squares(source, X, verbose) if squared else None
        return WeightedSums(sums[..., :axis], sums[..., axis:], size, squares)

    def _sum_squares(self, source: Source, X: Samples, verbose: Any) -> Tensor | None:
        """Return sum_j W_j W_j^T over all fitted samples."""
        weigh = _compute_grams if self._are_matrices else _compute_traces
        no_values = self.values[..., :0]
        sums = pair_sums(
            source,
            X,
            self.fitted,
            self.whitening,
            weigh,
            no_values,
            squared=True,
            verbose=verbose,
            sample_weight=self.values[:, 0, 0],
        )
        return sums.squares

    def alignment(self, column: int) -> float:
        """Return the length of a sum of vectors relative to that of independent directions.

        The vectors are J(x_j)^T v_j, with v_j from a column of the values. The result is
        ||sum_j J(x_j)^T v_j|| / sqrt(sum_j ||J(x_j)^T v_j||^2): 0 if the vectors cancel, about 1 if
        their directions are independent, and sqrt(m) if they are all the same vector.
        """
        count = self.values.shape[2]
        parts = [vector.reshape(count, -1)[column] for vector in self.vectors.values()]
        square = sum(float(part.double().square().sum()) for part in parts)
        energy = float(self.energy[column])
        return (square / energy) ** 0.5 if energy > 0 else 0.0

    @property
    def _are_matrices(self) -> bool:
        """True if the weights are d x d kernels and not their traces."""
        return self.values.shape[1] > 1


@dataclass(frozen=True)
class CountWeights:
    """Weights that count similar samples pair by pair, W_j = count(k^C(x_n, x_j)).

    Attributes
    ----------
    count : Count
        The count.
    fitted : Samples
        The fitted samples.
    values : Tensor of shape (m, 1, s)
        The values v_j of each fitted sample.
    sample_weight : Tensor of shape (m,), float64, or None
        The weights c_j of the fitted samples; None for 1.
    """

    count: Count
    fitted: Any
    values: Tensor
    sample_weight: Tensor | None = None

    def sums(
        self,
        source: Source,
        X: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """Return the sums by one pass over all pairs."""
        weigh = partial(_compute_counts, self.count, torch.finfo(source.dtype).eps)
        sums = pair_sums(
            source,
            X,
            self.fitted,
            "unit",
            weigh,
            self.values,
            own,
            squared,
            verbose,
            self.sample_weight,
        )
        # The weights are not negative, so the total is its own upper bound.
        return WeightedSums(sums.total, sums.weighted, sums.total[:, 0, 0], sums.squares)


def _compute_counts(count: Count, eps: float, first: Chunk, second: Chunk) -> Tensor:
    """Return count(k^C(x_n, x_j)), of shape (n, m), on the CPU."""
    return torch.as_tensor(count(first.cosines(second).cpu().numpy(), eps))


def make_empty_values(samples: int) -> Tensor:
    """Return s = 0 values per sample, for sums of weights only, of shape (samples, 1, 0)."""
    return torch.empty(samples, 1, 0, dtype=torch.float64)


def _prepend_identity(values: Tensor) -> Tensor:
    """Return the identity and the values of each sample side by side, of shape (m, a, a + s)."""
    identity = torch.eye(values.shape[1], dtype=torch.float64)
    return torch.cat([identity.expand(len(values), -1, -1), values], dim=2)


def _measure_lengths(chunk: Chunk, values: Tensor) -> tuple[float, Tensor]:
    """Return sum_j c_j ||J(x_j)||, and sum_j ||J(x_j)^T v_j||^2 of shape (s,), for a chunk.

    The first value of each sample is c_j.
    """
    weights = values if values.ndim == 3 else values[:, None]
    own = chunk.own_weight(values.ndim == 3)
    # ||J^T v||^2 = v^T K(x,x) v
    energy = torch.einsum("nas,nab,nbs->s", weights, own, weights)
    return float((weights[:, 0, 0] * _lengths(own)).sum()), energy


def _lengths(own: Tensor) -> Tensor:
    """Return the lengths ||J(x_n)|| = sqrt(tr K(x_n, x_n)), of shape (n,), from W(x_n, x_n)."""
    return METRICS["trace"](own).clamp(min=0).sqrt()


def _compute_traces(first: Chunk, second: Chunk) -> Tensor:
    """Return tr K(x_n, x_j), of shape (n, m)."""
    return first.jacobian.trace_gram(second.jacobian)


def _compute_grams(first: Chunk, second: Chunk) -> Tensor:
    """Return K(x_n, x_j), of shape (n, m, d, d)."""
    return first.jacobian.gram(second.jacobian)


def total_influence(
    source: Source,
    X: Samples,
    fitted: Any,
    absolute: bool,
    verbose: Any = 0,
    sample_weight: Tensor | None = None,
) -> np.ndarray:
    """Return the total influence of the fitted samples on each sample of X, of shape (n,), float64.

    It is sum_j c_j tr K(x_n, x_j) / tr K(x_n, x_n), or with ``absolute`` the sum of the absolute
    values c_j |tr K(x_n, x_j)|; 0 for a zero gradient. Without ``sample_weight``, c_j is 1.
    """
    values = None if sample_weight is None else sample_weight[:, None]
    total = {} if absolute else sum_jacobians(source, fitted, values, "none", verbose)
    sums, own = kernel_sums(source, X, total, "none", verbose)
    numerator = sums[:, 0]
    if absolute:
        numerator = _sum_absolute_traces(source, X, fitted, verbose, sample_weight)
    return np.divide(numerator, own, out=np.zeros_like(own), where=own > 0)


def _sum_absolute_traces(
    source: Source, X: Samples, fitted: Any, verbose: Any, sample_weight: Tensor | None
) -> np.ndarray:
    """Return sum_j c_j |tr K(x_n, x_j)|, of shape (n,)."""
    sums = pair_sums(
        source,
        X,
        fitted,
        "none",
        _compute_absolute_traces,
        make_empty_values(len(fitted)),
        verbose=verbose,
        sample_weight=sample_weight,
    )
    return sums.total[:, 0, 0].numpy()


def _compute_absolute_traces(first: Chunk, second: Chunk) -> Tensor:
    """Return |tr K(x_n, x_j)|, of shape (n, m)."""
    return _compute_traces(first, second).abs()


def merge_equal_samples(
    digests: Sequence[Hashable], sample_weight: np.ndarray
) -> tuple[list[Hashable | None], np.ndarray]:
    """Return digests and weights in which the first of equal samples has the weight of them all.

    The others have the digest None, which matches no query, and weight 0.
    """
    firsts: dict[Hashable, int] = {}
    positions = [firsts.setdefault(digest, index) for index, digest in enumerate(digests)]
    merged = np.bincount(positions, sample_weight, len(digests))
    kept = [digest if firsts[digest] == index else None for index, digest in enumerate(digests)]
    return kept, merged


def match_digests(fitted: Sequence[Hashable], queries: Sequence[Hashable]) -> np.ndarray:
    """Return the index of the fitted sample with the same digest as each query, or -1 if none.

    Queries with the same digest get the fitted samples with this digest in turn.
    """
    requested, turns = set(queries), Counter[Hashable]()
    indices: dict[Hashable, list[int]] = defaultdict(list)
    for index, digest in enumerate(fitted):
        if digest in requested:
            indices[digest].append(index)
    matches = np.full(len(queries), -1)
    for query, digest in enumerate(queries):
        if digest in indices:
            matches[query] = indices[digest][turns[digest] % len(indices[digest])]
            turns[digest] += 1
    return matches
