"""Chunks of Jacobians with their self-kernels and whitening, and products with them.

Index legend: n, m samples; o, p outputs of the network (d of them); q vectors; w one parameter,
flattened. J_o(x_n) is the gradient of output o at sample n, W[n,o,p] the whitening matrix at x_n,
and J^_o(x_n) = sum_p W[n,o,p] J_p(x_n) the whitened Jacobian. Without a whitening, W is the
identity.
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
from ..exceptions import NonFiniteError
from .lost_gradients import LostGradients, report_lost_gradients


class Source(Protocol):
    """Source of Jacobians: an engine, or `FeatureSource`."""

    def jacobians(
        self, X: Samples, start: int = 0, factored: bool = False
    ) -> Iterator[tuple[slice, Jacobian]]:
        """Yield the Jacobians of the samples from ``start`` on, chunk by chunk.

        The blocks have the form that is cheaper for sums; with ``factored``, they keep the factors
        of their layers.
        """

    def fingerprint(self, X: Samples) -> str:
        """Return a fingerprint of everything that determines the Jacobians of X."""

    def fingerprint_of_samples(self, X: Samples) -> str:
        """Return a fingerprint of the samples, in the form in which they are differentiated."""

    def digest(self, X: Samples, dtype: torch.dtype) -> list[bytes]:
        """Return a digest of each sample, in the form in which it is differentiated."""

    def check_samples_independent(self, X: Samples) -> None:
        """Raise an error if the preprocessing of a sample depends on the other samples."""

    def identity(self) -> str:
        """Return a fingerprint of everything except the samples."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the gradients."""

    #: Number of workers for passes over samples, as in joblib.
    n_jobs: int | None


@dataclass(frozen=True)
class Chunk:
    """Jacobians of consecutive samples, with their self-kernels and their whitening.

    Attributes
    ----------
    rows : slice
        Positions of the samples in the data set.
    jacobian : Jacobian
        The Jacobians J(x_n), before the whitening.
    self_kernel : Tensor of shape (n, d, d), float64, or None
        The self-kernels K(x_n, x_n); None if the Jacobians have been whitened.
    root : Tensor of shape (n, d, d), float64, or None
        Their pseudo-inverse square roots K(x_n, x_n)^{-1/2} for the whitening "half", else None.
    rank : Tensor of shape (n,), int64
        Their ranks, or d without a whitening; 0 for a zero gradient.
    dropped : Tensor of shape (n,), int64
        Numbers of outputs that the whitening drops, see `inverse_root`; 0 without a whitening.
    whitening : Tensor of shape (n, d, d), float64, or None
        The matrices W(x_n) that are still to be applied to the Jacobians; None for the identity.
    """

    rows: slice
    jacobian: Jacobian
    self_kernel: Tensor | None
    root: Tensor | None
    rank: Tensor
    dropped: Tensor
    whitening: Tensor | None

    @property
    def nbytes(self) -> int:
        """Size in bytes of a whitened chunk: the blocks of its Jacobians, and its roots."""
        return self.jacobian.nbytes + (0 if self.root is None else self.root.nbytes)

    def own_kernel(self) -> Tensor:
        """Return the whitened self-kernels, of shape (n, d, d), float64."""
        if self.self_kernel is None:
            return self.jacobian.self_kernel()
        if self.whitening is None:
            return self.self_kernel
        # K^(x,x) = J^ J^T = W K(x,x) W^T
        return self.whitening @ self.self_kernel @ self.whitening.mT

    def own_similarity(self) -> np.ndarray:
        """Return the traces of the whitened self-kernels, of shape (n,), float64."""
        return METRICS["trace"](self.own_kernel()).cpu().numpy()

    def cosines(self, other: Chunk) -> Tensor:
        """Return k^C of unit-whitened chunks, of shape (n, m), float64, in [-1, 1]."""
        return self.jacobian.cosines(other.jacobian)

    def own_weight(self, matrices: bool) -> Tensor:
        """Return the whitened self-kernels (n, d, d), or their traces (n, 1, 1), on the CPU."""
        kernel = self.own_kernel().cpu()
        return kernel if matrices else METRICS["trace"](kernel)[:, None, None]

    def inner(self, vectors: ParameterVectors) -> Tensor:
        """Return sum_o <J^_o(x_n), v_qo>, of shape (n, q), float64.

        The vectors v_qo have the shape (q d, w). Without vectors, because no output has a gradient,
        q is 1 and the sums are 0.
        """
        outputs = self.jacobian.outputs.shape[1]
        # With one output, W is a number per sample: it scales the products, not the Jacobians.
        scale = self.whitening if outputs == 1 else None
        jacobian = (self if scale is not None else self.whitened()).jacobian
        count = max(1, len(next(iter(vectors.values()), ())) // outputs)
        parts = (slice(index * outputs, (index + 1) * outputs) for index in range(count))
        # products[n,q] = sum_o <J^_o(x_n), v_qo>, one q at a time
        products = torch.stack(
            [
                jacobian.inner({name: stacked[part] for name, stacked in vectors.items()})
                for part in parts
            ],
            dim=1,
        )
        return products if scale is None else products * scale[:, 0]

    def product(self, vectors: ParameterVectors) -> Tensor:
        """Return <J^_o(x_n), v_q> of shape (n, o, q), float64, from vectors of shape (q, w)."""
        return self.whitened().jacobian.product(vectors)

    def add_to(self, total: ParameterVectors, values: Tensor) -> None:
        """Add sums of the whitened Jacobians, weighted by values, to the total of each parameter.

        Values v of shape (n, q) keep the outputs apart: the sums are sum_n v[n,q] J^_o(x_n), of
        shape (q d, w). Values v of shape (n, d, q) sum over the outputs as well: the sums are
        sum_no v[n,o,q] J^_o(x_n), of shape (q, w).
        """
        samples, outputs = self.jacobian.outputs.shape
        identity = torch.eye(outputs, dtype=torch.float64, device=values.device)
        # W^T is applied to the values and not to the Jacobians, because
        # sum_o v_o J^_o = sum_op v_o W[o,p] J_p = sum_p (W^T v)_p J_p
        transposed = (
            identity.expand(samples, -1, -1) if self.whitening is None else self.whitening.mT
        )
        if values.ndim == 3:
            # weights[n,p,q] = sum_o W[n,o,p] v[n,o,q]
            weights = transposed @ values
        else:
            # weights[n,p,(q,o)] = W[n,o,p] v[n,q]
            weights = torch.einsum("npo,nq->npqo", transposed, values).flatten(2)
        self.jacobian.weighted_sum(weights, total)

    def whitened(self) -> Chunk:
        """Return the chunk with its whitening applied to the Jacobians."""
        if self.whitening is None:
            return self
        whitened = self.jacobian.whiten(self.whitening)
        # Few callers need the whitened self-kernels, so `own_kernel` computes them.
        return replace(self, jacobian=whitened, self_kernel=None, whitening=None)

    def count_lost_gradients(self) -> LostGradients:
        """Return the numbers of samples with a zero gradient or dropped outputs, and of all."""
        return LostGradients(
            int((self.rank == 0).sum()),
            len(self.rank),
            self.jacobian.vector_name,
            int((self.dropped > 0).sum()),
            int(self.dropped.max()),
            self.jacobian.outputs.shape[1],
        )

    def split(self, limit: int) -> list[Chunk]:
        """Return parts of nearly equal length, with at most ``limit`` samples each."""
        count = -(-len(self.rank) // limit)
        return [self.part(rows) for rows in gen_even_slices(len(self.rank), count)]

    def part(self, part: slice) -> Chunk:
        """Return the samples of a slice of the chunk."""
        rows = slice(self.rows.start + part.start, self.rows.start + part.stop)
        kernel, root, whitening = (
            None if matrices is None else matrices[part]
            for matrices in (self.self_kernel, self.root, self.whitening)
        )
        jacobian, rank, dropped = self.jacobian.rows(part), self.rank[part], self.dropped[part]
        return Chunk(rows, jacobian, kernel, root, rank, dropped, whitening)


def iterate_chunks(
    source: Source,
    X: Samples,
    whitening: str = "unit",
    start: int = 0,
    counted: bool = True,
    factored: bool = False,
) -> Iterator[Chunk]:
    """Yield chunks of the samples from ``start`` on, for one of `WHITENINGS`.

    At the end, zero gradients and dropped outputs are reported if ``counted``.
    """
    lost = LostGradients()
    for rows, jacobian in source.jacobians(X, start, factored):
        kernel = jacobian.for_sums().self_kernel()
        root, rank, dropped = _compute_roots(jacobian, kernel, whitening, X, rows)
        matrices = WHITENINGS[whitening](root, rank)
        # Other roots are not needed beside the whitening, and take much memory for many outputs.
        kept = root if whitening == "half" else None
        chunk = Chunk(rows, jacobian, kernel, kept, rank, dropped, matrices)
        yield chunk
        lost.add(chunk.count_lost_gradients())
    if counted:
        report_lost_gradients(lost)


def _compute_roots(
    jacobian: Jacobian, kernel: Tensor, whitening: str, X: Samples, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result of `Jacobian.roots` for a whitening; an error names a row of X."""
    try:
        return jacobian.roots(kernel, inverted=whitening != "none")
    except NonFiniteError as error:
        first = rows.start + error.rows[0]
        raise error.locate(X.rows[rows], X.describe_non_finite(first)) from None


def with_progress(chunks: Iterable[Chunk], samples: int, verbose: Any) -> Iterator[Chunk]:
    """Yield the chunks, with a progress bar over the samples if ``verbose``."""
    with tqdm(total=samples, disable=not verbose, unit="sample") as progress:
        for chunk in chunks:
            yield chunk
            progress.update(len(chunk.rank))
