"""The Jacobians of a chunk of samples: one block per layer.

Index legend: n, m samples; o, p outputs of the network (d of them); q vectors; w parameters of a
block, flattened; P all parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..exceptions import UnsupportedNetworkError
from .blocks import Block, DenseBlock, concatenate_blocks
from .layouts import FourierMap, Layout
from .precision import in_full_precision
from .whitening import inverse_root

# Samples whose gradients are held in float64 at a time.
_DOUBLE_ROWS = 32

# Bytes of a block that are gathered at a time for pairs of samples.
_PAIRED_BYTES = 2**23

#: One tensor of shape (q, w) for each parameter.
ParameterVectors = dict[str, Tensor]


@dataclass(frozen=True)
class Jacobian:
    """J(x) of n samples, (n, d, P) if it were written out.

    Attributes
    ----------
    blocks : dict
        Block of each group of parameters, by their names; a parameter without one is zero.
    layout : tuple of (str, Size)
        All selected parameters, in the network's order.
    outputs : Tensor of shape (n, d)
        The outputs that are differentiated.
    """

    blocks: dict[tuple[str, ...], Block]
    layout: Layout
    outputs: Tensor

    #: What it holds, for messages.
    described: ClassVar[str] = "gradient"

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def width(self) -> int:
        """Length d P of a sample's Jacobian written in one row."""
        return self.outputs.shape[1] * sum(_sizes(self.layout))

    @property
    def nbytes(self) -> int:
        """Bytes that the blocks take."""
        return sum(block.nbytes for block in self.blocks.values())

    @in_full_precision
    def for_sums(self) -> Jacobian:
        """Each block in the form that is cheaper for self-kernels and sums."""
        return self._map(lambda block: block.for_sums())

    @in_full_precision
    def for_pairs(self) -> Jacobian:
        """Each block in the form that is cheaper for grams."""
        return self._map(lambda block: block.for_pairs())

    def rows(self, rows: Any) -> Jacobian:
        """The Jacobians of some of the samples."""
        return replace(self._map(lambda block: block.rows(rows)), outputs=self.outputs[rows])

    def split(self, sizes: Sequence[int]) -> list[Jacobian]:
        """The Jacobians of so many samples each, one after the other."""
        blocks = {key: block.split(sizes) for key, block in self.blocks.items()}
        return [
            replace(self, blocks={key: parts[index] for key, parts in blocks.items()}, outputs=part)
            for index, part in enumerate(self.outputs.split(list(sizes)))
        ]

    @in_full_precision
    def self_kernel(self) -> Tensor:
        """K(x, x), of shape (n, d, d), float64."""
        total = self._self_kernel()
        if self.outputs.dtype is not torch.float64:
            lost = torch.nonzero(_beyond_single(total))[:, 0]
            for rows in lost.split(_DOUBLE_ROWS) if len(lost) else ():
                doubled = self.rows(rows)._map(lambda block: block.double())
                total[rows] = doubled._self_kernel()
        return total

    def _self_kernel(self) -> Tensor:
        samples, outputs = self.outputs.shape
        total = self.outputs.new_zeros(samples, outputs, outputs, dtype=torch.float64)
        for block in self.blocks.values():
            total += block.self_kernel()
        return total

    @in_full_precision
    def gram(self, other: Jacobian) -> Tensor:
        """K(x, x'), of shape (n, m, d, d), float64."""
        shape = (len(self), len(other), self.outputs.shape[1], other.outputs.shape[1])
        total = self.outputs.new_zeros(shape, dtype=torch.float64)
        for block, others in self._aligned(other):
            total += block.gram(others)
        return total

    @in_full_precision
    def trace_gram(self, other: Jacobian) -> Tensor:
        """The trace of K(x, x'), of shape (n, m), float64."""
        total = self.outputs.new_zeros(len(self), len(other), dtype=torch.float64)
        for block, others in self._aligned(other):
            total += block.trace_gram(others)
        return total

    def cosines(self, other: Jacobian) -> Tensor:
        """Return k^C(x, x') of whitened Jacobians, of shape (n, m), float64, in [-1, 1].

        k^C = tr K^C(x, x') / sqrt(r r') = <J^(x), J^(x')>_F, if J^ = K(x, x)^{-1/2} J / sqrt(r).
        """
        # Rounding must not leave [-1, 1].
        return self.trace_gram(other).clamp_(-1, 1)

    @in_full_precision
    def paired(self, other: Jacobian, rows: Tensor, columns: Tensor) -> Tensor:
        """The trace of K(x, x') for some pairs of samples, of shape (pairs,), float64."""
        total = self.outputs.new_zeros(len(rows), dtype=torch.float64)
        for block, others in self._aligned(other):
            for piece in torch.arange(len(rows), device=rows.device).split(self._step(block)):
                total[piece] += block.rows(rows[piece]).paired(others.rows(columns[piece]))
        return total

    @in_full_precision
    def marginals(self, other: Jacobian, by_rows: Mapping[str, bool]) -> dict[str, Tensor]:
        """What entries of J(x) add to the trace of K(x, x'), for rows taken one by one.

        Summed, for each parameter, over one axis as in `Block.marginals`; a parameter that is not
        there adds nothing.
        """
        found = {}
        for block, others in self._aligned(other):
            entries = [by_rows[name] for name, _ in block.layout]
            parts = [
                block.rows(rows).for_pairs().marginals(others.rows(rows).for_pairs(), entries)
                for rows in torch.arange(len(self)).split(self._step(block))
            ]
            for (name, _), pieces in zip(block.layout, zip(*parts, strict=True), strict=True):
                found[name] = torch.cat(pieces)
        return found

    def _step(self, block: Block) -> int:
        """Samples of a block that are gathered at a time."""
        return max(1, _PAIRED_BYTES * len(self) // max(1, block.nbytes))

    def roots(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """K(x, x)^{-1/2} of shape (n, d, d) and the ranks (n,) of these self-kernels."""
        bad = int((~torch.isfinite(kernel)).flatten(1).any(dim=1).sum())
        if bad:
            raise UnsupportedNetworkError(
                f"estimator has {self.described}s that are NaN or infinite at {bad} of"
                f" {len(self)} samples; {self.described}s must be finite: leave such samples out,"
                " or smooth the network there."
            )
        return inverse_root(kernel, self.outputs.dtype)

    @in_full_precision
    def whiten(self, root: Tensor) -> Jacobian:
        """The Jacobians root(x) J(x)."""
        return self._map(lambda block: block.whiten(root))

    @in_full_precision
    def weighted_sum(
        self, weights: Tensor, total: ParameterVectors | None = None
    ) -> ParameterVectors:
        """sum_n,o weights[n, o, q] J_o(x_n) for each parameter, of shape (q, w).

        Added in place to a ``total`` where there is one, parameter by parameter.
        """
        sums: ParameterVectors = {} if total is None else total
        for block in self.blocks.values():
            for (name, _), part in zip(block.layout, block.weighted_sum(weights), strict=True):
                sums[name] = sums[name].add_(part) if name in sums else part
        return sums

    @in_full_precision
    def inner(self, vectors: ParameterVectors) -> Tensor:
        """sum_o <J_o(x), v_o>, of shape (n,), float64; a parameter without a vector is zero."""
        total = self.outputs.new_zeros(len(self), dtype=torch.float64)
        for block in self.blocks.values():
            if any(name in vectors for name, _ in block.layout):
                total += block.inner(self._of_layout(block.layout, vectors))
        return total

    @in_full_precision
    def product(self, vectors: ParameterVectors) -> Tensor:
        """<J_o(x), v_q>, of shape (n, o, q), float64; a parameter without vectors is zero."""
        count = len(next(iter(vectors.values()), ()))
        total = self.outputs.new_zeros(*self.outputs.shape, count, dtype=torch.float64)
        for block in self.blocks.values():
            if any(name in vectors for name, _ in block.layout):
                total += block.product(self._of_layout(block.layout, vectors))
        return total

    @in_full_precision
    def sketch(self, maps: dict[str, FourierMap]) -> Tensor:
        """Tensor sketch in the Fourier domain, of shape (n, f), complex."""
        parts = [
            block.sketch([maps[name] for name, _ in block.layout]) for block in self.blocks.values()
        ]
        frequencies = next(iter(maps.values())).rows
        return sum(parts, start=frequencies.new_zeros(len(self), frequencies.shape[1]))

    def _of_layout(self, layout: Layout, vectors: ParameterVectors) -> list[Tensor]:
        count = len(next(iter(vectors.values())))
        return [
            vectors[name] if name in vectors else self.outputs.new_zeros(count, shape.numel())
            for name, shape in layout
        ]

    @in_full_precision
    def materialize(self) -> Tensor:
        """The Jacobians written out, of shape (n, d, P), in the order of the layout."""
        samples, outputs = self.outputs.shape
        written = self._by_parameter(self.blocks)
        return torch.cat(
            [
                written[name,].materialize()
                if (name,) in written
                else self.outputs.new_zeros(samples, outputs, shape.numel())
                for name, shape in self.layout
            ],
            dim=2,
        )

    def _map(self, function: Callable[[Block], Block]) -> Jacobian:
        blocks = {key: function(block) for key, block in self.blocks.items()}
        return replace(self, blocks=blocks)

    def _aligned(self, other: Jacobian) -> Iterable[tuple[Block, Block]]:
        """Pairs of blocks of the same parameters; those grouped differently are split."""
        shared = self.blocks.keys() & other.blocks.keys()
        for key in self.blocks:
            if key in shared:
                yield self.blocks[key], other.blocks[key]
        mine = self._by_parameter({k: b for k, b in self.blocks.items() if k not in shared})
        theirs = self._by_parameter({k: b for k, b in other.blocks.items() if k not in shared})
        for key in mine.keys() & theirs.keys():
            yield mine[key], theirs[key]

    @staticmethod
    def _by_parameter(blocks: dict[tuple[str, ...], Block]) -> dict[tuple[str, ...], DenseBlock]:
        found: dict[tuple[str, ...], DenseBlock] = {}
        for block in blocks.values():
            parts = block.materialize().split(_sizes(block.layout), dim=2)
            for entry, part in zip(block.layout, parts, strict=True):
                found[entry[0],] = DenseBlock((entry,), part)
        return found


def _beyond_single(self_kernel: Tensor) -> Tensor:
    """Where squares may have left the range of float32, as a mask of shape (n,)."""
    traces = self_kernel.diagonal(dim1=1, dim2=2).sum(dim=1)
    return ~((traces > 1e-30) & (traces < 1e30))


def _sizes(layout: Layout) -> list[int]:
    return [shape.numel() for _, shape in layout]


def concatenate_jacobians(jacobians: Sequence[Jacobian]) -> Jacobian:
    """One Jacobian of all the samples."""
    if len(jacobians) == 1:
        return jacobians[0]
    outputs = torch.cat([jacobian.outputs for jacobian in jacobians])
    if len({frozenset(jacobian.blocks) for jacobian in jacobians}) > 1:
        jacobians = [_one_dense_block(jacobian) for jacobian in jacobians]
    blocks = {
        key: concatenate_blocks([jacobian.blocks[key] for jacobian in jacobians])
        for key in jacobians[0].blocks
    }
    return Jacobian(blocks, jacobians[0].layout, outputs)


def _one_dense_block(jacobian: Jacobian) -> Jacobian:
    key = tuple(name for name, _ in jacobian.layout)
    return replace(jacobian, blocks={key: DenseBlock(jacobian.layout, jacobian.materialize())})
