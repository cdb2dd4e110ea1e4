"""Blocks of embeddings: activations that are one-hot, and held as row numbers.

Index legend: n, m samples; o, p outputs of the network; t, s positions (uses of the weight);
g groups; j out, i in (so that a group's gradient is a j x i matrix); q vectors; w the block's
parameters, flattened in the order of its layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .blocks import Block
from .layouts import FourierMap, multiply_complex
from .position_blocks import PositionBlock, weight_cotangents


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

    def _paired_activation_gram(self, other: Any) -> Tensor:
        equal = self.indices[:, None, :, None] == other.indices[:, None, None, :]
        return equal.to(self.cotangents.dtype)

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        assert isinstance(other, EmbeddingBlock)
        if not by_rows[0]:
            return self.dense()._marginals(other.dense(), by_rows)
        products = self.paired_positions(other).sum(dim=2)
        written = products.new_zeros(len(products), self._width)
        return [written.scatter_add_(1, self.indices, products)]

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        cotangents = weight_cotangents(self.cotangents, weights.to(self.cotangents))[0]
        written = cotangents.new_zeros(self._width, cotangents.shape[1])
        written.index_add_(0, self.indices.flatten(), cotangents)
        return [written.unflatten(1, (weights.shape[2], -1)).transpose(0, 1).flatten(1)]

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        table = vectors[0].to(self.cotangents).unflatten(-1, (self._width, -1))
        return torch.einsum("ontj,notj->n", table[:, self.indices], self.cotangents[:, :, :, 0])

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        table = vectors[0].to(self.cotangents).unflatten(-1, (self._width, -1))
        return torch.einsum("qntj,notj->noq", table[:, self.indices], self.cotangents[:, :, :, 0])

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        cotangents = multiply_complex(self.cotangents[:, :, :, 0], maps[0].columns)
        rows = maps[0].rows[self.indices]
        return torch.einsum("ontf,of,ntf->nf", cotangents.transpose(0, 1), maps[0].outputs, rows)

    def _activation_gram(self, other: PositionBlock) -> Tensor:
        assert isinstance(other, EmbeddingBlock)
        equal = self.indices[:, :, None, None] == other.indices
        return equal[..., None].to(self.cotangents.dtype)
