"""Base class of the blocks of layers that apply a weight to one or several positions.

Index legend: n, m samples; o, p outputs of the network; t, s positions to which the weight is
applied; g groups; j output and i input channels of a group (its gradient is a j x i matrix);
q vectors. Letters side by side are one flattened axis, as in J[n,o,gji], or, under a sum, several
indices. With activations a[n,t,g,i] and cotangents e[n,o,t,g,j], the gradient of the weight is
J[n,o,gji] = sum_t e[n,o,t,g,j] a[n,t,g,i]. Kernels follow from products over pairs of positions,
without forming the gradient:

K[n,m,o,p] = sum_gts (a[n,t,g] . a'[m,s,g]) (e[n,o,t,g] . e'[m,p,s,g])

The alternative is to form the gradients first, and then to multiply them. Its cost does not grow
with the square of the number of positions, so it is cheaper for many positions.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .blocks import Block, DenseBlock, concatenate_tensors, products_in_double
from .layouts import Order
from .positions import multiply_positions, sum_outer_products

# Elements of a temporary over pairs of positions (64 MiB in float32).
_PAIR_ELEMENTS = 2**24

# A multiplication of factors in float64 takes about as long as this many in float32.
_DOUBLE_OPERATIONS = 3

# Largest ratio of (sum_t |a_t| |e_t|)^2 to K for which products in float32 are exact enough: the
# relative error of K is at most about this many roundings.
_LARGEST_CANCELLATION = 64

# Addition to |a_t|^2, relative to it, that makes the products of all pairs of activations positive
# definite in spite of the rounding errors of float64; and an absolute one, if all a_t are zero.
_ROOT_ADDITION = 2**-45
_SMALLEST_PIVOT = 1e-280

# Operations for each element that is written out and read again: in the cache, or in memory.
_WRITTEN_OPERATIONS = 8
_KEPT_OPERATIONS = 64

# Number of elements that are written out at a time for a self-kernel (1 MiB in float32).
_WRITTEN_ELEMENTS = 2**18

# Moving one element through memory takes about as long as this many multiplications.
_ELEMENT_OPERATIONS = 16


@dataclass(frozen=True)
class PositionBlock(Block):
    """Gradients sum_t e_t a_t^T from cotangents e of shape (n, o, t, g, j) and activations a.

    Subclasses define how the activations are stored.
    """

    _activation_field: ClassVar[str]

    cotangents: Tensor

    @abc.abstractmethod
    def _activation_gram(self, other: PositionBlock) -> Tensor:
        """Return a[n,t,g] . a'[m,s,g], broadcastable to the shape (n, t, m, s, g)."""

    @abc.abstractmethod
    def _paired_activation_gram(self, other: Any) -> Tensor:
        """Return a[n,t,g] . a'[n,s,g] of the n-th samples of both blocks, as (n, g, t, s)."""

    @abc.abstractmethod
    def as_matrices(self, name: str) -> PositionBlock:
        """Return the gradients of a weight and its bias as those of one weight of this name.

        The bias is one more input channel, whose activation is always 1.
        """

    @property
    @abc.abstractmethod
    def matrix_order(self) -> Order:
        """Order in which the weight, stored as (g, j, i), is arranged in the layout."""

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Numbers g, j and i of groups, and of output and input channels of a group."""
        return *self.cotangents.shape[3:], self._width

    def cotangent_moments(self) -> Tensor:
        """Return S[g,j,k] = sum_not e[n,o,t,g,j] e[n,o,t,g,k], float64."""
        return sum_outer_products(self.cotangents.movedim(3, 0).flatten(1, 3))

    @abc.abstractmethod
    def activation_moments(self) -> Tensor:
        """Return A[g,i,k] = sum_nt a[n,t,g,i] a[n,t,g,k], float64.

        If A is diagonal by construction, the result is the diagonal, of shape (g, i).
        """

    @abc.abstractmethod
    def rotate(self, left: Tensor, right: Tensor | None) -> PositionBlock:
        """Return the block of L^T G R, with a matrix G for each sample, output and group.

        The matrices L have the shape (g, j, j), and R (g, i, i); None stands for the identity.
        """

    def _rotate_cotangents(self, left: Tensor) -> Tensor:
        # L^T (sum_t e_t a_t^T) R = sum_t (L^T e_t) (R^T a_t)^T
        return torch.einsum("notgj,gjk->notgk", self.cotangents, left.to(self.cotangents))

    @abc.abstractmethod
    def sum_squares(self) -> Tensor:
        """Return sum_no G[n,o,g,j,i]^2, float64, where G are the gradients."""

    @abc.abstractmethod
    def scale(self, factors: Tensor) -> Block:
        """Return the block of the gradients factors[g,j,i] G[n,o,g,j,i]."""

    @property
    @abc.abstractmethod
    def _width(self) -> int:
        """Number of input channels i of a group."""

    @property
    def _product_operations(self) -> int:
        """Number of multiplications for a product of two activations."""
        return self._width

    @property
    def positions(self) -> int:
        return self.cotangents.shape[2]

    @property
    def has_positions(self) -> bool:
        return True

    @property
    def sketched_vectors(self) -> int:
        # There is at most one vector of cotangents and one of activations for each (o, t, g).
        return 2 * math.prod(self.cotangents.shape[1:4])

    def split_matrix(self) -> tuple[Tensor, Tensor] | None:
        """Return vectors r (n,t,r) and c (n,t,c) for the gradient sum_t r_t c_t^T of a matrix.

        One-hot vectors are given as row numbers, of shape (n, t). The result is None if the
        gradient has another form, or if there are several outputs.
        """
        return None

    def written(self) -> DenseBlock:
        """Return the gradients written out, in the order that is cheapest to form."""
        return self.dense()

    def for_sums(self, vectors: int = 1) -> Block:
        # Each of the o j i elements takes t multiplications when it is written out, o in the
        # self-kernel, and o in weighted sums with o weights per output.
        outputs, positions = self.cotangents.shape[1:3]
        per_element = positions + 2 * outputs + _KEPT_OPERATIONS
        dense_operations = self._count_elements() * per_element
        # From the factors, a weighted sum multiplies only the weighted sums of the outputs.
        sum_operations = vectors * positions * self._count_elements() // outputs
        self_operations = min(self._count_written_operations(), self._count_paired_operations())
        return self.written() if dense_operations < sum_operations + self_operations else self

    def prefers_pairs(self, sums: int) -> bool:
        samples, _, positions = self.cotangents.shape[:3]
        pair_operations = samples**2 * positions * self._pair_operations()
        # Each of the o j i elements takes n t multiplications in all sums together, and each sum is
        # kept.
        per_element = samples * positions + sums * _KEPT_OPERATIONS
        return _DOUBLE_OPERATIONS * pair_operations < self._count_elements() * per_element

    def _count_elements(self) -> int:
        """Return the number o j i of elements of one sample and group, if written out."""
        return self.cotangents.shape[1] * self.cotangents.shape[-1] * self._width

    def _count_written_operations(self) -> int:
        """Return the operations of a self-kernel if the gradients are written out for it."""
        outputs, positions = self.cotangents.shape[1:3]
        return self._count_elements() * (positions + outputs + _WRITTEN_OPERATIONS)

    def _count_paired_operations(self) -> int:
        """Return the operations of a self-kernel over pairs of positions."""
        _, outputs, positions, _, out = self.cotangents.shape
        kernel_operations = outputs**2 * positions * out if outputs > 1 else 0
        return positions * self._pair_operations() + kernel_operations

    def for_pairs(self) -> Block:
        # For one pair of samples and one group, the o j i elements take one multiplication each.
        _, outputs, positions, _, out = self.cotangents.shape
        dense_operations = outputs * out * self._width
        factored_operations = positions * self._pair_operations()
        return self.written() if dense_operations < factored_operations else self

    def _pair_operations(self) -> int:
        """Return the number of operations for one position t and all positions s of a sample.

        Each pair (t, s) takes i multiplications for the activations and o j for the cotangents, and
        the product is moved through memory once.
        """
        _, outputs, positions, _, out = self.cotangents.shape
        return positions * (self._product_operations + outputs * out + _ELEMENT_OPERATIONS)

    def whiten(self, root: Tensor) -> PositionBlock:
        # e^[n,o,t,g,j] = sum_p root[n,o,p] e[n,p,t,g,j]: the root acts on the output axis, so the
        # activations stay the same.
        root = root.to(self.cotangents)
        if root.shape[1] == 1:
            return replace(self, cotangents=self.cotangents * root[..., None, None])
        cotangents = torch.bmm(root, self.cotangents.flatten(2))
        return replace(self, cotangents=cotangents.view(self.cotangents.shape))

    def self_kernel(self) -> Tensor:
        if self._count_paired_operations() <= self._count_written_operations():
            return self._multiply_pairs()
        return torch.cat([part.written().self_kernel() for part in self._split_to_write()])

    def _split_to_write(self) -> list[Any]:
        """Return parts of the samples whose gradients stay in the cache when written out."""
        step = max(1, _WRITTEN_ELEMENTS // (self._count_elements() * self.cotangents.shape[3]))
        starts = range(0, len(self.cotangents), step)
        return [self.rows(slice(start, start + step)) for start in starts]

    def _multiply_pairs(self) -> Tensor:
        """Return the self-kernel from products of all pairs of positions."""
        if self.cotangents.dtype is torch.float64:
            return self._multiply_pairs_in_double()
        if self.cotangents.shape[1] > 1:
            return self._multiply_roots()
        # With one output, K[n] = sum_gts A[n,g,t,s] E[n,g,t,s], where A are the products of
        # activations and E those of cotangents.
        activations, cotangents = self._paired_activation_gram(self), self._paired_cotangents(self)
        norms = [gram.diagonal(dim1=2, dim2=3) for gram in (activations, cotangents)]
        kernel = cotangents.mul(activations).sum(dim=(1, 2, 3), dtype=torch.float64)
        # Each term has a rounding error relative to |a_t| |e_t| |a_s| |e_s|. If the terms cancel,
        # it is large relative to K, and the products are computed in float64. This includes NaN.
        bound = (norms[0] * norms[1]).clamp(min=0).sqrt().sum(dim=(1, 2), dtype=torch.float64)
        inexact = torch.nonzero(~(bound.square() < _LARGEST_CANCELLATION * kernel))[:, 0]
        if len(inexact):
            part: Any = self.rows(inexact)
            kernel[inexact] = part._multiply_pairs_in_double()[:, 0, 0]
        return kernel[:, None, None]

    def _multiply_roots(self) -> Tensor:
        """Return the self-kernel of several outputs from a root of the products of activations.

        If a[n,t,g] . a[n,s,g] = sum_r L[n,g,t,r] L[n,g,s,r], the gradients have the products of

        F[n,o,rgj] = sum_t L[n,g,t,r] e[n,o,t,g,j],

        which are short if there are few positions. In float32, F has rounding errors like those of
        gradients that are written out, and its products are computed in float64.
        """
        # Only the activations are needed in float64.
        doubled: Any = replace(self, cotangents=self.cotangents[..., :0]).double()
        products = doubled._paired_activation_gram(doubled)
        norms = products.diagonal(dim1=2, dim2=3).clamp(min=0).sqrt()
        # Equal activations, or more positions than channels, have no root without this addition.
        products.diagonal(dim1=2, dim2=3).mul_(1 + _ROOT_ADDITION).add_(_SMALLEST_PIVOT)
        roots, failures = torch.linalg.cholesky_ex(products)
        roots = roots.mT.to(self.cotangents)
        parts = []
        step = max(1, _WRITTEN_ELEMENTS // self.cotangents[:1].numel())
        for root, cotangents in zip(roots.split(step), self.cotangents.split(step), strict=True):
            short = root[:, :, None] @ cotangents.movedim(3, 1)
            parts.append(products_in_double(short.transpose(1, 2).flatten(2)))
        kernel = torch.cat(parts)
        # The rounding error of F_o is relative to sum_tg |a_t| |e_ot|. If the terms of a gradient
        # cancel, it is large relative to |F_o|, and all is computed in float64. This includes NaN.
        lengths = torch.linalg.vector_norm(self.cotangents, dim=4).double()
        bound = torch.einsum("ngt,notg->no", norms, lengths)
        limit = _LARGEST_CANCELLATION**2 * kernel.diagonal(dim1=1, dim2=2)
        is_exact = (bound.square() <= limit).all(dim=1) & (failures == 0).all(dim=1)
        inexact = torch.nonzero(~is_exact)[:, 0]
        if len(inexact):
            part: Any = self.rows(inexact)
            kernel[inexact] = part._multiply_pairs_in_double()
        return kernel

    def _multiply_pairs_in_double(self) -> Tensor:
        """Return the self-kernel from products of all pairs of positions in float64."""
        doubled: Any = self.double()
        cotangents = doubled.cotangents.movedim(3, 1)
        # spread[n,g,o,t,j] = sum_s (a[n,t,g] . a[n,s,g]) e[n,o,s,g,j]
        spread = doubled._paired_activation_gram(doubled)[:, :, None] @ cotangents
        # K[n,o,p] = sum_tgj e[n,o,tgj] spread[n,p,tgj]
        cotangents, spread = (tensor.movedim(1, 3).flatten(2) for tensor in (cotangents, spread))
        return torch.bmm(cotangents, spread.mT)

    def _concatenate(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        # Samples are the first axis of both factors.
        return self._join(blocks, {"cotangents": 0, self._activation_field: 0})

    def _add(self, blocks: Sequence[PositionBlock]) -> PositionBlock:
        # Gradients are sums over positions, so the positions of all blocks are put side by side.
        return self._join(blocks, {"cotangents": 2, self._activation_field: 1})

    def _join(self, blocks: Sequence[PositionBlock], axes: dict[str, int]) -> PositionBlock:
        """Concatenate each factor along its axis."""
        factors: dict[str, Any] = {
            name: concatenate_tensors([getattr(block, name) for block in blocks], axis)
            for name, axis in axes.items()
        }
        return replace(self, **factors)

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        outputs = self.cotangents.shape[1] * other.cotangents.shape[1]
        return _concatenate_parts([part._gram_part(other) for part in self._split(other, outputs)])

    def _gram_part(self, other: PositionBlock) -> Tensor:
        products = multiply_positions(self.cotangents, other.cotangents)
        activations = self._activation_gram(other)
        if products.shape[2] == products.shape[5] == products.shape[6] == 1:
            # One position and one group: K[n,m,o,p] = (a[n] . a'[m]) (e[n,o] . e'[m,p])
            products = products[:, :, 0, :, :, 0, 0]
            return products.mul_(activations[:, 0, :, 0, 0][:, None, :, None]).transpose(1, 2)
        return torch.einsum("notmpsg,ntmsg->nmop", products, activations)

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        return _concatenate_parts([part._trace_gram_part(other) for part in self._split(other, 1)])

    def _trace_gram_part(self, other: PositionBlock) -> Tensor:
        # With outputs and channels in one axis, a single product sums over both:
        # products[n,t,m,s,g] = sum_oj e[n,t,g,oj] e'[m,s,g,oj]
        own = self.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        others = other.cotangents.permute(0, 2, 3, 1, 4).flatten(3)
        products = multiply_positions(own[:, None], others[:, None])[:, 0, :, :, 0]
        # tr K[n,m] = sum_tsg (a[n,t,g] . a'[m,s,g]) products[n,t,m,s,g]
        products = products.mul_(self._activation_gram(other))
        if products[0, :, 0].numel() == 1:
            return products[:, 0, :, 0, 0]
        return products.sum((1, 3, 4))

    def _paired(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        return self.paired_positions(other).sum((1, 2))

    def paired_positions(self, other: Block) -> Tensor:
        assert isinstance(other, PositionBlock)
        # sum_g (a[n,t,g] . a'[n,s,g]) sum_o e[n,o,t,g] . e'[n,o,s,g]
        products = self._paired_cotangents(other).mul_(self._paired_activation_gram(other))
        return products.sum(dim=1)

    def _paired_cotangents(self, other: PositionBlock) -> Tensor:
        """Return sum_oj e[n,o,t,g,j] e'[n,o,s,g,j], of shape (n, g, t, s)."""
        own, others = (
            block.cotangents.permute(0, 3, 2, 1, 4).flatten(3) for block in (self, other)
        )
        return torch.matmul(own, others.mT)

    def _split(self, other: PositionBlock, outputs: int) -> list[Any]:
        """Return parts of the samples, so that temporaries have at most `_PAIR_ELEMENTS` elements.

        The temporary of one sample has the shape (outputs, t, g, m, s). A part has at least one
        sample, even if that exceeds the limit.
        """
        per_sample = outputs * math.prod(self.cotangents.shape[2:4])
        per_sample *= other.cotangents.shape[0] * other.cotangents.shape[2]
        step = max(1, _PAIR_ELEMENTS // max(1, per_sample))
        samples = len(self.cotangents)
        return [self.rows(slice(start, start + step)) for start in range(0, samples, step)]


def _concatenate_parts(parts: list[Tensor]) -> Tensor:
    """Return the parts concatenated, or a single part without a copy."""
    return parts[0] if len(parts) == 1 else concatenate_tensors(parts)
