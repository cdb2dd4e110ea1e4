"""Sums over fitted rows, around each row, by all pairs.

Index legend: n rows; m fitted rows; a, b, c axis of the weights; s values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._kernels.jacobian import Jacobian, ParameterVectors
from .._networks.memory import check_within_budget
from .._networks.samples import Samples
from .chunks import Chunk, Source, iterate_chunks, with_progress
from .parallel import map_samples, relative_slice
from .reductions import reduce_pairs


def pair_sums(
    source: Source,
    X: Samples,
    rows: Any,
    whitening: str,
    weigh: Callable[[Chunk, Chunk], Tensor],
    values: Tensor,
    own: np.ndarray | None = None,
    squared: bool = False,
    verbose: Any = 0,
) -> PairSums:
    """The sums around the rows of X, by all pairs."""
    make, others = partial(PairSums, values, own, squared), None if X is rows else rows
    whitenings = (whitening, whitening)
    found: PairSums = reduce_pairs(source, X, others, make, weigh, whitenings, verbose)
    return found


class PairSums:
    """Sums over fitted rows, the columns: of weights, their products with values, their squares."""

    def __init__(
        self,
        values: Tensor,
        own: np.ndarray | None,
        squared: bool,
        rows: slice,
        columns: slice,
    ):
        self._values, self._own, self.rows = values, own, rows
        samples, axis = rows.stop - rows.start, values.shape[1]
        self.total, squares, self.weighted = (
            torch.zeros(samples, axis, width, dtype=torch.float64)
            for width in (axis, axis, values.shape[2])
        )
        self.squares = squares if squared else None

    def add(self, rows: slice, columns: slice, found: Tensor) -> None:
        """Take the weights of a tile."""
        at, axis = relative_slice(rows, self.rows), found.shape[2:]
        weights = found.cpu().reshape(*found.shape[:2], *(axis or (1, 1)))
        if self._own is not None:
            weights = _without(weights, self._own[rows], columns)
        self.total[at] += weights.sum(dim=1)
        self.weighted[at] += torch.einsum("nmab,mbs->nas", weights, self._values[columns])
        if self.squares is not None:
            self.squares[at] += torch.einsum("nmab,nmcb->nac", weights, weights)

    def merge(self, other: PairSums) -> None:
        """Take the sums over other columns."""
        at = relative_slice(other.rows, self.rows)
        self.total[at] += other.total
        self.weighted[at] += other.weighted
        if self.squares is not None and other.squares is not None:
            self.squares[at] += other.squares

    def __getstate__(self) -> dict[str, Any]:
        """What was found; not what it was made from."""
        return {**self.__dict__, "_values": None, "_own": None}


def _without(weights: Tensor, own: np.ndarray, columns: slice) -> Tensor:
    """The weights of some fitted rows, one for each row, set to zero."""
    (rows,) = np.nonzero((own >= columns.start) & (own < columns.stop))
    if len(rows):
        weights = weights.clone()  # A mirrored tile may share its memory.
        weights[rows, own[rows] - columns.start] = 0
    return weights


def sum_jacobians(
    source: Source, X: Samples, values: Any = None, whitening: str = "unit", verbose: Any = 0
) -> ParameterVectors:
    """Sums of the whitened Jacobians, times values as `Chunk.add_to` takes them.

    Without values, each counts once.
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
    """A `sum_jacobians`, and what is measured of each chunk and its values."""
    values = torch.as_tensor(np.ones((len(X), 1)) if values is None else values)
    total: ParameterVectors = {}
    found: list[Any] = []
    for _, (part, measured) in map_samples(
        _sum_and_measure, source, X, (values,), (whitening, measure), verbose
    ):
        for name, vector in part.items():
            total[name] = total[name].add_(vector) if name in total else vector
        found += measured
    return total, found


def _sum_and_measure(
    source: Source,
    X: Samples,
    values: Tensor,
    whitening: str,
    measure: Callable[[Chunk, Tensor], Any],
    verbose: Any,
) -> tuple[ParameterVectors, list[Any]]:
    total: ParameterVectors = {}
    found: list[Any] = []
    for chunk in with_progress(iterate_chunks(source, X, whitening), len(values), verbose):
        if not total:
            outputs = chunk.jacobian.outputs.shape[1]
            _check_sum_affordable(
                chunk.jacobian, values.shape[-1] * (outputs if values.ndim == 2 else 1)
            )
        chunk.add_to(total, values[chunk.rows].to(chunk.self_kernel))
        found.append(measure(chunk, values[chunk.rows]))
    return total, found


def _measure_nothing(chunk: Chunk, values: Tensor) -> None:
    """Where nothing is measured."""


def kernel_sums(
    source: Source, X: Samples, total: ParameterVectors, whitening: str = "unit", verbose: Any = 0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Sums over fitted rows of their values times the kernel, from a `sum_jacobians` of them.

    :math:`\sum_j v_{jq} \operatorname{tr} K(x, x_j)`, K as whitened: two passes in place of all
    pairs of samples.

    Returns
    -------
    sums : ndarray of shape (n, q), float64
        The sums.
    own : ndarray of shape (n,), float64
        The trace of K(x, x).
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
    """J(x) applied to sums of Jacobians, and W(x, x), for weights W that are K or its trace.

    Of shape (n, a, q) and (n, a, a), float64, on the CPU: a is d for matrices, else 1.
    """
    parts = map_samples(_linear_sums, source, X, (), (vectors, whitening, matrices), verbose)
    sums, own = (torch.cat(found) for found in zip(*(part for _, part in parts), strict=True))
    return sums, own


def _linear_sums(
    source: Source,
    X: Samples,
    vectors: ParameterVectors,
    whitening: str,
    matrices: bool,
    verbose: Any,
) -> tuple[Tensor, Tensor]:
    found = []
    for chunk in with_progress(iterate_chunks(source, X, whitening), len(X), verbose):
        sums = chunk.product(vectors) if matrices else chunk.inner(vectors)[:, None]
        found.append((sums.cpu(), chunk.own_weight(matrices)))
    sums, own = (torch.cat(parts) for parts in zip(*found, strict=True))
    return sums, own


def _check_sum_affordable(jacobian: Jacobian, vectors: int) -> None:
    """The sums, and once more their largest part, before that is added."""
    outputs = jacobian.outputs
    parts = [sum(shape.numel() for _, shape in block.layout) for block in jacobian.blocks.values()]
    needed = vectors * (jacobian.width // outputs.shape[1] + max(parts, default=0))
    check_within_budget(
        f"The sum of the gradients of {outputs.shape[1]} outputs",
        needed * outputs.element_size(),
        "Compare fewer outputs (output='predicted') or fewer parameters ('last_layer')",
        outputs.device,
    )
