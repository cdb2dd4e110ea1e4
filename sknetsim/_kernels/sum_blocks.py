"""Blocks of parameters that a network uses through tensors derived from them.

Index legend: n samples; o outputs of the network; q vectors; w elements of a derived tensor;
p elements of the block's parameters, flattened in the order of its layout.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .blocks import Block, DenseBlock, add_blocks
from .layouts import FourierMap, Layout
from .parameter_maps import IdentityMap, IndexMap, ParameterMap, are_disjoint
from .position_blocks import PositionBlock
from .positions import multiply_matrices

# Number of elements that are written out at a time (2 MiB in float32, which stays in the cache).
_WRITTEN_ELEMENTS = 2**19

# Operations for each element that is written out and read again in the cache.
_WRITTEN_OPERATIONS = 8

# Largest ratio of the squared norms of the gradients of two uses to that of their sum for which
# products of both are exact enough.
_LARGEST_CANCELLATION = 64


@dataclass(frozen=True)
class Summand:
    """Block of the gradients in some tensors, and the maps to the parameters behind them.

    Attributes
    ----------
    block : Block
        Gradients J_w in the tensors.
    maps : tuple of ParameterMap
        One map D for each entry of the block's layout.
    """

    block: Block
    maps: tuple[ParameterMap, ...]

    def split_gradients(self) -> tuple[Tensor, ...]:
        """Return J_w[n,o,w], one tensor for each entry of the block's layout."""
        return self.block.materialize().split([s.numel() for _, s in self.block.layout], dim=2)

    def pull(self, vectors: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
        """Return v D by parameter, from one tensor (q, w) for each entry of the block's layout."""
        return [
            (name, pulled)
            for parameter_map, vector in zip(self.maps, vectors, strict=True)
            for (name, _), pulled in zip(
                parameter_map.layout, parameter_map.pull(vector), strict=True
            )
        ]


@dataclass(frozen=True)
class SumBlock(Block):
    """Gradients J[n,o,p] = sum_parts J_w[n,o,w] D[w,p].

    Attributes
    ----------
    parts : tuple of Summand
        One part for each use of the parameters.
    is_orthogonal : bool
        Whether products of gradients are sums of the products of each part, because the elements
        of the derived tensors are different elements of the parameters.
    """

    parts: tuple[Summand, ...]
    is_orthogonal: bool

    def _form(self) -> tuple[object, ...]:
        if not self.is_orthogonal:
            return (object(),)  # Equal to no other form, so that the gradients are written out.
        return type(self), tuple((part.block._form(), part.maps) for part in self.parts)

    def _assemble(self, pulled: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Return the sum of the vectors (q, p) of each parameter, in the order of the layout."""
        sums: dict[str, Tensor] = {}
        for name, vectors in pulled:
            sums[name] = sums[name] + vectors if name in sums else vectors
        return [sums[name] for name, _ in self.layout]

    def materialize(self) -> Tensor:
        pulled = []
        for part in self.parts:
            gradients = part.split_gradients()
            pulled += part.pull([entry.flatten(0, 1) for entry in gradients])
        return torch.cat(self._assemble(pulled), dim=1).unflatten(0, gradients[0].shape[:2])

    def whiten(self, root: Tensor) -> SumBlock:
        return self._map_blocks(lambda block: block.whiten(root))

    def self_kernel(self) -> Tensor:
        if self.is_orthogonal:
            return _add([part.block.self_kernel() for part in self.parts])
        matrices = self._split_matrices()
        if matrices is not None:
            return self._multiply_uses(matrices)
        return torch.cat([part._write_self_kernel() for part in self._split_to_write()])

    def _split_matrices(self) -> list[tuple[Tensor, Tensor]] | None:
        """Return the vectors of each use of a matrix, see `PositionBlock.split_matrix`.

        The result is None if a use has no such vectors, or if the gradients are smaller than all
        pairs of positions of different uses.
        """
        matrices = []
        for part in self.parts:
            vectors = part.block.split_matrix() if isinstance(part.block, PositionBlock) else None
            is_transposed = isinstance(part.maps[0], IndexMap) and part.maps[0].is_transposition()
            if vectors is None or not (is_transposed or isinstance(part.maps[0], IdentityMap)):
                return None
            matrices.append(vectors[::-1] if is_transposed else vectors)
        shape = self.layout[0][1]
        pairs = itertools.combinations([part.block.positions for part in self.parts], 2)
        operations = sum(shape) * sum(itertools.starmap(operator.mul, pairs))
        return matrices if operations <= _WRITTEN_OPERATIONS * shape.numel() else None

    def _multiply_uses(self, matrices: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the self-kernel of one output from products of all pairs of uses of a matrix."""
        # <sum_u J_u, sum_u J_u> = sum_u <J_u, J_u> + 2 sum_(u<v) <J_u, J_v>
        squares = _add([part.block.self_kernel() for part in self.parts])
        products = itertools.starmap(multiply_matrices, itertools.combinations(matrices, 2))
        kernel = squares + 2 * _add(list(products))[:, None, None]
        # If the sum cancels, rounding errors are large relative to K. This includes NaN.
        is_exact = squares < _LARGEST_CANCELLATION * kernel
        inexact = torch.nonzero(~is_exact[:, 0, 0])[:, 0]
        if len(inexact):
            parts = self.rows(inexact)._split_to_write()
            kernel[inexact] = torch.cat([part._write_self_kernel() for part in parts])
        return kernel

    def _write_self_kernel(self) -> Tensor:
        """Return the self-kernel from the gradients, written out."""
        maps = [parameter_map for part in self.parts for parameter_map in part.maps]
        if sum(len(parameter_map.layout) for parameter_map in maps) > len(self.layout):
            return self.dense().self_kernel()
        # Each parameter belongs to one map, so that the kernel is a sum over the maps.
        kernels = [
            parameter_map.self_kernel(entry)
            for part in self.parts
            for parameter_map, entry in zip(part.maps, part.split_gradients(), strict=True)
        ]
        return _add(kernels)

    def _split_to_write(self) -> list[SumBlock]:
        """Return blocks of consecutive samples that are small when they are written out."""
        first = next(iter(self.parts[0].block._tensors().values()))
        width = first.shape[1] * sum(shape.numel() for _, shape in self.layout)
        step = max(1, _WRITTEN_ELEMENTS // max(1, width))
        return [self.rows(slice(start, start + step)) for start in range(0, len(first), step)]

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        # sum_no weights[n,o,q] J_w[n,o,w] is mapped once for each q.
        return self._assemble(
            [pair for part in self.parts for pair in part.pull(part.block.weighted_sum(weights))]
        )

    def _push(self, part: Summand, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return D v for the entries of a part, from one tensor (q, p) for each parameter."""
        named = {name: vector for (name, _), vector in zip(self.layout, vectors, strict=True)}
        return [parameter_map.push(named) for parameter_map in part.maps]

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        # <J_w D, v> = <J_w, D v>
        return _add([part.block.inner(self._push(part, vectors)) for part in self.parts])

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        return _add([part.block.product(self._push(part, vectors)) for part in self.parts])

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        return torch.cat([part.dense().sketch(maps) for part in self._split_to_write()])

    @property
    def sketched_vectors(self) -> int:
        return self.rows(slice(0, 1)).dense().sketched_vectors

    def for_sums(self, vectors: int = 1) -> Block:
        return self._map_blocks(lambda block: block.for_sums(vectors))

    def prefers_pairs(self, sums: int) -> bool:
        return self.is_orthogonal and all(part.block.prefers_pairs(sums) for part in self.parts)

    def for_pairs(self) -> Block:
        if self.is_orthogonal:
            return self._map_blocks(lambda block: block.for_pairs())
        return self.dense()

    @property
    def positions(self) -> int:
        return max(part.block.positions for part in self.parts)

    @property
    def has_positions(self) -> bool:
        # The parts of a weight may be applied to different sequences.
        blocks = [part.block for part in self.parts]
        has_positions = self.is_orthogonal and all(block.has_positions for block in blocks)
        return has_positions and len({block.positions for block in blocks}) == 1

    def paired_positions(self, other: Block) -> Tensor:
        assert isinstance(other, SumBlock)
        return self._sum_parts(other, "paired_positions")

    def rows(self, rows: Any) -> SumBlock:
        return self._map_blocks(lambda block: block.rows(rows))

    def split(self, sizes: Sequence[int]) -> list[Block]:
        columns = [part.block.split(sizes) for part in self.parts]
        return [self._replace_blocks(blocks) for blocks in zip(*columns, strict=True)]

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{index}.{name}": tensor
            for index, part in enumerate(self.parts)
            for name, tensor in part.block._tensors().items()
        }

    def _map(self, function: Callable[[Tensor], Tensor]) -> SumBlock:
        return self._map_blocks(lambda block: block._map(function))

    def _map_blocks(self, function: Callable[[Block], Block]) -> SumBlock:
        """Return the block with a function applied to the block of each part."""
        return self._replace_blocks([function(part.block) for part in self.parts])

    def _replace_blocks(self, blocks: Sequence[Block]) -> SumBlock:
        pairs = zip(self.parts, blocks, strict=True)
        return replace(self, parts=tuple(replace(part, block=block) for part, block in pairs))

    def _sum_parts(self, other: SumBlock, name: str) -> Tensor:
        """Return the sum over the parts of a method of their blocks, if `is_orthogonal`."""
        pairs = zip(self.parts, other.parts, strict=True)
        return _add([getattr(part.block, name)(others.block) for part, others in pairs])

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, SumBlock)
        return self._sum_parts(other, "gram")

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, SumBlock)
        return self._sum_parts(other, "trace_gram")

    def _paired(self, other: Block) -> Tensor:
        assert isinstance(other, SumBlock)
        return self._sum_parts(other, "paired")

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        return self.dense()._marginals(other.dense(), by_rows)

    def _concatenate(self, blocks: Sequence[SumBlock]) -> SumBlock:
        columns = zip(*(block.parts for block in blocks), strict=True)
        return self._replace_blocks(
            [parts[0].block._concatenate([part.block for part in parts]) for parts in columns]
        )

    def _add(self, blocks: Sequence[SumBlock]) -> Block:
        return make_sum_block(self.layout, [part for block in blocks for part in block.parts])

    def __reduce__(self) -> tuple[Any, ...]:
        # The maps may contain an autograd graph, which cannot be pickled.
        return DenseBlock, (self.layout, self.materialize())


def _add(tensors: list[Tensor]) -> Tensor:
    """Return the sum of the results of all parts."""
    return functools.reduce(torch.add, tensors)


def make_sum_block(layout: Layout, parts: Sequence[Summand]) -> SumBlock:
    """Return the block of parameters with the given layout, from all uses of them."""
    # J_w D + J_w' D = (J_w + J_w') D: a tensor that is used several times is mapped once.
    groups: dict[Any, list[Summand]] = {}
    for part in parts:
        shapes = tuple(shape for _, shape in part.block.layout)
        groups.setdefault((part.maps, shapes, part.block._form()), []).append(part)
    merged = tuple(
        replace(group[0], block=add_blocks([part.block for part in group]))
        for group in groups.values()
    )
    maps = [parameter_map for part in merged for parameter_map in part.maps]
    return SumBlock(layout, merged, are_disjoint(maps))


def wrap_block(block: Block) -> SumBlock:
    """Return a block of the parameters themselves as a `SumBlock`."""
    maps = tuple(IdentityMap((entry,)) for entry in block.layout)
    return make_sum_block(block.layout, [Summand(block, maps)])
