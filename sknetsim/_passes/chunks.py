"""Passes over data: chunks of Jacobians with their whitening, and sums over them.

Index legend: n, m samples; o, p outputs of the network (d of them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.utils import gen_even_slices
from torch import Tensor
from tqdm.auto import tqdm

from .._kernels.jacobian import Jacobian, ParameterVectors
from .._kernels.whitening import METRICS, WHITENINGS
from .._networks.samples import Samples
from .zero_gradients import ZeroGradients, report_zero_gradients


class Source(Protocol):
    """What gives Jacobians: an engine, or `FeatureRows`."""

    def jacobians(
        self, X: Samples, y: Any = None, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """The Jacobians of the rows of X from ``start`` on, chunk by chunk.

        In a form for sums; ``factored`` leaves layers' factors as they are.
        """

    def fingerprint(self, X: Samples, y: Any = None) -> str:
        """Of all that the Jacobians of X depend on."""

    def fingerprint_of_rows(self, X: Samples) -> str:
        """Of the rows alone, as they are used."""

    def check_rows_independent(self, X: Samples) -> None:
        """Refuse what is done to rows where it depends on the rows around them."""

    def identity(self) -> str:
        """Of all but the rows."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the gradients."""

    #: Workers for passes over the rows.
    n_jobs: int | None


@dataclass(frozen=True)
class Chunk:
    """Jacobians of the rows of a slice, with roots and ranks of their self-kernels.

    ``whitening`` is what acts on the output axis, None where nothing does.
    """

    rows: slice
    jacobian: Jacobian
    self_kernel: Tensor
    root: Tensor
    rank: Tensor
    whitening: Tensor | None

    def own_kernel(self) -> Tensor:
        """The whitened self-kernels, of shape (n, d, d), float64."""
        if self.whitening is None:
            return self.self_kernel
        return self.whitening @ self.self_kernel @ self.whitening.mT

    def own_similarity(self) -> np.ndarray:
        """The trace of the whitened self-kernels, of shape (n,), float64."""
        return METRICS["trace"](self.own_kernel()).cpu().numpy()

    def cosines(self, other: Chunk) -> Tensor:
        """Return k^C of unit-whitened chunks, of shape (n, m), float64, in [-1, 1]."""
        return self.jacobian.cosines(other.jacobian)

    def own_weight(self, matrices: bool) -> Tensor:
        """The whitened self-kernels (n, d, d), or their traces (n, 1, 1), on the CPU."""
        kernel = self.own_kernel().cpu()
        return kernel if matrices else METRICS["trace"](kernel)[:, None, None]

    def inner(self, total: ParameterVectors) -> Tensor:
        """sum_o <(whitened J)_o(x), v_qo> with vectors (q d, w), of shape (n, q), float64."""
        outputs = self.jacobian.outputs.shape[1]
        scale = self.whitening if outputs == 1 else None
        acting = self if scale is not None else self.whitened()
        # Nothing is summed where no output has a gradient: then every product is 0.
        count = max(1, len(next(iter(total.values()), ())) // outputs)
        parts = (slice(value * outputs, (value + 1) * outputs) for value in range(count))
        found = [
            acting.jacobian.inner({name: vector[part] for name, vector in total.items()})
            for part in parts
        ]
        products = torch.stack(found, dim=1)
        return products if scale is None else products * scale[:, 0]

    def product(self, vectors: ParameterVectors) -> Tensor:
        """<(whitened J)_o(x), v_q>, of shape (n, o, q), float64."""
        return self.whitened().jacobian.product(vectors)

    def add_to(self, total: ParameterVectors, values: Tensor) -> None:
        """Add the whitened Jacobians, times values, per parameter.

        Values (n, q) give each output a sum of its own, of shape (q d, w); values (n, d, q) one
        sum over the outputs, of shape (q, w).
        """
        samples, outputs = self.jacobian.outputs.shape
        identity = torch.eye(outputs, dtype=torch.float64, device=values.device)
        acting = identity.expand(samples, -1, -1) if self.whitening is None else self.whitening.mT
        if values.ndim == 3:
            weights = acting @ values
        else:
            weights = torch.einsum("nop,nq->noqp", acting, values).flatten(2)
        self.jacobian.weighted_sum(weights, total)

    def whitened(self) -> Chunk:
        """The chunk with the whitened Jacobians, and nothing left to do."""
        if self.whitening is None:
            return self
        whitened = self.jacobian.whiten(self.whitening)
        return replace(self, jacobian=whitened, self_kernel=self.own_kernel(), whitening=None)

    def split(self, limit: int) -> list[Chunk]:
        """Parts of nearly equal length, of at most so many rows."""
        count = -(-len(self.rank) // limit)
        return [self.part(rows) for rows in gen_even_slices(len(self.rank), count)]

    def part(self, part: slice) -> Chunk:
        """Some of the rows."""
        rows = slice(self.rows.start + part.start, self.rows.start + part.stop)
        jacobian, whitening = self.jacobian.rows(part), self.whitening
        return Chunk(
            rows,
            jacobian,
            self.self_kernel[part],
            self.root[part],
            self.rank[part],
            None if whitening is None else whitening[part],
        )


def iterate_chunks(
    source: Source,
    X: Samples,
    whitening: str = "unit",
    y: Any = None,
    start: int = 0,
    counted: bool = True,
    factored: bool = False,
) -> Iterator[Chunk]:
    """Chunks for one of `_kernels.WHITENINGS`; zero gradients are reported, if counted."""
    zeros, total, vector = 0, 0, ""
    for rows, jacobian in source.jacobians(X, y, start, factored):
        kernel, vector = jacobian.for_sums().self_kernel(), jacobian.vector_name
        root, rank = jacobian.roots(kernel)
        weights = WHITENINGS[whitening](root, rank)
        yield Chunk(rows, jacobian, kernel, root, rank, weights)
        zeros, total = zeros + int((rank == 0).sum()), total + len(rank)
    if counted:
        report_zero_gradients(ZeroGradients(zeros, total, vector))


def with_progress(chunks: Iterable[Chunk], samples: int, verbose: Any) -> Iterator[Chunk]:
    """The chunks, with a progress bar over the samples where asked for."""
    with tqdm(total=samples, disable=not verbose, unit="sample") as progress:
        for chunk in chunks:
            yield chunk
            progress.update(len(chunk.rank))
