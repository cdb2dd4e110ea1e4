"""Blocks of layers that multiply activations by a weight: nothing of the weight's size is formed.

Index legend: n, m samples; o, p outputs of the network; t, s positions (uses of the weight);
g groups; j out, i in (so that a group's gradient is a j x i matrix); q vectors; w the block's
parameters, flattened in the order of its layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .blocks import Block, DenseBlock, squared_norms
from .layouts import PLAIN_ORDER, FourierMap, Order, longest_axis, multiply_complex
from .position_blocks import PositionBlock, multiply_positions, weight_cotangents


@dataclass(frozen=True)
class FactorBlock(PositionBlock):
    """Activations a of shape (n, t, g, i) and cotangents e of shape (n, o, t, g, j).

    ``order`` says how a weight of (g, j, i) is arranged in the layout. Where the layout has a bias
    (second entry), the cotangents themselves are its gradient.
    """

    _activation_field = "activations"

    activations: Tensor
    order: Order = PLAIN_ORDER

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

    def _paired_activation_gram(self, other: Any) -> Tensor:
        own, others = (block.activations.movedim(2, 1) for block in (self, other))
        return own @ others.mT + self._has_bias

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        assert isinstance(other, FactorBlock)
        if by_rows[0] == self.order.keeps_rows:
            return self.dense()._marginals(other.dense(), by_rows)
        own, others = (block.activations.movedim(2, 1) for block in (self, other))
        cotangents = self._paired_cotangents(other)
        products = (own * (cotangents @ others)).sum(dim=2)
        if self.order.keeps_rows:
            found = [self.order.of_columns().to_layout(products.sum(dim=1))]
        else:
            found = [products.flatten(1)]
        return found + [cotangents.sum((1, 2, 3))[:, None]] * self._has_bias

    def self_kernel(self) -> Tensor:
        if math.prod(self.cotangents.shape[2:4]) > 1:
            return super().self_kernel()
        norms = squared_norms(self.activations.flatten(1)) + self._has_bias
        cotangents = DenseBlock(self.layout, self.cotangents.flatten(2))
        return norms[:, None, None] * cotangents.self_kernel()

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        count, groups = weights.shape[2], self.cotangents.shape[3]
        cotangents = weight_cotangents(self.cotangents, weights.to(self.cotangents))
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

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        weight, *bias = (vector.to(self.cotangents) for vector in vectors)
        samples, _, positions, groups, out = self.cotangents.shape
        matrix = self.order.from_layout(weight).view(len(weight), groups, out, -1)
        activations = self.activations.permute(2, 0, 1, 3).flatten(1, 2)
        images = torch.bmm(activations, matrix.permute(1, 3, 0, 2).flatten(2))
        if bias:
            images += bias[0].view(len(weight), groups, out).transpose(0, 1).flatten(1)[:, None]
        images = images.view(groups, samples, positions, len(weight), out)
        images = images.permute(1, 3, 2, 0, 4).flatten(2)
        return torch.bmm(self.cotangents.flatten(2), images.mT)

    @property
    def sketched_vectors(self) -> int:
        if self.order.keeps_rows:
            return super().sketched_vectors
        return self.cotangents.shape[1] * longest_axis(self.layout)

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        if not self.order.keeps_rows:
            return self.dense().sketch(maps)
        activations = multiply_complex(self.activations, self.order.columns(maps[0].columns))
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
        found = torch.stack(
            [multiply_complex(e, p) for e, p in zip(cotangents, phases, strict=True)]
        )
        return found.unflatten(1, (-1, positions)).movedim(0, 2)

    def _activation_gram(self, other: PositionBlock) -> Tensor:
        assert isinstance(other, FactorBlock)
        own, others = self.activations[:, None], other.activations[:, None]
        return multiply_positions(own, others, float(self._has_bias))[:, 0, :, :, 0]


def _bilinear(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """sum_g l_gr M_g r_gr for each row r, by way of the shorter side, of shape (r,)."""
    if matrix.shape[1] < matrix.shape[2]:
        return (torch.bmm(right, matrix.mT) * left).sum(dim=(0, 2))
    return (torch.bmm(left, matrix) * right).sum(dim=(0, 2))
