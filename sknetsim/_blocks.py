"""A layer's per-sample gradients, held in factors.

Index legend: n, m samples; o, p outputs of the network; t, s positions (uses of the weight);
g groups; j out, i in (so that a group's gradient is a j x i matrix); q vectors; w the block's
parameters, flattened in the order of its layout.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Layout = tuple[tuple[str, torch.Size], ...]

# Elements that are held in float64 at a time (64 MiB).
_DOUBLE_ELEMENTS = 2**23


@dataclass(frozen=True)
class Block(abc.ABC):
    """Gradients of d outputs for n samples with respect to the parameters in ``layout``."""

    layout: Layout

    @abc.abstractmethod
    def materialize(self) -> Tensor:
        """The gradients themselves, of shape (n, o, w)."""

    @abc.abstractmethod
    def whiten(self, root: Tensor) -> Block:
        """The block of root(x) J(x), for roots of shape (n, o, p)."""

    @abc.abstractmethod
    def self_kernel(self) -> Tensor:
        """K(x, x), of shape (n, o, p), float64: squares may leave the range of float32."""

    @abc.abstractmethod
    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Sums over samples and outputs with weights of shape (n, o, q): shape (q, w)."""

    @abc.abstractmethod
    def inner(self, vectors: Tensor) -> Tensor:
        """Sum over outputs of <J_o(x), v_o>, for vectors of shape (o, w): shape (n,)."""

    @abc.abstractmethod
    def _gram(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _trace_gram(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _tensors(self) -> tuple[Tensor, ...]: ...

    @abc.abstractmethod
    def _concatenated(self, blocks: Sequence[Any]) -> Block: ...

    @abc.abstractmethod
    def _added(self, blocks: Sequence[Any]) -> Block: ...

    def _form(self) -> tuple[object, ...]:
        """Blocks of the same form can be joined as they are."""
        return (type(self),)

    def gram(self, other: Block) -> Tensor:
        """K(x, x'), of shape (n, m, o, p)."""
        if type(self) is type(other):
            return self._gram(other)
        return self.dense()._gram(other.dense())

    def trace_gram(self, other: Block) -> Tensor:
        """The trace of K(x, x') over the outputs, of shape (n, m)."""
        if type(self) is type(other):
            return self._trace_gram(other)
        return self.dense()._trace_gram(other.dense())

    def dense(self) -> DenseBlock:
        """The same gradients without factors."""
        return DenseBlock(self.layout, self.materialize())

    @property
    def positions(self) -> int:
        """How often the parameters are used per sample."""
        return 1

    @property
    def nbytes(self) -> int:
        """Bytes that the factors take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())


@dataclass(frozen=True)
class DenseBlock(Block):
    """Gradients written out, of shape (n, o, w)."""

    gradients: Tensor

    def materialize(self) -> Tensor:
        return self.gradients

    def whiten(self, root: Tensor) -> DenseBlock:
        return replace(self, gradients=torch.bmm(root.to(self.gradients), self.gradients))

    def self_kernel(self) -> Tensor:
        step = max(1, _DOUBLE_ELEMENTS // max(1, self.gradients[:1].numel()))
        return torch.cat([_double_products(rows) for rows in self.gradients.split(step)])

    def weighted_sum(self, weights: Tensor) -> Tensor:
        flat = weights.to(self.gradients).flatten(0, 1)
        return flat.mT @ self.gradients.flatten(0, 1)

    def inner(self, vectors: Tensor) -> Tensor:
        return self.gradients.flatten(1) @ vectors.to(self.gradients).flatten()

    def _gram(self, other: Block) -> Tensor:
        product = self.gradients.flatten(0, 1) @ other.materialize().flatten(0, 1).mT
        outputs = self.gradients.shape[1]
        return product.unflatten(1, (-1, outputs)).unflatten(0, (-1, outputs)).transpose(1, 2)

    def _trace_gram(self, other: Block) -> Tensor:
        return self.gradients.flatten(1) @ other.materialize().flatten(1).mT

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.gradients,)

    def _concatenated(self, blocks: Sequence[DenseBlock]) -> DenseBlock:
        return replace(self, gradients=torch.cat([block.gradients for block in blocks]))

    def _added(self, blocks: Sequence[DenseBlock]) -> DenseBlock:
        return replace(self, gradients=torch.stack([block.gradients for block in blocks]).sum(0))


def _double_products(gradients: Tensor) -> Tensor:
    doubled = gradients.double()
    return torch.bmm(doubled, doubled.mT)


def concatenate(blocks: Sequence[Block]) -> Block:
    """One block of all the samples of blocks of the same layer."""
    positions = {block.positions for block in blocks}
    joined = _of_one_form(blocks) if len(positions) == 1 else [block.dense() for block in blocks]
    return joined[0]._concatenated(joined)


def add(blocks: Sequence[Block]) -> Block:
    """The block of the summed gradients: several uses of the same parameters."""
    if len(blocks) == 1:
        return blocks[0]
    joined = _of_one_form(blocks)
    return joined[0]._added(joined)


def _of_one_form(blocks: Sequence[Block]) -> Sequence[Block]:
    if len({block._form() for block in blocks}) == 1:
        return blocks
    return [block.dense() for block in blocks]
