"""Blocks of layers that use a weight at positions: what activations of any kind have in common.

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

from .blocks import Block, DenseBlock, concatenate_tensors

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
    def _paired_activation_gram(self, other: Any) -> Tensor:
        """Products of activations of rows taken one by one, of shape (n, g, t, s)."""

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
        root = root.to(self.cotangents)
        if root.shape[1] == 1:
            return replace(self, cotangents=self.cotangents * root[..., None, None])
        cotangents = torch.bmm(root, self.cotangents.flatten(2))
        return replace(self, cotangents=cotangents.view(self.cotangents.shape))

    def self_kernel(self) -> Tensor:
        doubled: Any = self.double()
        cotangents = doubled.cotangents.movedim(3, 1)
        spread = doubled._paired_activation_gram(doubled)[:, :, None] @ cotangents
        cotangents, spread = (tensor.movedim(1, 3).flatten(2) for tensor in (cotangents, spread))
        return torch.bmm(cotangents, spread.mT)

    def _concatenated(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        return self._joined(blocks, {"cotangents": 0, self._activation_field: 0})

    def _added(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        return self._joined(blocks, {"cotangents": 2, self._activation_field: 1})

    def _joined(self, blocks: Sequence[PositionBlock], axes: dict[str, int]) -> PositionBlock:
        """Each factor concatenated: along the samples, or along its positions."""
        factors: dict[str, Any] = {
            name: concatenate_tensors([getattr(block, name) for block in blocks], axis)
            for name, axis in axes.items()
        }
        return replace(self, **factors)

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        outputs = self.cotangents.shape[1] * other.cotangents.shape[1]
        return _together([rows._gram_rows(other) for rows in self._split(other, outputs)])

    def _gram_rows(self, other: PositionBlock) -> Tensor:
        products = multiply_positions(self.cotangents, other.cotangents)
        activations = self._activation_gram(other)
        if products.shape[2] == products.shape[5] == products.shape[6] == 1:
            products = products[:, :, 0, :, :, 0, 0]
            return products.mul_(activations[:, 0, :, 0, 0][:, None, :, None]).transpose(1, 2)
        return torch.einsum("notmpsg,ntmsg->nmop", products, activations)

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        return _together([rows._trace_gram_rows(other) for rows in self._split(other, 1)])

    def _trace_gram_rows(self, other: PositionBlock) -> Tensor:
        own = self.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        others = other.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        products = multiply_positions(own[:, None], others[:, None])[:, 0, :, :, 0]
        products = products.mul_(self._activation_gram(other))
        if products[0, :, 0].numel() == 1:
            return products[:, 0, :, 0, 0]
        return products.sum((1, 3, 4))

    def _paired(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        return self.paired_positions(other).sum((1, 2))

    def paired_positions(self, other: PositionBlock, constant: float = 0.0) -> Tensor:
        """What pairs of positions of rows taken one by one add to `paired`, of shape (n, t, s).

        A constant is added to the products of activations.
        """
        activations = self._paired_activation_gram(other) + constant
        return self._paired_cotangents(other).mul_(activations).sum(dim=1)

    def _paired_cotangents(self, other: PositionBlock) -> Tensor:
        """Products of cotangents of rows taken one by one, of shape (n, g, t, s)."""
        own, others = (b.cotangents.permute(0, 3, 2, 1, 4).flatten(3) for b in (self, other))
        return torch.matmul(own, others.mT)

    def _split(self, other: PositionBlock, outputs: int) -> list[Any]:
        """Parts of the samples whose pairs of positions fit into a temporary."""
        per_row = outputs * math.prod(self.cotangents.shape[2:4])
        per_row *= math.prod(other.cotangents.shape[::2][:2])
        step = max(1, _PAIR_ELEMENTS // max(1, per_row))
        count = len(self.cotangents)
        return [self.rows(slice(start, start + step)) for start in range(0, count, step)]


def _together(parts: list[Tensor]) -> Tensor:
    """All rows; a single part is not copied."""
    return parts[0] if len(parts) == 1 else concatenate_tensors(parts)


def multiply_positions(vectors: Tensor, others: Tensor, constant: float = 0.0) -> Tensor:
    """v_t . v'_s + constant of shape (n, o, t, m, p, s, g), by one matrix product per group."""
    own = vectors.permute(3, 0, 1, 2, 4).flatten(1, 3)
    other = others.permute(3, 0, 1, 2, 4).flatten(1, 3)
    if constant:
        product = torch.baddbmm(own.new_full((1, 1, 1), constant), own, other.mT)
    else:
        product = torch.bmm(own, other.mT)
    shape = (len(product), *vectors.shape[:3], *others.shape[:3])
    return product.view(shape).movedim(0, -1)


def weight_cotangents(cotangents: Tensor, weights: Tensor) -> Tensor:
    """sum_o w_noq e_notgj, of shape (g, n t, q j)."""
    samples, outputs, *shape = cotangents.shape
    if outputs == weights.shape[2] == 1:
        weighted = cotangents * weights[..., None, None]
    else:
        weighted = torch.bmm(weights.mT, cotangents.flatten(2)).view(samples, -1, *shape)
    return weighted.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)
