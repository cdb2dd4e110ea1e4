"""A layer's per-sample gradients, held in factors.

Index legend: n, m samples; o, p outputs of the network; t, s positions (uses of the weight);
g groups; j out, i in (so that a group's gradient is a j x i matrix); q vectors; w the block's
parameters, flattened in the order of its layout.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .layouts import PLAIN_ORDER, FourierMap, Layout, Order, longest_axis, multiply_complex

# Elements that are held in float64 at a time (512 KiB, which stays in a core's cache).
_DOUBLE_ELEMENTS = 2**16

# Elements whose squares are summed in the gradients' dtype, before float64 takes over.
_SEGMENT = 512


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
    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        """Sums over samples and outputs with weights of shape (n, o, q).

        One tensor of shape (q, size) for each entry of the layout.
        """

    @abc.abstractmethod
    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        """Sum over outputs of <J_o(x), v_o>, of shape (n,).

        The vectors are of shape (o, size), one for each entry of the layout.
        """

    @abc.abstractmethod
    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        """<J_o(x), v_q>, of shape (n, o, q).

        The vectors are of shape (q, size), one for each entry of the layout.
        """

    @abc.abstractmethod
    def _gram(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _paired(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]: ...

    @abc.abstractmethod
    def _trace_gram(self, other: Block) -> Tensor: ...

    @abc.abstractmethod
    def _concatenated(self, blocks: Sequence[Any]) -> Block: ...

    @abc.abstractmethod
    def _added(self, blocks: Sequence[Any]) -> Block: ...

    def _form(self) -> tuple[object, ...]:
        """Blocks of the same form can be joined as they are."""
        return (type(self),)

    def gram(self, other: Block) -> Tensor:
        """K(x, x'), of shape (n, m, o, p)."""
        if self._form() == other._form():
            return self._gram(other)
        return self.dense()._gram(other.dense())

    def trace_gram(self, other: Block) -> Tensor:
        """The trace of K(x, x') over the outputs, of shape (n, m)."""
        if self._form() == other._form():
            return self._trace_gram(other)
        return self.dense()._trace_gram(other.dense())

    def paired(self, other: Block) -> Tensor:
        """The trace of K(x, x') for rows of two blocks taken one by one, of shape (n,)."""
        if self._form() == other._form():
            return self._paired(other)
        return self.dense()._paired(other.dense())

    def marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        """What entries of the gradients add to `paired`, summed over one axis of each parameter.

        Of shape (n, r) for an entry of the layout that goes ``by_rows``, of shape (n, c) for
        others, r a parameter's first axis and c its other axes, flattened.
        """
        if self._form() == other._form():
            return self._marginals(other, by_rows)
        return self.dense()._marginals(other.dense(), by_rows)

    def dense(self) -> DenseBlock:
        """The same gradients without factors, in the order of the layout."""
        return DenseBlock(self.layout, self.materialize())

    @abc.abstractmethod
    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        """Tensor sketch of the gradients in the Fourier domain, of shape (n, f), complex.

        One map for each entry of the layout.
        """

    @property
    @abc.abstractmethod
    def sketched_vectors(self) -> int:
        """Complex vectors of f numbers that a sketch holds for each sample."""

    def for_sums(self) -> Block:
        """Itself, or the form that is cheaper for a self-kernel and a sum."""
        return self

    def for_pairs(self) -> Block:
        """Itself, or the form that is cheaper for grams."""
        return self

    def rows(self, rows: Any) -> Block:
        """The block of some of the samples."""
        return self._map(lambda tensor: tensor[rows])

    def split(self, sizes: Sequence[int]) -> list[Block]:
        """The blocks of so many samples each, one after the other."""
        tensors = {name: tensor.split(list(sizes)) for name, tensor in self._tensors().items()}
        parts: list[dict[str, Any]] = [
            dict(zip(tensors, part, strict=True)) for part in zip(*tensors.values(), strict=True)
        ]
        return [replace(self, **part) for part in parts]

    def double(self) -> Block:
        """The block in float64."""
        return self._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

    @property
    def positions(self) -> int:
        """How often the parameters are used per sample."""
        return 1

    @property
    def nbytes(self) -> int:
        """Bytes that the factors take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        """The factors, whose first axis is the samples'."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _map(self, function: Callable[[Tensor], Tensor]) -> Block:
        mapped: dict[str, Any] = {
            name: function(tensor) for name, tensor in self._tensors().items()
        }
        return replace(self, **mapped)


@dataclass(frozen=True)
class DenseBlock(Block):
    """Gradients written out, of shape (n, o, w), where w is held in some order."""

    gradients: Tensor
    order: Order = PLAIN_ORDER

    def _form(self) -> tuple[object, ...]:
        return type(self), self.order

    def materialize(self) -> Tensor:
        return self.order.to_layout(self.gradients)

    def whiten(self, root: Tensor) -> DenseBlock:
        root = root.to(self.gradients)
        if root.shape[1] == 1:
            return replace(self, gradients=root * self.gradients)
        return replace(self, gradients=torch.bmm(root, self.gradients))

    def self_kernel(self) -> Tensor:
        if self.gradients.shape[1] == 1:
            return squared_norms(self.gradients)[..., None]
        return _double_products(self.gradients)

    def weighted_sum(self, weights: Tensor) -> list[Tensor]:
        flat = weights.to(self.gradients).flatten(0, 1)
        summed = self.order.to_layout(flat.mT @ self.gradients.flatten(0, 1))
        return list(summed.split([shape.numel() for _, shape in self.layout], dim=1))

    def inner(self, vectors: Sequence[Tensor]) -> Tensor:
        held = self.order.from_layout(torch.cat(list(vectors), dim=1).to(self.gradients))
        return self.gradients.flatten(1) @ held.flatten()

    def product(self, vectors: Sequence[Tensor]) -> Tensor:
        held = self.order.from_layout(torch.cat(list(vectors), dim=1).to(self.gradients))
        return self.gradients @ held.mT

    def sketch(self, maps: Sequence[FourierMap]) -> Tensor:
        parts = self.materialize().split([shape.numel() for _, shape in self.layout], dim=2)
        return sum(map(_dense_sketch, parts, maps), start=torch.zeros((), dtype=maps[0].rows.dtype))

    @property
    def sketched_vectors(self) -> int:
        return self.gradients.shape[1] * longest_axis(self.layout)

    def _gram(self, other: Block) -> Tensor:
        assert isinstance(other, DenseBlock)
        product = self.gradients.flatten(0, 1) @ other.gradients.flatten(0, 1).mT
        outputs = self.gradients.shape[1]
        return product.unflatten(1, (-1, outputs)).unflatten(0, (-1, outputs)).transpose(1, 2)

    def _trace_gram(self, other: Block) -> Tensor:
        assert isinstance(other, DenseBlock)
        return self.gradients.flatten(1) @ other.gradients.flatten(1).mT

    def _paired(self, other: Block) -> Tensor:
        assert isinstance(other, DenseBlock)
        own, others = self.gradients.flatten(1), other.gradients.flatten(1)
        return torch.bmm(own[:, None], others[:, :, None])[:, 0, 0]

    def _marginals(self, other: Block, by_rows: Sequence[bool]) -> list[Tensor]:
        assert isinstance(other, DenseBlock)
        products = self.order.to_layout((self.gradients * other.gradients).sum(dim=1))
        parts = products.split([shape.numel() for _, shape in self.layout], dim=1)
        shapes = [(shape[:1].numel(), shape[1:].numel()) for _, shape in self.layout]
        return [
            part.unflatten(1, shape).sum(dim=2 if rows else 1)
            for part, shape, rows in zip(parts, shapes, by_rows, strict=True)
        ]

    def _concatenated(self, blocks: Sequence[DenseBlock]) -> DenseBlock:
        return replace(self, gradients=concatenate_tensors([block.gradients for block in blocks]))

    def _added(self, blocks: Sequence[DenseBlock]) -> DenseBlock:
        return replace(self, gradients=torch.stack([block.gradients for block in blocks]).sum(0))


def _dense_sketch(gradients: Tensor, fourier: FourierMap) -> Tensor:
    rows = multiply_complex(gradients.unflatten(2, (len(fourier.rows), -1)), fourier.columns)
    return torch.einsum("norf,rf,of->nf", rows, fourier.rows, fourier.outputs)


def squared_norms(vectors: Tensor) -> Tensor:
    """Sums of squares along the last axis, float64: pieces of it in the vectors' dtype."""
    width = vectors.shape[-1]
    if width <= _SEGMENT:
        return torch.linalg.vector_norm(vectors, dim=-1).double().square()
    whole = width - width % _SEGMENT
    segments = vectors[..., :whole].unflatten(-1, (-1, _SEGMENT))
    norms = torch.linalg.vector_norm(segments, dim=-1).double().square().sum(dim=-1)
    return norms + squared_norms(vectors[..., whole:]) if whole < width else norms


def _double_products(vectors: Tensor) -> Tensor:
    """Products of each sample's vectors (n, o, w), of shape (n, o, o), in float64."""
    step = max(1, _DOUBLE_ELEMENTS // max(1, vectors[:1].numel()))
    doubled = (rows.double() for rows in vectors.split(step))
    return torch.cat([torch.bmm(rows, rows.mT) for rows in doubled])


def concatenate_tensors(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """One tensor; on a CPU in numpy's memory, of which large pieces come in huge pages."""
    if tensors[0].device.type != "cpu" or torch.is_grad_enabled():
        return torch.cat(list(tensors), axis)
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    result = torch.from_numpy(np.empty(shape, torch.empty(0, dtype=tensors[0].dtype).numpy().dtype))
    return torch.cat(list(tensors), axis, out=result)


def concatenate_blocks(blocks: Sequence[Block]) -> Block:
    """One block of all the samples of blocks of the same layer."""
    positions = {block.positions for block in blocks}
    joined = _of_one_form(blocks) if len(positions) == 1 else [block.dense() for block in blocks]
    return joined[0]._concatenated(joined)


def add_blocks(blocks: Sequence[Block]) -> Block:
    """The block of the summed gradients: several uses of the same parameters."""
    if len(blocks) == 1:
        return blocks[0]
    joined = _of_one_form(blocks)
    return joined[0]._added(joined)


def _of_one_form(blocks: Sequence[Block]) -> Sequence[Block]:
    if len({block._form() for block in blocks}) == 1:
        return blocks
    return [block.dense() for block in blocks]
