"""Passes over data: whitened Jacobians, pairs of samples, sums, within the memory budget.

Index legend: n, m samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import _jacobian, _kernels, _memory
from ._blocks import DenseBlock
from ._inputs import Rows
from ._jacobian import Jacobian, ParameterVectors
from .exceptions import ZeroGradientWarning


class Source(Protocol):
    """What gives Jacobians: a `GradientEngine`, or `FeatureRows`."""

    def jacobians(self, X: Any, y: Any = None) -> Iterator[tuple[slice, Jacobian]]:
        """The Jacobians of the rows of X, chunk by chunk."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the gradients."""


class FeatureRows:
    """Rows that are gradient features already: used as they are, never normalised again."""

    _CHUNK_ROWS = 1024
    dtype = torch.float64

    def jacobians(self, X: Any, y: Any = None) -> Iterator[tuple[slice, Jacobian]]:
        """The rows as Jacobians of one output."""
        rows = Rows(X)
        for start in range(0, len(rows), self._CHUNK_ROWS):
            chunk = slice(start, min(start + self._CHUNK_ROWS, len(rows)))
            features = _checked_features(rows.take(chunk)).to(self.dtype)
            layout = (("features", features.shape[1:]),)
            block = DenseBlock(layout, features[:, None])
            yield chunk, FeatureJacobian({("features",): block}, layout, features[:, :1])


def _checked_features(features: Any) -> Tensor:
    is_tensor = isinstance(features, Tensor)
    shape = f"rows of shape {tuple(features.shape[1:])}" if is_tensor else "several arrays"
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(
            f"X has {shape}; with estimator='features' allowed are rows of gradient features, of"
            " shape (n_samples, n_features), as GradientFeaturizer gives them."
        )
    longest = float(features.double().norm(dim=1).max())
    if longest > 1 + 1e-3:
        raise ValueError(
            f"X has rows of length up to {longest:.3g}; with estimator='features' allowed are"
            " lengths up to 1, as GradientFeaturizer gives them: use its output."
        )
    return features


class FeatureJacobian(Jacobian):
    """Rows of features, whose whitening is done."""

    def roots(self) -> tuple[Tensor, Tensor]:
        """Ones."""
        ones = self.outputs.new_ones(len(self), 1, 1, dtype=torch.float64)
        return ones, ones[:, 0, 0].long()


@dataclass(frozen=True)
class Chunk:
    """Whitened Jacobians of the rows of a slice; roots and ranks of their self-kernels."""

    rows: slice
    jacobian: Jacobian
    root: Tensor
    rank: Tensor


def whitened(
    source: Source,
    X: Any,
    whitening: str = "unit",
    y: Any = None,
    verbose: Any = 0,
    counted: bool = True,
) -> Iterator[Chunk]:
    """Jacobians after one of `_kernels.WHITENINGS`; zero gradients are reported, if counted."""
    zeros = total = 0
    with tqdm(total=len(Rows(X)), disable=not verbose, unit="sample") as progress:
        for rows, jacobian in source.jacobians(X, y):
            root, rank = jacobian.roots()
            weights = _kernels.WHITENINGS[whitening](root, rank)
            whitened_jacobian = jacobian if weights is None else jacobian.whiten(weights)
            yield Chunk(rows, whitened_jacobian, root, rank)
            zeros, total = zeros + int((rank == 0).sum()), total + len(rank)
            progress.update(len(rank))
    if zeros and counted:
        warnings.warn(
            f"{zeros} of {total} samples have a zero gradient: their similarity with every sample"
            " is 0 (is the network dead there, or does it saturate?).",
            ZeroGradientWarning,
            stacklevel=3,
        )


def pieces(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Chunks joined as long as their blocks stay within a quarter of the memory budget."""
    waiting: list[Chunk] = []
    for chunk in chunks:
        taken = sum(piece.jacobian.nbytes for piece in waiting)
        if waiting and taken + chunk.jacobian.nbytes > _memory.budget() // 4:
            yield _joined(waiting)
            waiting = []
        waiting.append(chunk)
    yield _joined(waiting)


def _joined(chunks: list[Chunk]) -> Chunk:
    rows = slice(chunks[0].rows.start, chunks[-1].rows.stop)
    jacobian = _jacobian.concatenate([chunk.jacobian for chunk in chunks])
    root, rank = ([getattr(chunk, name) for chunk in chunks] for name in ("root", "rank"))
    return Chunk(rows, jacobian, torch.cat(root), torch.cat(rank))


def pairs(
    source: Source, X: Any, Y: Any, whitenings: tuple[str, str] = ("unit", "unit"), verbose: Any = 0
) -> Iterator[tuple[Chunk, Chunk]]:
    """All pairs of a piece of X and a chunk of Y, which is gone through for each piece of X."""
    samples, others = len(Rows(X)), len(Rows(X if Y is None else Y))
    with tqdm(
        total=samples * others, disable=not verbose, unit="pair", unit_scale=True
    ) as progress:
        for rows in pieces(whitened(source, X, whitenings[0])):
            if Y is None and whitenings[0] == whitenings[1] and len(rows.rank) == samples:
                yield rows, rows
                progress.update(samples * others)
                continue
            for columns in whitened(source, X if Y is None else Y, whitenings[1], counted=False):
                yield rows, columns
                progress.update(len(rows.rank) * len(columns.rank))


def grams(
    source: Source, X: Any, Y: Any = None, verbose: Any = 0
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """k^C of pieces of X and Y: the rows, the columns, and the gram of shape (n, m), float64."""
    for rows, columns in pairs(source, X, Y, verbose=verbose):
        yield rows.rows, columns.rows, cosines(rows, columns).cpu().numpy()


def cosines(rows: Chunk, columns: Chunk) -> Tensor:
    """k^C of unit Jacobians, of shape (n, m); rounding must not leave [-1, 1]."""
    return rows.jacobian.trace_gram(columns.jacobian).clamp(-1, 1)


def gram(source: Source, X: Any, Y: Any = None, verbose: Any = 0) -> np.ndarray:
    """k^C of all pairs, of shape (n, m), float64."""
    return assembled(source, X, Y, ("unit", "unit"), cosines, verbose)


def assembled(
    source: Source,
    X: Any,
    Y: Any,
    whitenings: tuple[str, str],
    function: Callable[[Chunk, Chunk], Tensor],
    verbose: Any = 0,
) -> np.ndarray:
    """One array of shape (n, m, ...) of a function of pieces."""
    shape = (len(Rows(X)), len(Rows(X if Y is None else Y)))
    result: np.ndarray | None = None
    for rows, columns in pairs(source, X, Y, whitenings, verbose):
        values = function(rows, columns).cpu().numpy()
        if result is None:
            result = np.empty(shape + values.shape[2:])
        result[rows.rows, columns.rows] = values
    assert result is not None
    return result


def unit_sum(source: Source, X: Any, verbose: Any = 0) -> ParameterVectors:
    """The sum of the whitened Jacobians of unit norm, of shape (d, w) for each parameter."""
    total: ParameterVectors = {}
    for chunk in whitened(source, X, verbose=verbose):
        samples, outputs = chunk.jacobian.outputs.shape
        identity = torch.eye(outputs, dtype=source.dtype, device=chunk.rank.device)
        for name, value in chunk.jacobian.weighted_sum(identity.expand(samples, -1, -1)).items():
            total[name] = total.get(name, 0) + value.double()
    return {name: value.to(source.dtype) for name, value in total.items()}
