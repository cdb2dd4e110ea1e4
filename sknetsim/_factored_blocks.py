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

from ._blocks import PLAIN, Block, DenseBlock, FourierMap, Order, squared_norms, transformed

# Elements of a temporary that pairs of positions may take at a time (64 MiB in float32).
_PAIR_ELEMENTS = 2**24
# Moving an element through memory takes as long as about so many multiplications.
_ELEMENT_OPERATIONS = 16


@dataclass(frozen=True)
class PositionBlock(Block):
    """Gradients sum_t e_t a_t^T: cotangents e (n, o, t, g, j) and, in subclasses, activations."""

    _activation_field: ClassVar[str]

    cotangents: Tensor

    @abc.abstractmethod
    def _activation_gram(self, other: PositionBlock) -> Tensor:
        """Products of activations of shape (n, t, m, s, g), broadcastable."""

    @abc.abstractmethod
    def _own_activation_gram(self) -> Tensor:
        """Products of each sample's activations, of shape (n, g, t, s), float64."""

    @property
    @abc.abstractmethod
    def _width(self) -> int:
        """The number i of activations per group."""

    @property
    def _product_operations(self) -> int:
        """Multiplications of a product of two activations."""
        return self._width

    @property
    def positions(self) -> int:
        return self.cotangents.shape[2]

    @property
    def sketched_vectors(self) -> int:
        return 2 * math.prod(self.cotangents.shape[1:4])

    def written(self) -> DenseBlock:
        """The gradients written out, in whatever order is the cheapest."""
        return self.dense()

    def for_sums(self) -> Block:
        _, outputs, positions, _, out = self.cotangents.shape
        written = outputs * out * self._width * (2 * outputs + _ELEMENT_OPERATIONS)
        return self.written() if written < positions * self._factored_operations() else self

    def for_pairs(self) -> Block:
        _, outputs, positions, _, out = self.cotangents.shape
        written = outputs * out * self._width
        return self.written() if written < positions * self._factored_operations() else self

    def _factored_operations(self) -> int:
        """Of a position with all positions of another sample."""
        _, outputs, positions, _, out = self.cotangents.shape
        return positions * (self._product_operations + outputs * out + _ELEMENT_OPERATIONS)

    def whiten(self, root: Tensor) -> PositionBlock:
        cotangents = torch.bmm(root.to(self.cotangents), self.cotangents.flatten(2))
        return replace(self, cotangents=cotangents.view(self.cotangents.shape))

    def self_kernel(self) -> Tensor:
        cotangents = self.cotangents.double().movedim(3, 1)
        spread = self._own_activation_gram()[:, :, None] @ cotangents
        cotangents, spread = (tensor.movedim(1, 3).flatten(2) for tensor in (cotangents, spread))
        return torch.bmm(cotangents, spread.mT)

    def _concatenated(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        return self._joined(blocks, {"cotangents": 0, self._activation_field: 0})

    def _added(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        return self._joined(blocks, {"cotangents": 2, self._activation_field: 1})

    def _joined(self, blocks: Sequence[PositionBlock], axes: dict[str, int]) -> PositionBlock:
        """Each factor concatenated: along the samples, or along its positions."""
        joined: dict[str, Any] = {
            name: torch.cat([getattr(block, name) for block in blocks], axis)
            for name, axis in axes.items()
        }
        return replace(self, **joined)

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        outputs = self.cotangents.shape[1] * other.cotangents.shape[1]
        return torch.cat([rows._gram_rows(other) for rows in self._split(other, outputs)])

    def _gram_rows(self, other: PositionBlock) -> Tensor:
        products = _matrix_products(self.cotangents, other.cotangents)
        activations = self._activation_gram(other)
        if products.shape[2] == products.shape[5] == products.shape[6] == 1:
            products = products[:, :, 0, :, :, 0, 0]
            return products.mul_(activations[:, 0, :, 0, 0][:, None, :, None]).transpose(1, 2)
        return torch.einsum("notmpsg,ntmsg->nmop", products, activations)

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        return torch.cat([rows._trace_gram_rows(other) for rows in self._split(other, 1)])

    def _trace_gram_rows(self, other: PositionBlock) -> Tensor:
        own = self.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        others = other.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        products = _matrix_products(own[:, None], others[:, None])[:, 0, :, :, 0]
        products = products.mul_(self._activation_gram(other))
        if products[0, :, 0].numel() == 1:
            return products[:, 0, :, 0, 0]
        return products.sum((1, 3, 4))

    def _split(self, other: PositionBlock, outputs: int) -> list[Any]:
        """Parts of the samples whose pairs of positions fit into a temporary."""
        per_row = outputs * math.prod(self.cotangents.shape[2:4])
        per_row *= math.prod(other.cotangents.shape[::2][:2])
        step = max(1, _PAIR_ELEMENTS // max(1, per_row))
        count = len(self.cotangents)
        return [self.rows(slice(start, start + step)) for start in range(0, count, step)]


def _matrix_products(vectors: Tensor, others: Tensor, constant: float = 0.0) -> Tensor:
    """v_t . v'_s + constant of shape (n, o, t, m, p, s, g), by one matrix product per group."""
    own = vectors.permute(3, 0, 1, 2, 4).flatten(1, 3)
    other = others.permute(3, 0, 1, 2, 4).flatten(1, 3)
    if constant:
        product = torch.baddbmm(own.new_full((1, 1, 1), constant), own, other.mT)
    else:
        product = torch.bmm(own, other.mT)
    shape = (len(product), *vectors.shape[:3], *others.shape[:3])
    return product.view(shape).movedim(0, -1)


@dataclass(frozen=True)
class FactorBlock(PositionBlock):
    """Activations a of shape (n, t, g, i) and cotangents e of shape (n, o, t, g, j).

    ``order`` says how a weight of (g, j, i) is arranged in the layout. Where the layout has a bias
    (second entry), the cotangents themselves are its gradient.
    """

    _activation_field = "activations"

    activations: Tensor
    order: Order = PLAIN

    def _form(self) -> tuple[object, ...]:
        return type(self), self.order, self.activations.shape[2:]

    @property
    def _width(self) -> int:
        return self.activations.shape[-1]

    @property
    def _has_bias(self) -> bool:
        return len(self.layout) == 2

    def _weight_gradients(self) -> Tensor:
        """(n, o, w), as held."""
        if self.positions == 1:
            matrix = self.cotangents[:, :, 0, :, :, None] * self.activations[:, None, 0, :, None]
        else:
            matrix = torch.einsum("notgj,ntgi->nogji", self.cotangents, self.activations)
        return matrix.flatten(2)

    def materialize(self) -> Tensor:
        weight = self.order.to_layout(self._weight_gradients())
        if not self._has_bias:
            return weight
        return torch.cat([weight, self.cotangents.sum(dim=2).flatten(2)], dim=2)

    def written(self) -> DenseBlock:
        if self._has_bias:
            return self.dense()
        return DenseBlock(self.layout, self._weight_gradients(), self.order)

    def _own_activation_gram(self) -> Tensor:
        activations = self.activations.double().movedim(2, 1)
        return activations @ activations.mT + self._has_bias

    def self_kernel(self) -> Tensor:
        if math.prod(self.cotangents.shape[2:4]) > 1:
            return super().self_kernel()
        norms = squared_norms(self.activations.flatten(1)) + self._has_bias
        cotangents = DenseBlock(self.layout, self.cotangents.flatten(2))
        return norms[:, None, None] * cotangents.self_kernel()

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        count, groups = weights.shape[2], self.cotangents.shape[3]
        cotangents = _weighted(self.cotangents, weights.to(self.cotangents))
        activations = self.activations.permute(2, 0, 1, 3).flatten(1, 2)
        matrix = torch.bmm(cotangents.mT, activations).view(groups, count, -1)
        sums = [self.order.to_layout(matrix.transpose(0, 1).flatten(1))]
        if self._has_bias:
            bias = cotangents.sum(dim=1).view(groups, count, -1)
            sums.append(bias.transpose(0, 1).flatten(1))
        return sums

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        weight, *bias = (vector.to(self.cotangents) for vector in vectors)
        outputs, _, groups, out = self.cotangents.shape[1:]
        matrix = self.order.from_layout(weight).view(outputs, groups, out, -1)
        matrix = matrix.transpose(0, 1).flatten(1, 2)
        cotangents = self.cotangents.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)
        activations = self.activations.permute(2, 0, 1, 3).flatten(1, 2)
        products = _bilinear(cotangents, matrix, activations)
        if bias:
            products += torch.einsum(
                "gra,ga->r",
                cotangents,
                bias[0].view(outputs, groups, out).transpose(0, 1).flatten(1),
            )
        return products.view(len(self.cotangents), -1).sum(dim=1)

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        columns = self.order.columns(maps[0].columns)
        if columns is None:
            return self.dense().sketch(maps)
        activations = transformed(self.activations, columns)
        found = torch.einsum("ntgf,ntgf->nf", activations, self._sketched_cotangents(maps[0]))
        if self._has_bias:
            found += self._sketched_cotangents(maps[1]).sum(dim=(1, 2)) * maps[1].columns[0]
        return found

    def _sketched_cotangents(self, fourier: FourierMap) -> Tensor:
        """(n, t, g, f)."""
        _, positions, groups, out = self.cotangents.shape[1:]
        rows = fourier.outputs[:, None] * fourier.rows
        cotangents = self.cotangents.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)
        phases = rows.unflatten(1, (groups, out)).transpose(0, 1).flatten(1, 2)
        found = torch.stack([transformed(e, p) for e, p in zip(cotangents, phases, strict=True)])
        return found.unflatten(1, (-1, positions)).movedim(0, 2)

    def _activation_gram(self, other: PositionBlock) -> Tensor:
        assert isinstance(other, FactorBlock)
        own, others = self.activations[:, None], other.activations[:, None]
        return _matrix_products(own, others, float(self._has_bias))[:, 0, :, :, 0]


def _weighted(cotangents: Tensor, weights: Tensor) -> Tensor:
    """sum_o w_noq e_notgj, of shape (g, n t, q j)."""
    samples, outputs, *shape = cotangents.shape
    if outputs == weights.shape[2] == 1:
        weighted = cotangents * weights[..., None, None]
    else:
        weighted = torch.bmm(weights.mT, cotangents.flatten(2)).view(samples, -1, *shape)
    return weighted.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)


def _bilinear(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """sum_g l_gr M_g r_gr for each row r, by way of the shorter side, of shape (r,)."""
    if matrix.shape[1] < matrix.shape[2]:
        return (torch.bmm(right, matrix.mT) * left).sum(dim=(0, 2))
    return (torch.bmm(left, matrix) * right).sum(dim=(0, 2))


@dataclass(frozen=True)
class EmbeddingBlock(PositionBlock):
    """One-hot activations, held as row numbers of shape (n, t); cotangents (n, o, t, 1, j)."""

    _activation_field = "indices"

    indices: Tensor

    @property
    def _width(self) -> int:
        return self.layout[0][1][0]

    @property
    def _product_operations(self) -> int:
        return 1

    def materialize(self) -> Tensor:
        samples, outputs, _, _, out = self.cotangents.shape
        written = self.cotangents.new_zeros(samples, outputs, self._width, out)
        positions = self.indices[:, None, :, None].expand(-1, outputs, -1, out)
        return written.scatter_add_(2, positions, self.cotangents[:, :, :, 0]).flatten(2)

    def _own_activation_gram(self) -> Tensor:
        return (self.indices[:, None, :, None] == self.indices[:, None, None, :]).double()

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        cotangents = _weighted(self.cotangents, weights.to(self.cotangents))[0]
        written = cotangents.new_zeros(self._width, cotangents.shape[1])
        written.index_add_(0, self.indices.flatten(), cotangents)
        return [written.unflatten(1, (weights.shape[2], -1)).transpose(0, 1).flatten(1)]

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        table = vectors[0].to(self.cotangents).unflatten(-1, (self._width, -1))
        return torch.einsum("ontj,notj->n", table[:, self.indices], self.cotangents[:, :, :, 0])

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        cotangents = transformed(self.cotangents[:, :, :, 0], maps[0].columns)
        rows = maps[0].rows[self.indices]
        return torch.einsum("ontf,of,ntf->nf", cotangents.transpose(0, 1), maps[0].outputs, rows)

    def _activation_gram(self, other: PositionBlock) -> Tensor:
        assert isinstance(other, EmbeddingBlock)
        equal = self.indices[:, :, None, None] == other.indices
        return equal[..., None].to(self.cotangents.dtype)
