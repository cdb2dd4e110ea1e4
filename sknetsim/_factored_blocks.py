"""Blocks of layers that multiply activations by a weight: nothing of the weight's size is formed.

Index legend: n, m samples; o, p outputs of the network; t, s positions (uses of the weight);
g groups; j out, i in (so that a group's gradient is a j x i matrix); q vectors; w the block's
parameters, flattened in the order of its layout.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._blocks import Block

# Elements of a temporary that pairs of positions may take at a time (64 MiB in float32).
_PAIR_ELEMENTS = 2**24


@dataclass(frozen=True)
class PositionBlock(Block):
    """Gradients sum_t e_t a_t^T: cotangents e (n, o, t, g, j) and, in subclasses, activations."""

    _activation_field: ClassVar[str]

    cotangents: Tensor

    @abc.abstractmethod
    def _activation_gram(self, other: PositionBlock, rows: slice) -> Tensor:
        """Products of activations of shape (n, t, m, s, g), broadcastable."""

    @property
    @abc.abstractmethod
    def _width(self) -> int:
        """The number i of activations per group."""

    @property
    def positions(self) -> int:
        return self.cotangents.shape[2]

    def compact(self) -> Block:
        """Itself, or the gradients written out where pairs are cheaper with these."""
        _, outputs, positions, _, out = self.cotangents.shape
        written = outputs * out * self._width
        factored = positions**2 * (self._width + outputs * out)
        return self if factored < written else self.dense()

    def whiten(self, root: Tensor) -> PositionBlock:
        cotangents = torch.bmm(root.to(self.cotangents), self.cotangents.flatten(2))
        return replace(self, cotangents=cotangents.view(self.cotangents.shape))

    def self_kernel(self) -> Tensor:
        cotangents = self.cotangents.double()
        spread = torch.einsum("ntsg,npsgj->nptgj", self._own_activation_gram(), cotangents)
        return torch.bmm(cotangents.flatten(2), spread.flatten(2).mT)

    def _concatenated(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        return self._joined(blocks, {"cotangents": 0, self._activation_field: 0})

    def _added(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        return self._joined(blocks, {"cotangents": 2, self._activation_field: 1})

    def _joined(self, blocks: Sequence[PositionBlock], axes: dict[str, int]) -> PositionBlock:
        """Each factor concatenated: along the samples, or along its positions."""
        fields: dict[str, Any] = {
            name: torch.cat([getattr(block, name) for block in blocks], axis)
            for name, axis in axes.items()
        }
        return replace(self, **fields)

    @abc.abstractmethod
    def _own_activation_gram(self) -> Tensor:
        """Products of each sample's activations, of shape (n, t, s, g), float64."""

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        step = self._row_step(other, self.cotangents.shape[1] * other.cotangents.shape[1])
        return torch.cat([self._gram_rows(other, rows) for rows in self._row_slices(step)])

    def _gram_rows(self, other: PositionBlock, rows: slice) -> Tensor:
        products = _matrix_products(self.cotangents[rows], other.cotangents)
        activations = self._activation_gram(other, rows)
        if products.shape[2] == products.shape[5] == products.shape[6] == 1:
            return (products * activations[:, None, :, :, None]).sum((2, 5, 6)).transpose(1, 2)
        return torch.einsum("notmpsg,ntmsg->nmop", products, activations)

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        slices = self._row_slices(self._row_step(other, 1))
        return torch.cat([self._trace_gram_rows(other, rows) for rows in slices])

    def _trace_gram_rows(self, other: PositionBlock, rows: slice) -> Tensor:
        own = self.cotangents[rows].permute(0, 2, 3, 1, 4).flatten(3)
        others = other.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        products = _matrix_products(own[:, None], others[:, None])[:, 0, :, :, 0]
        return (products * self._activation_gram(other, rows)).sum((1, 3, 4))

    def _row_step(self, other: PositionBlock, outputs: int) -> int:
        per_row = outputs * math.prod(self.cotangents.shape[2:4])
        per_row *= math.prod(other.cotangents.shape[::2][:2])
        return max(1, _PAIR_ELEMENTS // max(1, per_row))

    def _row_slices(self, step: int) -> list[slice]:
        return [slice(start, start + step) for start in range(0, len(self.cotangents), step)]


def _matrix_products(cotangents: Tensor, others: Tensor) -> Tensor:
    """e_t . e'_s of shape (n, o, t, m, p, s, g), by one matrix product per group."""
    own = cotangents.permute(3, 0, 1, 2, 4).flatten(1, 3)
    other = others.permute(3, 0, 1, 2, 4).flatten(1, 3)
    product = torch.bmm(own, other.mT)
    shape = (len(product), *cotangents.shape[:3], *others.shape[:3])
    return product.view(shape).movedim(0, -1)


@dataclass(frozen=True)
class FactorBlock(PositionBlock):
    """Activations a of shape (n, t, g, i) and cotangents e of shape (n, o, t, g, j).

    Where the layout has a bias (second entry), the last activation is the constant 1.
    ``transposed`` says that the weight is stored as (g, i, j), as transposed convolutions do.
    """

    _activation_field = "activations"

    activations: Tensor
    transposed: bool = False

    def _form(self) -> tuple[object, ...]:
        return type(self), self.transposed, self.activations.shape[2:]

    @property
    def _width(self) -> int:
        return self.activations.shape[-1]

    def _matrix_to_layout(self, matrix: Tensor) -> Tensor:
        """(..., g, j, i) -> (..., w)."""
        weight = matrix[..., :-1] if len(self.layout) == 2 else matrix
        weight = weight.mT if self.transposed else weight
        if len(self.layout) == 1:
            return weight.flatten(-3)
        return torch.cat([weight.flatten(-3), matrix[..., -1].flatten(-2)], dim=-1)

    def _layout_to_matrix(self, vectors: Tensor) -> Tensor:
        """(..., w) -> (..., g, j, i)."""
        groups, out, width = (*self.cotangents.shape[3:], self._width)
        if len(self.layout) == 2:
            weight, bias = vectors.split([vectors.shape[-1] - groups * out, groups * out], dim=-1)
            matrix = weight.unflatten(-1, (groups, out, width - 1))
            return torch.cat([matrix, bias.unflatten(-1, (groups, out, 1))], dim=-1)
        if self.transposed:
            return vectors.unflatten(-1, (groups, width, out)).mT
        return vectors.unflatten(-1, (groups, out, width))

    def materialize(self) -> Tensor:
        if self.cotangents.shape[2] == 1:
            matrix = self.cotangents[:, :, 0, :, :, None] * self.activations[:, None, 0, :, None]
        else:
            matrix = torch.einsum("notgj,ntgi->nogji", self.cotangents, self.activations)
        return self._matrix_to_layout(matrix)

    def _own_activation_gram(self) -> Tensor:
        activations = self.activations.double()
        return torch.einsum("ntgi,nsgi->ntsg", activations, activations)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        weights = weights.to(self.cotangents)
        cotangents = torch.einsum("noq,notgj->gqjnt", weights, self.cotangents).flatten(3)
        activations = self.activations.permute(2, 0, 1, 3).flatten(1, 2)
        matrix = torch.bmm(cotangents.flatten(1, 2), activations)
        return self._matrix_to_layout(matrix.unflatten(1, (weights.shape[2], -1)).transpose(0, 1))

    def inner(self, vectors: Tensor) -> Tensor:
        matrix = self._layout_to_matrix(vectors.to(self.cotangents))
        return torch.einsum("ogji,ntgi,notgj->n", matrix, self.activations, self.cotangents)

    def _activation_gram(self, other: PositionBlock, rows: slice) -> Tensor:
        assert isinstance(other, FactorBlock)
        own, others = self.activations[rows, None], other.activations[:, None]
        return _matrix_products(own, others)[:, 0, :, :, 0]

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.activations, self.cotangents)


@dataclass(frozen=True)
class EmbeddingBlock(PositionBlock):
    """One-hot activations, held as row numbers of shape (n, t); cotangents (n, o, t, 1, j)."""

    _activation_field = "indices"

    indices: Tensor

    @property
    def _width(self) -> int:
        return self.layout[0][1][0]

    def materialize(self) -> Tensor:
        samples, outputs, _, _, out = self.cotangents.shape
        written = self.cotangents.new_zeros(samples, outputs, self._width, out)
        positions = self.indices[:, None, :, None].expand(-1, outputs, -1, out)
        return written.scatter_add_(2, positions, self.cotangents[:, :, :, 0]).flatten(2)

    def _own_activation_gram(self) -> Tensor:
        equal = self.indices[:, :, None] == self.indices[:, None, :]
        return equal[..., None].double()

    def weighted_sum(self, weights: Tensor) -> Tensor:
        weights = weights.to(self.cotangents)
        cotangents = torch.einsum("noq,notgj->ntqj", weights, self.cotangents).flatten(0, 1)
        written = cotangents.new_zeros(self._width, *cotangents.shape[1:])
        return written.index_add_(0, self.indices.flatten(), cotangents).transpose(0, 1).flatten(1)

    def inner(self, vectors: Tensor) -> Tensor:
        table = vectors.to(self.cotangents).unflatten(-1, (self._width, -1))
        return torch.einsum("ontj,notj->n", table[:, self.indices], self.cotangents[:, :, :, 0])

    def _activation_gram(self, other: PositionBlock, rows: slice) -> Tensor:
        assert isinstance(other, EmbeddingBlock)
        equal = self.indices[rows][:, :, None, None] == other.indices
        return equal[..., None].to(self.cotangents.dtype)

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.indices, self.cotangents)
