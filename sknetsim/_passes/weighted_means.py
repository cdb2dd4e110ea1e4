"""Weighted means over the fitted rows around a row: (sum_j W_j)^{-1} sum_j W_j v_j.

Index legend: n rows; m fitted rows; a, b, c axis of the weights (1 where they are numbers, else the
d outputs of the network); s values.
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

#: Weights that are linear in the gradients, and how these are whitened for them.
LINEAR = {"unnormalized": "none", "soft": "unit"}

#: All weights, by name.
METHODS = (*LINEAR, *COUNTS)

# As for the ranks of self-kernels: what is left of a sum after so much cancelled is rounding.
_ROUNDING = 10

# The squares of weights that sum to less would underflow.
_LEAST = 1e-150


@dataclass(frozen=True)
class WeightedSums:
    """Sums over fitted rows, for n rows.

    Attributes
    ----------
    total : Tensor of shape (n, a, a)
        sum_j W_j, of the weights.
    values : Tensor of shape (n, a, s)
        sum_j W_j v_j, of the weighted values.
    size : Tensor of shape (n,)
        What the weights' sum is at most, or would be without cancelling.
    squares : Tensor of shape (n, a, a) or None
        sum_j W_j W_j^T, where these were asked for.
    """

    total: Tensor
    values: Tensor
    size: Tensor
    squares: Tensor | None = None

    def lost(self, eps: float) -> Tensor:
        """Where the weights sum to nothing in some direction, up to rounding, of shape (n,)."""
        least = torch.linalg.svdvals(self.total)[:, -1]
        rounding = _ROUNDING * self.total.shape[1] * eps * self.size
        return least <= rounding.clamp(min=_LEAST)

    def means(self, lost: Tensor, instead: Tensor) -> Tensor:
        """The weighted means, of shape (n, a, s); those of lost rows are given."""
        found = torch.linalg.solve(self._regular(lost), self.values)
        return torch.where(lost[:, None, None], instead, found)

    def noise_kept(self, lost: Tensor, instead: float) -> Tensor:
        r"""Share of the variance of independent noise that the means keep, of shape (n,).

        :math:`\operatorname{tr} \sum_j A_j A_j^T / a` with A_j = (sum_l W_l)^{-1} W_j.
        """
        inverse = torch.linalg.inv(self._regular(lost))
        kept = torch.einsum("nab,nbc,nac->n", inverse, self.squares, inverse) / len(inverse[0])
        return torch.where(lost, instead, kept)

    def _regular(self, lost: Tensor) -> Tensor:
        identity = torch.eye(self.total.shape[1], dtype=self.total.dtype)
        return torch.where(lost[:, None, None], identity, self.total)


class Weights(Protocol):
    """The weights of the fitted rows, with their values."""

    def sums(
        self,
        source: Source,
        X: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """Around the rows of X; ``own`` are fitted rows to be left out, one each, or -1.

        With the sums of squares where asked for, from which no row is left out.
        """


@dataclass(frozen=True)
class LinearWeights:
    r"""Weights W_j = K(x, x_j), or their trace: sums of them take one pass over the rows.

    :math:`\sum_j K(x, x_j) v_j = J(x) \sum_j J(x_j)^T v_j`.

    Attributes
    ----------
    whitening : str
        Of `_kernels.WHITENINGS`.
    rows : any
        The fitted rows.
    values : Tensor of shape (m, a, a + s)
        The identity and the values of each fitted row.
    vectors : dict
        Their weighted sums of Jacobians.
    length : float
        Sum of the lengths of the fitted rows' Jacobians.
    energy : Tensor of shape (a + s,)
        Sums of the squared lengths of what each fitted row adds to the vectors.
    """

    whitening: str
    rows: Any
    values: Tensor
    vectors: ParameterVectors
    length: float
    energy: Tensor

    @classmethod
    def fit(
        cls, source: Source, rows: Any, values: Tensor, whitening: str, verbose: Any = 0
    ) -> LinearWeights:
        """From values of shape (m, a, s)."""
        values = _with_identity(values)
        weights = values if values.shape[1] > 1 else values[:, 0]
        vectors, found = sum_and_measure(source, rows, weights, whitening, _measured, verbose)
        lengths, energies = zip(*found, strict=True)
        return cls(whitening, rows, values, vectors, sum(lengths), sum(energies))

    def sums(
        self,
        source: Source,
        X: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """One pass over the rows, and one over the pairs for squares."""
        ways = (self.whitening, self._matrices, verbose)
        sums, weights = linear_sums(source, X, self.vectors, *ways)
        if own is not None:
            known = torch.as_tensor(own >= 0)
            sums[known] -= weights[known] @ self.values[torch.as_tensor(own)[known]]
        axis, size = self.values.shape[1], _lengths(weights) * self.length
        squares = self._squares(source, X, verbose) if squared else None
        return WeightedSums(sums[..., :axis], sums[..., axis:], size, squares)

    def _squares(self, source: Source, X: Samples, verbose: Any) -> Tensor | None:
        weigh = _matrices if self._matrices else _traces
        nothing = self.values[..., :0]
        found = pair_sums(
            source, X, self.rows, self.whitening, weigh, nothing, squared=True, verbose=verbose
        )
        return found.squares

    def gathered(self, column: int) -> float:
        """Length of sum_j J_j^T v_j, against the root of the sum of squares of its parts.

        0 where they cancel, about 1 where they point anywhere, sqrt(m) where all point one way.
        """
        count = self.values.shape[2]
        parts = [vector.reshape(count, -1)[column] for vector in self.vectors.values()]
        square = sum(float(part.double().square().sum()) for part in parts)
        energy = float(self.energy[column])
        return (square / energy) ** 0.5 if energy > 0 else 0.0

    @property
    def _matrices(self) -> bool:
        return self.values.shape[1] > 1


@dataclass(frozen=True)
class CountWeights:
    """Weights that count similar samples pair by pair, W_j = count(k^C(x, x_j)).

    Attributes
    ----------
    count : Count
        The count.
    rows : any
        The fitted rows.
    values : Tensor of shape (m, 1, s)
        Their values.
    """

    count: Count
    rows: Any
    values: Tensor

    def sums(
        self,
        source: Source,
        X: Samples,
        own: np.ndarray | None = None,
        squared: bool = False,
        verbose: Any = 0,
    ) -> WeightedSums:
        """One pass over the pairs."""
        weigh = partial(_count_pairs, self.count, torch.finfo(source.dtype).eps)
        values = self.values
        found = pair_sums(source, X, self.rows, "unit", weigh, values, own, squared, verbose)
        return WeightedSums(found.total, found.weighted, found.total[:, 0, 0], found.squares)


def _count_pairs(count: Count, eps: float, rows: Chunk, columns: Chunk) -> Tensor:
    return torch.as_tensor(count(rows.cosines(columns).cpu().numpy(), eps))


def make_empty_values(samples: int) -> Tensor:
    """For rows that are counted, and nothing of theirs averaged."""
    return torch.empty(samples, 1, 0, dtype=torch.float64)


def _with_identity(values: Tensor) -> Tensor:
    identity = torch.eye(values.shape[1], dtype=torch.float64)
    return torch.cat([identity.expand(len(values), -1, -1), values], dim=2)


def _measured(chunk: Chunk, values: Tensor) -> tuple[float, Tensor]:
    """Lengths of the Jacobians, and squared lengths of what they add to the sums."""
    weights = values if values.ndim == 3 else values[:, None]
    own = chunk.own_weight(values.ndim == 3)
    energy = torch.einsum("nas,nab,nbs->s", weights, own, weights)
    return float(_lengths(own).sum()), energy


def _lengths(weights: Tensor) -> Tensor:
    """Of the Jacobians, from their self-kernels."""
    return METRICS["trace"](weights).clamp(min=0).sqrt()


def _traces(rows: Chunk, columns: Chunk) -> Tensor:
    return rows.jacobian.trace_gram(columns.jacobian)


def _matrices(rows: Chunk, columns: Chunk) -> Tensor:
    return rows.jacobian.gram(columns.jacobian)


def total_influence(
    source: Source, X: Samples, rows: Any, absolute: bool, verbose: Any = 0
) -> np.ndarray:
    """sum_j tr K(x, x_j) / tr K(x, x) over fitted rows, or of absolute values, of shape (n,)."""
    total = {} if absolute else sum_jacobians(source, rows, None, "none", verbose)
    sums, own = kernel_sums(source, X, total, "none", verbose)
    found = _absolute_sums(source, X, rows, verbose) if absolute else sums[:, 0]
    return np.divide(found, own, out=np.zeros_like(own), where=own > 0)


def _absolute_sums(source: Source, X: Samples, rows: Any, verbose: Any) -> np.ndarray:
    nothing = make_empty_values(len(rows))
    found = pair_sums(source, X, rows, "none", _absolute_traces, nothing, verbose=verbose)
    return found.total[:, 0, 0].numpy()


def _absolute_traces(rows: Chunk, columns: Chunk) -> Tensor:
    return _traces(rows, columns).abs()


def match_digests(fitted: Sequence[Hashable], rows: Sequence[Hashable]) -> np.ndarray:
    """The fitted row with the same digest, of equal ones each in its turn, or -1."""
    asked, turns = set(rows), Counter[Hashable]()
    places: dict[Hashable, list[int]] = defaultdict(list)
    for index, digest in enumerate(fitted):
        if digest in asked:
            places[digest].append(index)
    found = np.full(len(rows), -1)
    for row, digest in enumerate(rows):
        if digest in places:
            found[row] = places[digest][turns[digest] % len(places[digest])]
            turns[digest] += 1
    return found
