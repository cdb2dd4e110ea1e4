"""Jacobians of a chunk of samples, with one block per layer.

Index legend: n, m samples; o, p outputs of the network (d of them); q vectors; w one parameter,
flattened; P the number of elements of all parameters; r, c a parameter's first axis and its other
axes, flattened; f frequencies; i pairs of samples. J_o(x_n) is the gradient of output o at sample
n, and J' and x' belong to the other Jacobian. Under a sum, letters side by side are several
indices: sum_no runs over all n and o. A kernel of all parameters is the sum of the kernels of the
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..exceptions import NonFiniteError
from .blocks import Block, DenseBlock, concatenate_blocks, split_by_parameter
from .layouts import FourierMap, Layout
from .precision import in_full_precision
from .whitening import identity_root, inverse_root

# Number of samples whose gradients are converted to float64 at a time.
_DOUBLE_SAMPLES = 32

# Bytes of a block that are copied at a time for pairs of samples.
_PAIRED_BYTES = 2**23

#: One tensor of shape (q, w) for each parameter.
ParameterVectors = dict[str, Tensor]


@dataclass(frozen=True)
class Jacobian:
    """Jacobians J(x) of n samples, which would have the shape (n, d, P) if written out.

    Attributes
    ----------
    blocks : dict
        Block of each group of parameters, by the names of these parameters. The gradient of a
        parameter without a block is zero.
    layout : tuple of (str, Size)
        Names and shapes of all selected parameters, in the network's order.
    outputs : Tensor of shape (n, d)
        The outputs that are differentiated.
    """

    blocks: dict[tuple[str, ...], Block]
    layout: Layout
    outputs: Tensor

    #: Word for one of the vectors J_o(x), used in messages.
    vector_name: ClassVar[str] = "gradient"

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def width(self) -> int:
        """Length d P of a sample's Jacobian as one vector."""
        return self.outputs.shape[1] * sum(_sizes(self.layout))

    @property
    def nbytes(self) -> int:
        """Size of the blocks in bytes."""
        return sum(block.nbytes for block in self.blocks.values())

    @in_full_precision
    def for_sums(self, vectors: int = 1) -> Jacobian:
        """Return each block in the form that is cheaper for self-kernels and weighted sums.

        The weighted sums have ``vectors`` weights for each output, see `weighted_sum`.
        """
        return self._map(lambda block: block.for_sums(vectors))

    def double(self) -> Jacobian:
        """Return the Jacobians with their blocks in float64."""
        return self._map(lambda block: block.double())

    @in_full_precision
    def for_pairs(self) -> Jacobian:
        """Return each block in the form that is cheaper for gram matrices."""
        return self._map(lambda block: block.for_pairs())

    def rows(self, rows: Any) -> Jacobian:
        """Return the Jacobians of the samples with these indices, or in this slice."""
        return replace(self._map(lambda block: block.rows(rows)), outputs=self.outputs[rows])

    def split(self, sizes: Sequence[int]) -> list[Jacobian]:
        """Return Jacobians of consecutive samples, with ``sizes`` samples each."""
        blocks = {key: block.split(sizes) for key, block in self.blocks.items()}
        return [
            replace(self, blocks={key: parts[index] for key, parts in blocks.items()}, outputs=part)
            for index, part in enumerate(self.outputs.split(list(sizes)))
        ]

    @in_full_precision
    def self_kernel(self) -> Tensor:
        """Return K[n,o,p] = <J_o(x_n), J_p(x_n)>, of shape (n, d, d), float64.

        Samples whose squares may have left the range of float32 are computed again in float64.
        """
        total = self._sum_self_kernels()
        if self.outputs.dtype is not torch.float64:
            unsafe = torch.nonzero(_may_leave_float32(total))[:, 0]
            for samples in unsafe.split(_DOUBLE_SAMPLES) if len(unsafe) else ():
                doubled = self.rows(samples).double()
                total[samples] = doubled._sum_self_kernels()
        return total

    def _sum_self_kernels(self) -> Tensor:
        """Return the sum of the self-kernels of all blocks, of shape (n, d, d), float64."""
        samples, outputs = self.outputs.shape
        total = self.outputs.new_zeros(samples, outputs, outputs, dtype=torch.float64)
        for block in self.blocks.values():
            total += block.self_kernel()
        return total

    @in_full_precision
    def gram(self, other: Jacobian) -> Tensor:
        """Return K[n,m,o,p] = <J_o(x_n), J'_p(x'_m)>, of shape (n, m, d, d), float64."""
        shape = (len(self), len(other), self.outputs.shape[1], other.outputs.shape[1])
        total = self.outputs.new_zeros(shape, dtype=torch.float64)
        for block, others in self._pair_blocks(other):
            total += block.gram(others)
        return total

    @in_full_precision
    def trace_gram(self, other: Jacobian) -> Tensor:
        """Return tr K(x_n, x'_m) = sum_o <J_o(x_n), J'_o(x'_m)>, of shape (n, m), float64."""
        total = self.outputs.new_zeros(len(self), len(other), dtype=torch.float64)
        for block, others in self._pair_blocks(other):
            total += block.trace_gram(others)
        return total

    def cosines(self, other: Jacobian) -> Tensor:
        """Return k^C(x, x') of whitened Jacobians, of shape (n, m), float64, in [-1, 1].

        k^C = tr K^C(x, x') / sqrt(r r') = <J^(x), J^(x')>_F, where J^ = K(x, x)^{-1/2} J / sqrt(r)
        is the whitened Jacobian and r the rank of K(x, x).
        """
        # Rounding must not leave [-1, 1].
        return self.trace_gram(other).clamp_(-1, 1)

    @in_full_precision
    def paired(self, other: Jacobian, rows: Tensor, columns: Tensor) -> Tensor:
        """Return tr K(x_n, x'_m) for each pair n = rows[i] and m = columns[i], float64.

        These are entries of `trace_gram`, in a tensor of shape (i,).
        """
        total = self.outputs.new_zeros(len(rows), dtype=torch.float64)
        for block, others in self._pair_blocks(other):
            step = self._count_copied_samples(block)
            for part in torch.arange(len(rows), device=rows.device).split(step):
                own = block.rows(rows[part])
                total[part] += own.paired(others.rows(columns[part]))
        return total

    @in_full_precision
    def marginals(self, other: Jacobian, by_rows: Mapping[str, bool]) -> dict[str, Tensor]:
        """Return the share of each row or column of each parameter in tr K(x_n, x'_n).

        `Block.marginals` defines these shares.

        Parameters
        ----------
        other : Jacobian
            Jacobians of n samples.
        by_rows : dict of str to bool
            For each parameter, True for the shares of its rows and False for those of its columns.

        Returns
        -------
        marginals : dict of str to Tensor of shape (n, r) or (n, c)
            Shares of each parameter; a parameter without a block is left out.
        """
        marginals = {}
        for block, others in self._pair_blocks(other):
            entries = [by_rows[name] for name, _ in block.layout]
            step = self._count_copied_samples(block)
            parts = [
                block.rows(part).for_pairs().marginals(others.rows(part).for_pairs(), entries)
                for part in torch.arange(len(self)).split(step)
            ]
            for (name, _), tensors in zip(block.layout, zip(*parts, strict=True), strict=True):
                marginals[name] = torch.cat(tensors)
        return marginals

    def _count_copied_samples(self, block: Block) -> int:
        """Return how many samples of a block are copied at a time."""
        return max(1, _PAIRED_BYTES * len(self) // max(1, block.nbytes))

    def roots(self, kernel: Tensor, inverted: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return the results of `inverse_root` for the self-kernels, or those of `identity_root`.

        The latter are returned unless ``inverted``.
        """
        bad = (~torch.isfinite(kernel)).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        if bad:
            raise NonFiniteError(
                f"`estimator` must have finite {self.vector_name}s; got {self.vector_name}s that"
                " are NaN or infinite",
                bad,
                len(self),
                "Leave out these samples, or make the network smooth at them.",
            )
        return (inverse_root if inverted else identity_root)(kernel, self.outputs.dtype)

    @in_full_precision
    def whiten(self, root: Tensor) -> Jacobian:
        """Return the Jacobians sum_p root[n,o,p] J_p(x_n)."""
        return self._map(lambda block: block.whiten(root))

    @in_full_precision
    def weighted_sum(
        self, weights: Tensor, total: ParameterVectors | None = None
    ) -> ParameterVectors:
        """Return sum_no weights[n,o,q] J_o(x_n), of shape (q, w) for each parameter.

        If a ``total`` is given, the sums are added to it in place.
        """
        sums: ParameterVectors = {} if total is None else total
        for block in self.blocks.values():
            for (name, _), part in zip(block.layout, block.weighted_sum(weights), strict=True):
                sums[name] = sums[name].add_(part) if name in sums else part
        return sums

    @in_full_precision
    def inner(self, vectors: ParameterVectors) -> Tensor:
        """Return sum_o <J_o(x_n), v_o>, of shape (n,), float64.

        The vectors have the shape (o, w). A parameter without vectors counts as zero.
        """
        total = self.outputs.new_zeros(len(self), dtype=torch.float64)
        for block in self.blocks.values():
            if any(name in vectors for name, _ in block.layout):
                total += block.inner(self._list_vectors(block.layout, vectors))
        return total

    @in_full_precision
    def product(self, vectors: ParameterVectors) -> Tensor:
        """Return J v, that is <J_o(x_n), v_q> of shape (n, o, q), float64.

        The vectors have the shape (q, w). A parameter without vectors counts as zero.
        """
        count = len(next(iter(vectors.values()), ()))
        total = self.outputs.new_zeros(*self.outputs.shape, count, dtype=torch.float64)
        for block in self.blocks.values():
            if any(name in vectors for name, _ in block.layout):
                total += block.product(self._list_vectors(block.layout, vectors))
        return total

    @in_full_precision
    def sketch(self, maps: dict[str, FourierMap]) -> Tensor:
        """Return the tensor sketch of J(x_n) in the Fourier domain, of shape (n, f), complex."""
        parts = [
            block.sketch([maps[name] for name, _ in block.layout]) for block in self.blocks.values()
        ]
        frequencies = next(iter(maps.values())).rows
        return sum(parts, start=frequencies.new_zeros(len(self), frequencies.shape[1]))

    def _list_vectors(self, layout: Layout, vectors: ParameterVectors) -> list[Tensor]:
        """Return the vectors in the order of a layout, with zeros for missing parameters."""
        count = len(next(iter(vectors.values())))
        return [
            vectors[name] if name in vectors else self.outputs.new_zeros(count, shape.numel())
            for name, shape in layout
        ]

    @in_full_precision
    def materialize(self) -> Tensor:
        """Return the Jacobians written out, of shape (n, d, P), in the order of the layout."""
        samples, outputs = self.outputs.shape
        written = self._split_by_parameter(self.blocks)
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
        """Return the Jacobians with a function applied to each block."""
        blocks = {key: function(block) for key, block in self.blocks.items()}
        return replace(self, blocks=blocks)

    def _pair_blocks(self, other: Jacobian) -> Iterable[tuple[Block, Block]]:
        """Yield pairs of blocks of the same parameters.

        Blocks that group the parameters differently are written out and split by parameter. A
        parameter without a block in one of the Jacobians contributes nothing.
        """
        shared = self.blocks.keys() & other.blocks.keys()
        for key in self.blocks:
            if key in shared:
                yield self.blocks[key], other.blocks[key]
        own, others = (
            self._split_by_parameter({k: b for k, b in blocks.items() if k not in shared})
            for blocks in (self.blocks, other.blocks)
        )
        for key in own.keys() & others.keys():
            yield own[key], others[key]

    @staticmethod
    def _split_by_parameter(
        blocks: dict[tuple[str, ...], Block],
    ) -> dict[tuple[str, ...], DenseBlock]:
        """Return one block per parameter, written out."""
        parts = [part for block in blocks.values() for part in split_by_parameter(block)]
        return {(part.layout[0][0],): part for part in parts}


def _may_leave_float32(self_kernel: Tensor) -> Tensor:
    """Return a mask of shape (n,) of the samples whose squares may be out of float32's range."""
    traces = self_kernel.diagonal(dim1=1, dim2=2).sum(dim=1)
    # The largest float32 is 3e38, the smallest normal one 1e-38. The comparisons also catch NaN.
    return ~((traces > 1e-30) & (traces < 1e30))


def _sizes(layout: Layout) -> list[int]:
    """Return the number of elements of each parameter."""
    return [shape.numel() for _, shape in layout]


def concatenate_jacobians(jacobians: Sequence[Jacobian]) -> Jacobian:
    """Return one Jacobian of the samples of all Jacobians."""
    if len(jacobians) == 1:
        return jacobians[0]
    outputs = torch.cat([jacobian.outputs for jacobian in jacobians])
    shared = set.intersection(*(set(jacobian.blocks) for jacobian in jacobians))
    others = {name for j in jacobians for key in j.blocks.keys() - shared for name in key}
    if others:
        # The chunks differ in their groups of parameters, so these blocks do not correspond.
        jacobians = [_merge_blocks(jacobian, shared, others) for jacobian in jacobians]
    blocks = {
        key: concatenate_blocks([jacobian.blocks[key] for jacobian in jacobians])
        for key in jacobians[0].blocks
    }
    return replace(jacobians[0], blocks=blocks, outputs=outputs)


def _merge_blocks(jacobian: Jacobian, kept: set[tuple[str, ...]], merged: set[str]) -> Jacobian:
    """Return the Jacobian with the gradients of some parameters as a single block, written out."""
    blocks = {key: block for key, block in jacobian.blocks.items() if key in kept}
    layout = tuple(entry for entry in jacobian.layout if entry[0] in merged)
    rest = {key: block for key, block in jacobian.blocks.items() if key not in kept}
    written = replace(jacobian, blocks=rest, layout=layout).materialize()
    blocks[tuple(name for name, _ in layout)] = DenseBlock(layout, written)
    return replace(jacobian, blocks=blocks)
