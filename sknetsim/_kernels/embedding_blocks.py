"""Blocks of embeddings, whose activations are one-hot and stored as row numbers of the table.

Index legend: n, m samples; o, p outputs of the network; t, s positions (tokens); v rows of the
table (the vocabulary); j width of the embedding; q vectors; f frequencies. The number of groups g
is 1. The gradient of the table is J[n,o,v,j] = sum of e[n,o,t,j] over the positions t whose
index[n,t] is v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .blocks import Block
from .layouts import FourierMap, Order, multiply_complex
from .position_blocks import PositionBlock
from .positions import weight_cotangents


@dataclass(frozen=True)
class EmbeddingBlock(PositionBlock):
    """Gradients from row numbers of shape (n, t) and cotangents e of shape (n, o, t, 1, j).

    A product of two one-hot activations is 1 if their row numbers are equal, and 0 if not.
    """

    _activation_field = "indices"

    indices: Tensor

    @property
    def _width(self) -> int:
        return self.layout[0][1][0]

    @property
    def _product_operations(self) -> int:
        # Two row numbers are compared.
        return 1

    def materialize(self) -> Tensor:
        samples, outputs, _, _, out = self.cotangents.shape
        gradients = self.cotangents.new_zeros(samples, outputs, self._width, out)
        # gradients[n,o,index[n,t],j] += e[n,o,t,j]
        rows = self.indices[:, None, :, None].expand(-1, outputs, -1, out)
        return gradients.scatter_add_(2, rows, self.cotangents[:, :, :, 0]).flatten(2)

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        # sums[index[n,t],qj] += sum_o weights[n,o,q] e[n,o,t,j]
        cotangents = weight_cotangents(self.cotangents, weights.to(self.cotangents))[0]
        sums = cotangents.new_zeros(self._width, cotangents.shape[1])
        sums.index_add_(0, self.indices.flatten(), cotangents)
        return [sums.unflatten(1, (weights.shape[2], -1)).transpose(0, 1).flatten(1)]

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        # sum_otj table[o,index[n,t],j] e[n,o,t,j]
        table = vectors[0].to(self.cotangents).unflatten(-1, (self._width, -1))
        return torch.einsum("ontj,notj->n", table[:, self.indices], self.cotangents[:, :, :, 0])

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        # sum_tj table[q,index[n,t],j] e[n,o,t,j]
        table = vectors[0].to(self.cotangents).unflatten(-1, (self._width, -1))
        return torch.einsum("qntj,notj->noq", table[:, self.indices], self.cotangents[:, :, :, 0])

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        # sum_otj outputs[o,f] rows[index[n,t],f] columns[j,f] e[n,o,t,j]
        cotangents = multiply_complex(self.cotangents[:, :, :, 0], maps[0].columns)
        rows = maps[0].rows[self.indices]
        return torch.einsum("ontf,of,ntf->nf", cotangents.transpose(0, 1), maps[0].outputs, rows)

    def as_matrices(self, name: str) -> EmbeddingBlock:
        return replace(self, layout=((name, self.layout[0][1]),))

    @property
    def matrix_order(self) -> Order:
        return Order((1, self.cotangents.shape[-1], self._width), (0, 2, 1))

    def activation_moments(self) -> Tensor:
        # A[v,v] is the number of uses of row v. Different rows are never used at one position.
        counts = self.cotangents.new_zeros(self._width, dtype=torch.float64)
        indices = self.indices.flatten()
        return counts.index_add_(0, indices, counts.new_ones(indices.shape))[None]

    def rotate(self, left: Tensor, right: Tensor | None) -> EmbeddingBlock:
        assert right is None  # One-hot activations would not stay one-hot.
        return replace(self, cotangents=self._rotate_cotangents(left))

    def sum_squares(self) -> Tensor:
        samples, outputs, _, _, out = self.cotangents.shape
        # The gradients of a sample are added for each row that it uses, u for all samples together:
        # G[u,o,j] = sum_t e[n,o,t,j], over the t with index[n,t] = v.
        offsets = torch.arange(samples, device=self.indices.device)[:, None] * self._width
        used, inverse = torch.unique(self.indices + offsets, return_inverse=True)
        gradients = self.cotangents.new_zeros(len(used), outputs, out, dtype=torch.float64)
        cotangents = self.cotangents[:, :, :, 0].transpose(1, 2).flatten(0, 1).double()
        gradients.index_add_(0, inverse.flatten(), cotangents)
        sums = gradients.new_zeros(self._width, out)
        sums.index_add_(0, used % self._width, gradients.square().sum(dim=1))
        return sums.T[None]

    def scale(self, factors: Tensor) -> EmbeddingBlock:
        # factors[j,v] G[v,j] = sum_t factors[j,index[n,t]] e[n,o,t,j], over the t of row v
        rows = factors[0].T.to(self.cotangents)[self.indices]
        return replace(self, cotangents=self.cotangents * rows[:, None, :, None])

    def split_matrix(self) -> tuple[Tensor, Tensor] | None:
        return (
            (self.indices, self.cotangents[:, 0, :, 0]) if self.cotangents.shape[1] == 1 else None
        )

    def _activation_gram(self, other: PositionBlock) -> Tensor:
        assert isinstance(other, EmbeddingBlock)
        equal = self.indices[:, :, None, None] == other.indices
        return equal[..., None].to(self.cotangents.dtype)

    def _paired_activation_gram(self, other: Any) -> Tensor:
        equal = self.indices[:, None, :, None] == other.indices[:, None, None, :]
        return equal.to(self.cotangents.dtype)

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        assert isinstance(other, EmbeddingBlock)
        if not by_rows[0]:
            return self.dense()._marginals(other.dense(), by_rows)
        # marginals[n,index[n,t]] += sum_s (a_t . a'_s) sum_o (e_ot . e'_os)
        products = self.paired_positions(other).sum(dim=2)
        marginals = products.new_zeros(len(products), self._width)
        return [marginals.scatter_add_(1, self.indices, products)]
