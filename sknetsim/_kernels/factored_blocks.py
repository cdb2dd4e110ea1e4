"""Blocks of layers that multiply activations by a weight, without forming the gradients.

Index legend: n, m samples; o, p outputs of the network; t, s positions to which the weight is
applied; g groups; j output and i input channels of a group (its gradient is a j x i matrix);
q vectors; f frequencies. a[n,t,g,i] are activations and e[n,o,t,g,j] cotangents. The gradient of
the weight is J[n,o,gji] = sum_t e[n,o,t,g,j] a[n,t,g,i]. The gradient of the bias is
J[n,o,gj] = sum_t e[n,o,t,g,j], like that of a weight whose activation is always 1. Letters side by
side are one flattened axis, as in J[n,o,gji], or, under a sum, several indices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .blocks import Block, DenseBlock, squared_norms
from .layouts import PLAIN_ORDER, FourierMap, Order, longest_first_axis, multiply_complex
from .position_blocks import PositionBlock
from .positions import multiply_positions, sum_outer_products, weight_cotangents


@dataclass(frozen=True)
class FactorBlock(PositionBlock):
    """Gradients from activations a of shape (n, t, g, i) and cotangents e of shape (n, o, t, g, j).

    ``order`` defines how a weight stored as (g, j, i) is arranged in the layout. If the layout has
    a second entry, it is a bias with one element for each (g, j).
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

    @property
    def _rows_are_channels(self) -> bool:
        """True if the rows of the weight are the channels (g, j), or (g, i) if they come first.

        A weight with an axis of its own for the groups has other rows.
        """
        channels = self.cotangents.shape[-1] if self.order.keeps_rows else self._width
        return self.layout[0][1][0] == self.cotangents.shape[3] * channels

    def _weight_gradients(self) -> Tensor:
        """Return sum_t e[n,o,t,g,j] a[n,t,g,i], of shape (n, o, g j i), in stored order."""
        _, outputs, positions, groups, out = self.cotangents.shape
        if positions == 1:
            cotangents, activations = self.cotangents.squeeze(2), self.activations.squeeze(1)
            matrix = cotangents[..., None] * activations[:, None, :, None]
        elif groups == 1:
            # matrix[n,oj,i] = sum_t e[n,oj,t] a[n,t,i]
            cotangents, activations = self.cotangents.squeeze(3), self.activations.squeeze(2)
            cotangents = cotangents.mT.reshape(-1, outputs * out, positions)
            matrix = torch.bmm(cotangents, activations).unflatten(1, (outputs, out))
        else:
            matrix = torch.einsum("notgj,ntgi->nogji", self.cotangents, self.activations)
        return matrix.flatten(2)

    def materialize(self) -> Tensor:
        weight = self.order.to_layout(self._weight_gradients())
        if not self._has_bias:
            return weight
        return torch.cat([weight, self.cotangents.sum(dim=2).flatten(2)], dim=2)

    def split_matrix(self) -> tuple[Tensor, Tensor] | None:
        is_matrix = len(self.layout) == 1 and len(self.layout[0][1]) == 2
        if not is_matrix or self.cotangents.shape[1] > 1 or self.cotangents.shape[3] > 1:
            return None
        vectors = self.cotangents[:, 0, :, 0], self.activations[:, :, 0]
        if self.order.axes == (0, 2, 1):
            return vectors[::-1]
        return vectors if self.order == PLAIN_ORDER else None

    def written(self) -> DenseBlock:
        if not self._has_bias:
            return DenseBlock(self.layout, self._weight_gradients(), self.order)
        columns = replace(self, activations=self._append_ones())
        order = self.order.with_bias(*self.matrix_shape)
        return DenseBlock(self.layout, columns._weight_gradients(), order)

    def _append_ones(self) -> Tensor:
        """Return the activations with one more input channel, that of the bias."""
        ones = self.activations.new_ones(()).expand(*self.activations.shape[:3], 1)
        return torch.cat([self.activations, ones], dim=3)

    def as_matrices(self, name: str) -> FactorBlock:
        activations = self._append_ones() if self._has_bias else self.activations
        groups, out = self.cotangents.shape[3:]
        layout = ((name, torch.Size([groups * out, activations.shape[3]])),)
        return FactorBlock(layout, self.cotangents, activations)

    @property
    def matrix_order(self) -> Order:
        return self.order

    def activation_moments(self) -> Tensor:
        return sum_outer_products(self.activations.movedim(2, 0).flatten(1, 2))

    def rotate(self, left: Tensor, right: Tensor | None) -> FactorBlock:
        activations = self.activations
        if right is not None:
            activations = torch.einsum("ntgi,gik->ntgk", activations, right.to(activations))
        return replace(self, cotangents=self._rotate_cotangents(left), activations=activations)

    def sum_squares(self) -> Tensor:
        if self.positions == 1:
            # G = e a^T, so sum_no G^2 = sum_n (sum_o e[n,o,g,j]^2) a[n,g,i]^2
            squares = self.cotangents[:, :, 0].double().square().sum(dim=1)
            return torch.einsum("ngj,ngi->gji", squares, self.activations[:, 0].double().square())
        sums = [
            part._weight_gradients().square().sum(dim=(0, 1), dtype=torch.float64)
            for part in self._split_to_write()
        ]
        return functools.reduce(torch.add, sums).view(self.matrix_shape)

    def scale(self, factors: Tensor) -> DenseBlock:
        gradients = self._weight_gradients()
        gradients *= factors.flatten().to(gradients)
        return DenseBlock(self.layout, gradients, self.order)

    def self_kernel(self) -> Tensor:
        if math.prod(self.cotangents.shape[2:4]) > 1:
            return super().self_kernel()
        # One position and one group: K[n,o,p] = (|a[n]|^2 + 1 for a bias) (e[n,o] . e[n,p])
        norms = squared_norms(self.activations.flatten(1)) + self._has_bias
        cotangents = DenseBlock(self.layout, self.cotangents.flatten(2))
        return norms[:, None, None] * cotangents.self_kernel()

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        vectors, groups = weights.shape[2], self.cotangents.shape[3]
        # weighted[g,nt,qj] = sum_o weights[n,o,q] e[n,o,t,g,j]
        weighted = weight_cotangents(self.cotangents, weights.to(self.cotangents))
        activations = self.activations.permute(2, 0, 1, 3).flatten(1, 2)
        # matrix[g,qj,i] = sum_nt weighted[g,nt,qj] a[g,nt,i], then the axes become (q, g j i).
        matrix = torch.bmm(weighted.mT, activations).view(groups, vectors, -1)
        sums = [self.order.to_layout(matrix.transpose(0, 1).flatten(1))]
        if self._has_bias:
            # bias[g,qj] = sum_nt weighted[g,nt,qj]
            bias = weighted.sum(dim=1).view(groups, vectors, -1)
            sums.append(bias.transpose(0, 1).flatten(1))
        return sums

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        weight, *bias = (vector.to(self.cotangents) for vector in vectors)
        outputs, _, groups, out = self.cotangents.shape[1:]
        # The groups become the first axis of all factors: v[g,oj,i], e[g,nt,oj], a[g,nt,i].
        matrix = self.order.from_layout(weight).view(outputs, groups, out, -1)
        matrix = matrix.transpose(0, 1).flatten(1, 2)
        cotangents = self.cotangents.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)
        activations = self.activations.permute(2, 0, 1, 3).flatten(1, 2)
        # products[nt] = sum_g sum_oj,i e[g,nt,oj] v[g,oj,i] a[g,nt,i]
        products = _bilinear_forms(cotangents, matrix, activations)
        if bias:
            # products[nt] += sum_g sum_oj e[g,nt,oj] v[g,oj]
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
        # images[g,nt,qj] = sum_i a[g,nt,i] v[q,g,j,i] (+ v[q,g,j] for a bias), which is the output
        # of the layer if v_q were its parameters.
        images = torch.bmm(activations, matrix.permute(1, 3, 0, 2).flatten(2))
        if bias:
            images += bias[0].view(len(weight), groups, out).transpose(0, 1).flatten(1)[:, None]
        images = images.view(groups, samples, positions, len(weight), out)
        images = images.permute(1, 3, 2, 0, 4).flatten(2)
        # result[n,o,q] = sum_tgj e[n,o,tgj] images[n,q,tgj]
        return torch.bmm(self.cotangents.flatten(2), images.mT)

    @property
    def sketched_vectors(self) -> int:
        if self.order.keeps_rows and self._rows_are_channels:
            return super().sketched_vectors
        return self.cotangents.shape[1] * longest_first_axis(self.layout)

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        if not self.order.keeps_rows or not self._rows_are_channels:
            return self.dense().sketch(maps)
        # activations[n,t,g,f] = sum_i a[n,t,g,i] columns[i,f], and the sketch is
        # sum_tg activations[n,t,g,f] cotangents[n,t,g,f].
        columns = self.order.columns_from_layout(maps[0].columns)
        activations = multiply_complex(self.activations, columns)
        sketch = torch.einsum("ntgf,ntgf->nf", activations, self._sketch_cotangents(maps[0]))
        if self._has_bias:
            # The bias has a single column.
            sketch += self._sketch_cotangents(maps[1]).sum(dim=(1, 2)) * maps[1].columns[0]
        return sketch

    def _sketch_cotangents(self, fourier: FourierMap) -> Tensor:
        """Return sum_oj outputs[o,f] rows[gj,f] e[n,o,t,g,j], of shape (n, t, g, f)."""
        _, positions, groups, out = self.cotangents.shape[1:]
        # The groups become the first axis of both factors: e[g,nt,oj], phases[g,oj,f].
        cotangents = self.cotangents.permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)
        phases = fourier.outputs[:, None] * fourier.rows
        phases = phases.unflatten(1, (groups, out)).transpose(0, 1).flatten(1, 2)
        sketches = torch.stack(
            [multiply_complex(*factors) for factors in zip(cotangents, phases, strict=True)]
        )
        return sketches.unflatten(1, (-1, positions)).movedim(0, 2)

    def _activation_gram(self, other: PositionBlock) -> Tensor:
        assert isinstance(other, FactorBlock)
        # a_t . a'_s + 1 for a bias, as if the bias were a weight with activation 1.
        own, others = self.activations[:, None], other.activations[:, None]
        return multiply_positions(own, others, float(self._has_bias))[:, 0, :, :, 0]

    def _paired_activation_gram(self, other: Any) -> Tensor:
        own, others = (block.activations.movedim(2, 1) for block in (self, other))
        return own @ others.mT + self._has_bias

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        assert isinstance(other, FactorBlock)
        # The shares of the input channels (g, i), and of the whole bias, follow from the factors.
        # The input channels are columns of the weight if its order keeps the rows (g, j), and rows
        # if not.
        is_written = by_rows[0] == self.order.keeps_rows or any(by_rows[1:])
        if is_written or not self._rows_are_channels:
            return self.dense()._marginals(other.dense(), by_rows)
        own, others = (block.activations.movedim(2, 1) for block in (self, other))
        cotangents = self._paired_cotangents(other)
        # products[n,g,i] = sum_t a[n,g,t,i] sum_s (sum_oj e_t e'_s) a'[n,g,s,i]
        products = (own * (cotangents @ others)).sum(dim=2)
        if self.order.keeps_rows:
            # The rows are those of all groups, so a column sums over the groups.
            marginals = [self.order.column_order().to_layout(products.sum(dim=1))]
        else:
            marginals = [products.flatten(1)]
        if self._has_bias:
            marginals.append(cotangents.sum((1, 2, 3))[:, None])
        return marginals


def _bilinear_forms(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """Return sum_g left[g,r,:]^T matrix[g] right[g,r,:] for each row r, of shape (r,).

    The matrix is multiplied by the longer of both vectors first, so that the temporary is small.
    """
    if matrix.shape[1] < matrix.shape[2]:
        return (torch.bmm(right, matrix.mT) * left).sum(dim=(0, 2))
    return (torch.bmm(left, matrix) * right).sum(dim=(0, 2))
