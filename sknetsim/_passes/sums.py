"""Sums over fitted samples, by all pairs or by sums of Jacobians.

The weight W[n,m] of the fitted sample x_m for the sample x_n is a matrix with the axes a and b: a
d x d kernel, or a single number, whose axes have length 1.

Index legend: n samples; m, j fitted samples; a, b, c axes of a weight; s, q values; o outputs of
the network (d of them); w one parameter, flattened. J^_o(x_n) is the whitened gradient of output o.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._kernels.jacobian import Jacobian, ParameterVectors
from .._networks.memory import SUMS, check_within_budget
from .._networks.samples import Samples
from .chunks import Chunk, Source, iterate_chunks, with_progress
from .parallel import map_samples, relative_slice
from .reductions import reduce_pairs


def pair_sums(
    source: Source,
    X: Samples,
    fitted: Any,
    whitening: str,
    weigh: Callable[[Chunk, Chunk], Tensor],
    values: Tensor,
    own: np.ndarray | None = None,
    squared: bool = False,
    verbose: Any = 0,
    sample_weight: Tensor | None = None,
) -> PairSums:
    """Return the `PairSums` of the samples of X over all fitted samples.

    Parameters
    ----------
    source : Source
        The source of Jacobians.
    X : Samples
        The samples x_n.
    fitted : Samples
        The fitted samples x_m.
    whitening : str
        One of `WHITENINGS`.
    weigh : callable
        Function of two tiles that returns their weights, of shape (n, m) or (n, m, a, b).
    values, own, squared, sample_weight
        See `PairSums`.
    verbose : int
        Whether to show a progress bar.
    """
    make = partial(PairSums, values, own, squared, sample_weight=sample_weight)
    # Pairs of one set with itself are computed once.
    others = None if X.is_same(fitted) else fitted
    whitenings = (whitening, whitening)
    sums: PairSums = reduce_pairs(source, X, others, make, weigh, whitenings, verbose)
    return sums


class PairSums:
    """Sums over fitted samples, the columns of the pairs, which may have weights c_m of their own.

    Parameters
    ----------
    values : Tensor of shape (m, b, s)
        The values v_m of all fitted samples.
    own : ndarray of shape (n,), int64, or None
        For each sample, the fitted sample that is left out of its sums, or -1 for none. Of a fitted
        sample with c_m > 1, only the weight 1 is left out.
    squared : bool
        Whether to sum the squares of the weights.
    rows, columns : slice
        The samples and the fitted samples of these sums.
    sample_weight : Tensor of shape (m,), float64, or None
        The weights c_m, which W[n,m] is multiplied by; None for 1.

    Attributes
    ----------
    total : Tensor of shape (n, a, b)
        sum_m W[n,m], with W[n,m] multiplied by c_m here and below.
    weighted : Tensor of shape (n, a, s)
        sum_m W[n,m] v_m.
    squares : Tensor of shape (n, a, c) or None
        sum_m W[n,m] W[n,m]^T if requested.
    """

    def __init__(
        self,
        values: Tensor,
        own: np.ndarray | None,
        squared: bool,
        rows: slice,
        columns: slice,
        sample_weight: Tensor | None = None,
    ):
        self._values, self._own, self._sample_weight = values, own, sample_weight
        self.rows = rows
        samples, axis = rows.stop - rows.start, values.shape[1]
        self.total, squares, self.weighted = (
            torch.zeros(samples, axis, width, dtype=torch.float64)
            for width in (axis, axis, values.shape[2])
        )
        self.squares = squares if squared else None

    def add(self, rows: slice, columns: slice, weights: Tensor) -> None:
        """Add the weights of a tile, of shape (n, m) or (n, m, a, b)."""
        place, axes = relative_slice(rows, self.rows), weights.shape[2:]
        weights = weights.cpu().reshape(*weights.shape[:2], *(axes or (1, 1)))
        if self._own is not None:
            weights = _leave_out(weights, self._own[rows], columns, self._sample_weight)
        if self._sample_weight is not None:
            weights = weights * self._sample_weight[columns, None, None]
        # total[n,a,b] = sum_m W[n,m,a,b]
        self.total[place] += weights.sum(dim=1)
        # weighted[n,a,s] = sum_mb W[n,m,a,b] v[m,b,s]
        self.weighted[place] += torch.einsum("nmab,mbs->nas", weights, self._values[columns])
        if self.squares is not None:
            # squares[n,a,c] = sum_mb W[n,m,a,b] W[n,m,c,b]
            self.squares[place] += torch.einsum("nmab,nmcb->nac", weights, weights)

    def merge(self, other: PairSums) -> None:
        """Add the sums over other columns."""
        place = relative_slice(other.rows, self.rows)
        self.total[place] += other.total
        self.weighted[place] += other.weighted
        if self.squares is not None and other.squares is not None:
            self.squares[place] += other.squares

    def __getstate__(self) -> dict[str, Any]:
        """Return the sums without the values, which the receiver has."""
        return {**self.__dict__, "_values": None, "_own": None, "_sample_weight": None}


def _leave_out(
    weights: Tensor, own: np.ndarray, columns: slice, sample_weight: Tensor | None
) -> Tensor:
    """Return W[n,m] times the share of c_m that is kept: 1 except for own[n] = m."""
    (rows,) = np.nonzero((own >= columns.start) & (own < columns.stop))
    if len(rows):
        # The original is not changed, because the mirrored tile may share its memory.
        weights = weights.clone()
        masses = torch.ones(len(rows)) if sample_weight is None else sample_weight[own[rows]]
        # c_m becomes max(c_m - 1, 0), so the share is max(1 - 1 / c_m, 0).
        weights[rows, own[rows] - columns.start] *= (1 - 1 / masses).clamp(min=0)[:, None, None]
    return weights


def sum_jacobians(
    source: Source, X: Samples, values: Any = None, whitening: str = "unit", verbose: Any = 0
) -> ParameterVectors:
    """Return sums of the whitened Jacobians, weighted by values of a shape of `Chunk.add_to`.

    Without values, all weights are 1: the sums are sum_n J^_o(x_n), of shape (d, w).
    """
    return sum_and_measure(source, X, values, whitening, _measure_nothing, verbose)[0]


def sum_and_measure(
    source: Source,
    X: Samples,
    values: Any,
    whitening: str,
    measure: Callable[[Chunk, Tensor], Any],
    verbose: Any = 0,
) -> tuple[ParameterVectors, list[Any]]:
    """Return the sums of `sum_jacobians`, and ``measure(chunk, values)`` for each chunk."""
    values = torch.as_tensor(np.ones((len(X), 1)) if values is None else values)
    total: ParameterVectors = {}
    measures: list[Any] = []
    for _, (part, part_measures) in map_samples(
        _sum_part, source, X, (values,), (whitening, measure), verbose
    ):
        for name, vector in part.items():
            total[name] = total[name].add_(vector) if name in total else vector
        measures += part_measures
    return total, measures


def _sum_part(
    source: Source,
    X: Samples,
    values: Tensor,
    whitening: str,
    measure: Callable[[Chunk, Tensor], Any],
    verbose: Any,
) -> tuple[ParameterVectors, list[Any]]:
    """Return `sum_and_measure` of a part of X, computed by one worker."""
    total: ParameterVectors = {}
    measures: list[Any] = []
    for chunk in with_progress(iterate_chunks(source, X, whitening), len(values), verbose):
        if not total:
            outputs = chunk.jacobian.outputs.shape[1]
            vectors = values.shape[-1] * (outputs if values.ndim == 2 else 1)
            _check_sum_fits(chunk.jacobian, vectors)
        chunk.add_to(total, values[chunk.rows].to(chunk.rank.device, torch.float64))
        measures.append(measure(chunk, values[chunk.rows]))
    return total, measures


def _measure_nothing(chunk: Chunk, values: Tensor) -> None:
    """Return None, because `sum_jacobians` needs no measure."""


def kernel_sums(
    source: Source, X: Samples, total: ParameterVectors, whitening: str = "unit", verbose: Any = 0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return sums over fitted samples of their values times the trace of the whitened kernel.

    ``total`` contains the sums of `sum_jacobians` over the fitted samples x_j with the values v.
    Two passes over samples replace a pass over all pairs, because for whitened J and K
    :math:`\sum_j v_{jq} \operatorname{tr} K(x_n, x_j) = \sum_o \langle J_o(x_n), \sum_j v_{jq}
    J_o(x_j) \rangle`.

    Returns
    -------
    sums : ndarray of shape (n, q), float64
        The sums.
    own : ndarray of shape (n,), float64
        The traces of the whitened self-kernels K(x_n, x_n).
    """
    sums, own = linear_sums(source, X, total, whitening, False, verbose)
    return sums[:, 0].numpy(), own[:, 0, 0].numpy()


def linear_sums(
    source: Source,
    X: Samples,
    vectors: ParameterVectors,
    whitening: str,
    matrices: bool,
    verbose: Any = 0,
) -> tuple[Tensor, Tensor]:
    """Return weighted sums by products with ``vectors``, and the weights W(x_n, x_n).

    With ``matrices``, the weights W are the whitened kernels K, the vectors of shape (q, w) are
    sum_j sum_o v[j,o,q] J^_o(x_j), and the axis a has length d. Without, the weights are the traces
    tr K, the vectors of shape (q d, w) are sum_j v[j,q] J^_o(x_j), and a has length 1.

    Returns
    -------
    sums : Tensor of shape (n, a, q), float64
        sum_j W(x_n, x_j) v_j, on the CPU.
    own : Tensor of shape (n, a, a), float64
        W(x_n, x_n), on the CPU.
    """
    parts = map_samples(_linear_sums_part, source, X, (), (vectors, whitening, matrices), verbose)
    sums, own = (torch.cat(tensors) for tensors in zip(*(part for _, part in parts), strict=True))
    return sums, own


def _linear_sums_part(
    source: Source,
    X: Samples,
    vectors: ParameterVectors,
    whitening: str,
    matrices: bool,
    verbose: Any,
) -> tuple[Tensor, Tensor]:
    """Return `linear_sums` of a part of X, computed by one worker."""
    parts = []
    for chunk in with_progress(iterate_chunks(source, X, whitening), len(X), verbose):
        # sums[n,o,q] = <J^_o(x_n), v_q>, or sums[n,0,q] = sum_o <J^_o(x_n), v_qo>
        sums = chunk.product(vectors) if matrices else chunk.inner(vectors)[:, None]
        parts.append((sums.cpu(), chunk.own_weight(matrices)))
    sums, own = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return sums, own


def _check_sum_fits(jacobian: Jacobian, vectors: int) -> None:
    """Raise an error if the sums, and a copy of their largest part, exceed the memory budget."""
    outputs = jacobian.outputs
    parts = [sum(shape.numel() for _, shape in block.layout) for block in jacobian.blocks.values()]
    needed = vectors * (jacobian.width // outputs.shape[1] + max(parts, default=0))
    check_within_budget(
        f"The sum of the gradients of {outputs.shape[1]} outputs",
        needed * outputs.element_size(),
        "Compare fewer outputs (output='predicted') or fewer parameters ('last_layer')",
        outputs.device,
        SUMS,
    )
